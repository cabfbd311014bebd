"""Numbers and captions of figures and tables.

A cell that draws a figure or ends with a table begins with its caption as a comment:

    # Figure maps: Test videos and their audio,
    #   before and after the heads.

`@fig-maps` or `@tab-maps` anywhere in the prose becomes the number, and a link.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CAPTION = re.compile(r"\A# (Figure|Table) ([a-z0-9-]+): (.+(?:\n#   .+)*)\n")
REFERENCE = re.compile(r"@((?:fig|tab)-[a-z0-9-]*[a-z0-9])")
PREFIXES = {"Figure": "fig", "Table": "tab"}


@dataclass(frozen=True)
class Caption:
    """What stands under a figure, or over a table."""

    kind: str  # Figure or Table
    number: str  # 12.3: third of its kind in chapter 12
    label: str  # fig-maps
    text: str

    @property
    def title(self) -> str:
        """`Figure 12.3`."""
        return f"{self.kind} {self.number}"

    @property
    def file(self) -> str:
        """`figure-12.3-maps`, a name for files."""
        return f"{self.kind.lower()}-{self.number}-{self.label.partition('-')[2]}"

    @property
    def plain(self) -> str:
        """The text without Markdown, for those who do not see the figure."""
        text = re.sub(r"\{[a-z:]+\}`([^`]*)`", "", self.text)
        return re.sub(r"[*_`$\\]", "", text).strip()


def chapter_of(path: Path) -> str:
    """`12` of `12_retrieval.ipynb`, or the name where there is no number."""
    head = path.stem.partition("_")[0]
    return str(int(head)) if head.isdigit() else path.stem


def captions(cells: Iterable[Any], chapter: str) -> Iterator[tuple[int, Caption]]:
    """The captions in a notebook's cells, each with the index of its cell."""
    count = dict.fromkeys(PREFIXES, 0)
    for i, cell in enumerate(cells):
        if cell.cell_type == "code" and (found := CAPTION.match(cell.source)):
            kind, name, text = found.groups()
            count[kind] += 1
            text = re.sub(r"\s*\n#\s*", " ", text)
            yield i, Caption(kind, f"{chapter}.{count[kind]}", f"{PREFIXES[kind]}-{name}", text)


def with_references(text: str, numbers: dict[str, Caption]) -> str:
    """Markdown in which `@fig-maps` is a link to the figure.

    Raises:
        ValueError: when there is no such figure or table.
    """

    def link(found: re.Match[str]) -> str:
        if found[1] not in numbers:
            raise ValueError(f"{found[0]} is referred to; there are {', '.join(numbers)}")
        return f"[{numbers[found[1]].title}]({found[1]})"

    return REFERENCE.sub(link, text)


def caption_markdown(caption: Caption) -> str:
    """The caption as a block of a page, which links can point to."""
    return f"({caption.label})=\n:::{{container}} caption\n**{caption.title}.** {caption.text}\n:::"

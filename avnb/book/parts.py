"""Pages that open a part of the book: each chapter's question, and what it found.

A line of such a page names chapters:

    @answers 07_probe 08_protocols

Staging puts their titles, questions and answers in its place. The answer of a chapter is the
Markdown that its cell with the tag `answer` has displayed, so that nothing is typed in.
"""

import re
from collections.abc import Mapping
from typing import Any

ANSWERS = re.compile(r"^@answers (.+)$", re.MULTILINE)
TITLE = re.compile(r"\A# (.+)$", re.MULTILINE)
QUESTION = re.compile(r"^\*\*Question\.\*\* (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([\w-]+\.ipynb)|(\{doc\}`[^<`]*<)(\w+)(?=>`)")


class BookError(RuntimeError):
    """A notebook, a page or the build failed; the message says where to look."""


def from_above(text: str) -> str:
    """Markdown of a chapter with its links as they are one folder up, where part pages lie."""

    def moved(link: re.Match[str]) -> str:
        page, role, target = link.groups()
        return f"](chapters/{page}" if page else f"{role}chapters/{target}"

    return LINK.sub(moved, text)


def displayed(page: Any) -> str:
    """The Markdown that the cell with the tag `answer` displayed; '' without one."""
    texts = [
        output["data"]["text/markdown"].strip()
        for cell in page.cells
        if "answer" in cell.metadata.get("tags", ())
        for output in cell.get("outputs", ())
        if "text/markdown" in output.get("data", {})
    ]
    return "\n\n".join(texts)


def block(name: str, page: Any) -> str:
    """A chapter's title as a link, its question, and what was found.

    Raises:
        BookError: when there is no question or no answer.
    """
    opening = page.cells[0].source
    title, question, answer = TITLE.search(opening), QUESTION.search(opening), displayed(page)
    if not (title and question and answer):
        raise BookError(f"{name} needs a title, a **Question.** and a cell `answer` with Markdown")
    link = f"**[{title[1]}](chapters/{name}.ipynb)**"
    asked, found = (from_above(text) for text in (question[1], answer))
    return f":::{{container}} answered\n{link}\n\n*Question.* {asked}\n\n*Found.* {found}\n:::"


def with_answers(text: str, pages: Mapping[str, Any], note: str = "") -> str:
    """A page in which every line `@answers` is a block for each chapter that it names.

    Args:
        text: the page's Markdown.
        pages: executed chapters by file name.
        note: what is put over the first of these blocks.

    Raises:
        BookError: when a chapter is unknown, or has no question or no answer.
    """

    def blocks(line: re.Match[str]) -> str:
        names = line[1].split()
        if unknown := [name for name in names if f"{name}.ipynb" not in pages]:
            raise BookError(f"no chapter {unknown[0]!r}; there are {', '.join(sorted(pages))}")
        return "\n\n".join(block(name, pages[f"{name}.ipynb"]) for name in names)

    return ANSWERS.sub(blocks, ANSWERS.sub(lambda line: f"{note}\n\n{line[0]}", text, count=1))

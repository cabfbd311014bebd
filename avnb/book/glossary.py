"""Links from the first mention of a term on a page to the book's glossary."""

import re

ENTRY = re.compile(r"^(\w[^\n]*)\n  \S", re.MULTILINE)
# Code, roles, formulae, links, headings, HTML, labels: what is no prose, or is a link already.
OTHER = re.compile(
    r"(^```.*?^```|^:::[^\n]*$|^\[[^\]]*\]:[^\n]*$|`[^`]*`|\{[a-z:]+\}`[^`]*`|\$\$.*?\$\$|\$[^$]*\$"
    r"|!?\[[^\]]*\]\([^)]*\)|^#[^\n]*$|^\([^)\n]*\)=$|^@[^\n]*$|<[^>\n]*>|\bhttps?://\S+)",
    re.DOTALL | re.MULTILINE,
)


def terms(glossary: str) -> dict[str, str]:
    """The terms of a page with a MyST `glossary`, by what stands for them in lower case."""
    entries = ENTRY.findall(glossary)
    return {name.lower(): entry for entry in entries for name in (entry, *entry.split(", "))}


def with_terms(text: str, known: dict[str, str], seen: set[str]) -> str:
    """Markdown in which the first mention of each term is a link; `seen` grows by these terms."""
    longest_first = sorted(map(re.escape, known), key=len, reverse=True)
    mention = re.compile(rf"\b({'|'.join(longest_first)})s?\b(?!-)", re.IGNORECASE)

    def link(found: re.Match[str]) -> str:
        entry = known[found[1].lower()]
        if entry in seen:
            return found[0]
        seen.add(entry)
        return f"{{term}}`{found[0]} <{entry}>`"

    parts = OTHER.split(text)  # every second one is no prose
    return "".join(part if i % 2 else mention.sub(link, part) for i, part in enumerate(parts))

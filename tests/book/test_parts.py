"""Part pages repeat what chapters asked and displayed, and refuse what did neither."""

import nbformat
import pytest

from avnb.book import parts
from tests.conftest import ROOT

OPENING = (
    "# Linear probe\n\n**Question.** Is $q$ seen by [all](10_concepts.ipynb)?\n\n**Answer.** So."
)


def chapter(
    opening=OPENING, found="See [why](05_methods.ipynb) and {doc}`x <04_rince>`.", tag="answer"
):
    shown = nbformat.v4.new_output("display_data", data={"text/markdown": found} if found else {})
    return nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(opening),
            nbformat.v4.new_code_cell("Markdown(other)", outputs=[shown]),
            nbformat.v4.new_code_cell("Markdown(it)", metadata={"tags": [tag]}, outputs=[shown]),
        ]
    )


def test_a_line_becomes_title_question_and_what_was_found():
    page = parts.with_answers("# Part\n\n@answers 07_probe\n\nend", {"07_probe.ipynb": chapter()})
    assert page.startswith("# Part") and page.endswith("end") and "@answers" not in page
    assert "**[Linear probe](chapters/07_probe.ipynb)**" in page
    assert "*Question.* Is $q$ seen by [all](chapters/10_concepts.ipynb)?" in page
    assert "*Found.* See [why](chapters/05_methods.ipynb) and {doc}`x <chapters/04_rince>`." in page
    assert page.count("*Found.*") == 1 and "So." not in page


def test_the_size_is_said_once_above_the_first_answer():
    pages = {"07_probe.ipynb": chapter(), "08_protocols.ipynb": chapter()}
    page = parts.with_answers("@answers 07_probe 08_protocols\n\n@answers 07_probe", pages, "SMALL")
    assert page.startswith("SMALL") and page.count("SMALL") == 1 and page.count("*Found.*") == 3
    assert parts.with_answers("no line", pages, "SMALL") == "no line"


@pytest.mark.parametrize(
    "page", [chapter(tag="plumbing"), chapter(found=""), chapter(opening="# A\n\n**Answer.** So.")]
)
def test_a_chapter_without_question_or_answer_is_an_error(page):
    with pytest.raises(parts.BookError, match=r"07_probe needs a title, a .*Question.* and a cell"):
        parts.with_answers("@answers 07_probe", {"07_probe.ipynb": page})
    with pytest.raises(parts.BookError, match="no chapter '07_prob'; there are"):
        parts.with_answers("@answers 07_prob", {"07_probe.ipynb": page})


def test_every_part_opens_with_its_page_and_sums_up_chapters_that_stand_in_it():
    toc = (ROOT / "book/_toc.yml").read_text().split("- caption: ")[1:]
    pages = {path.stem: path.read_text() for path in (ROOT / "book").glob("part_*.md")}
    opened = [part for part in toc if "file: part_" in part]
    assert len(opened) == len(pages)
    for part in opened:
        files = [line.split("file: ")[1] for line in part.splitlines() if "file: " in line]
        named = [name for line in parts.ANSWERS.findall(pages[files[0]]) for name in line.split()]
        assert {f"chapters/{name}" for name in named} <= {*files[1:]}


def test_what_a_reader_of_the_thesis_looks_for_is_two_clicks_from_the_first_page():
    text = (ROOT / "book/index.md").read_text()
    for wanted in ("@tab-probe", "(chapters/05_methods.ipynb)", "@tab-seen"):
        assert wanted in text

"""The book as a PDF, its search, and a notebook in a real JupyterLab."""

import json
import re

import pytest

from avnb.book import pdf
from tests.book.lab import lab, run_all

pytestmark = pytest.mark.slow


@pytest.mark.timeout(300)
def test_printed_pages_have_numbers_links_and_bookmarks(build, pages, tmp_path, monkeypatch):
    """A few pages of the book: all would take a minute."""
    whole, chosen = pdf.pages_in_order, ("index", "04_rince", "12_retrieval", "references")
    monkeypatch.setattr(
        pdf, "pages_in_order", lambda index: [p for p in whole(index) if p.anchor.endswith(chosen)]
    )
    html = build / "smoke/book/_build/html"
    printed = pdf.write_pdf(html / "index.html", tmp_path / "book.pdf", "smoke").read_bytes()
    sheets, count = pdf.sheets(printed), len(pdf.PAGE.findall(printed))
    begins = [sheets[name] for name in ("index", "chapters-04_rince", "chapters-12_retrieval")]
    assert begins[0] == 3 and begins == sorted({*begins}) and sheets["references"] <= count
    links = re.findall(rb"/Dest /([\w.-]+)\n", printed)
    assert len(links) > 20 and {link.decode() for link in links} <= {*sheets}
    assert b"/Type /Outlines" in printed and count > 12
    assert not list(html.glob(".print*"))


def test_search_and_images_work_from_disk(browser, pages, build):
    page = browser.new_page()
    folder = build / "smoke/book/_build/html"
    page.goto(f"{(folder / 'search.html').as_uri()}?q=memory+bank")
    found = page.locator("#search-results li a")
    page.locator("#search-results li a[href*='05_methods']").first.wait_for()
    page.goto((folder / "chapters/07_probe.html").as_uri())
    page.keyboard.press("Control+k")
    page.keyboard.type("RINCE")
    page.keyboard.press("Enter")
    found.first.wait_for()
    page.close()
    for path in pages:
        text = path.read_text()
        images = re.findall(r"<img [^>]*>", text.partition("<article")[2].partition("</article")[0])
        assert all('loading="lazy"' in image for image in images), path.name
        assert len(text) < 3e6, path.name


@pytest.mark.timeout(300)
def test_exploring_in_a_real_lab(pages, build, browser, tmp_path):
    """All cells are run, widgets are turned, and the answers change."""
    failures = build / "smoke/failures.jsonl"
    context = browser.new_context(viewport={"width": 1400, "height": 1600})
    page = context.new_page()
    with lab(tmp_path, build, "explore.ipynb") as address:
        page.goto(address)
        run_all(page)
        query = page.locator(".jp-OutputArea figure video").first
        query.wait_for(timeout=60_000)
        before = query.get_attribute("aria-label")
        of_class, rows = (page.locator(".widget-dropdown select").nth(i) for i in (3, 4))
        every = rows.locator("option").count()
        of_class.select_option("BellRinging")
        page.wait_for_function(
            "before => document.querySelector('.jp-OutputArea figure video')"
            "?.getAttribute('aria-label') === 'BellRinging, query'"
        )
        assert before != "BellRinging, query" and rows.locator("option").count() < every
        page.get_by_placeholder("what is wrong").fill("too small")
        page.get_by_role("button", name="mark as failure").click()
        page.get_by_text("saved: 1 in failures.jsonl").wait_for()
        video = next((build / "smoke").glob("world-*/vggsound/train/*.mp4"))
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="a video").click()
        chooser.value.set_files(video)
        page.locator(f"figure video[aria-label='{video.stem}, query']").wait_for(timeout=60_000)
    context.close()
    row = json.loads(failures.read_text())
    assert row["note"] == "too small" and len(row["answers"]) == 5 and row["direction"] == "v->v"

"""Names of the user's on a page of the book, as a browser shows it."""

import shutil

import pytest
from playwright.sync_api import sync_playwright

from avnb.book import book
from avnb.book.wording import bullets, literal
from avnb.profiles import Workspace
from tests.book.test_tables import HOSTILE
from tests.conftest import ROOT

TOC = "format: jb-book\nroot: index\n"


@pytest.mark.slow
def test_names_stand_on_a_built_page_as_they_are(tmp_path):
    work, source = Workspace("smoke", tmp_path, {}), tmp_path / "source"
    shutil.copytree(ROOT / "book" / "assets", source / "assets")
    shutil.copy(ROOT / "book" / "refs.bib", source)
    (source / "_toc.yml").write_text(TOC)
    text = bullets(literal(name) for name in HOSTILE)
    (source / "index.md").write_text(f"# Names\n\n{text}\n\nA formula: $y$.\n")
    page_file = book.build(work, source)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.goto(page_file.as_uri())
        page.wait_for_timeout(1000)
        items = page.locator("article li code").all_inner_texts()
        assert items == list(HOSTILE)
        assert page.locator("article li mjx-container, article li b, article li a").count() == 0
        browser.close()

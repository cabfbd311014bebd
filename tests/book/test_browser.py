"""The pages of the book at its smallest size, in a real browser."""

import itertools
import os
import re
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.slow


class Shown:
    """A page of the book in the browser, with all that it complained about or asked for."""

    def __init__(self, context, path):
        self.stem, self.folder, self.trouble = path.stem, path.parent.name, []
        self.page = context.new_page()
        self.page.on("console", lambda m: m.type == "error" and self.trouble.append(m.text))
        self.page.on("pageerror", lambda e: self.trouble.append(str(e)))
        self.page.on("requestfailed", lambda r: self.trouble.append(f"failed: {r.url}"))
        self.page.on("request", self.watch)
        self.page.goto(path.as_uri())
        self.page.wait_for_load_state("load")
        self.article = self.page.locator("article")

    def watch(self, request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.trouble.append(f"asks for {request.url}")


@pytest.fixture(scope="module")
def shown(browser, pages):
    """All pages, opened once."""
    context = browser.new_context(viewport={"width": 1400, "height": 1200})
    yield [Shown(context, path) for path in pages]
    context.close()


@pytest.mark.timeout(1200)
def test_every_page_opens_without_error_and_without_the_network(shown):
    assert len(shown) >= 9
    for one in shown:
        one.page.wait_for_timeout(100)
        assert not one.trouble, f"{one.stem}: {one.trouble}"


def test_all_maths_is_rendered(shown):
    total = 0
    for one in shown:
        page = one.page
        written = page.locator("span.math, div.math").count()
        if written:
            page.wait_for_function("document.querySelectorAll('mjx-container').length > 0")
            page.wait_for_timeout(300)
        drawn = page.locator("mjx-container svg").count()
        assert drawn >= written and page.locator("mjx-merror").count() == 0, one.stem
        assert not re.search(r"\\\(|\\\[|\$\$", one.article.inner_text())
        total += drawn
    assert total > 20


def test_every_figure_is_visible_and_described_by_its_size(shown):
    total = 0
    for one in shown:
        one.page.bring_to_front()  # a page behind is looked at once a second only
        for image in one.article.locator("img").all():
            image.scroll_into_view_if_needed()
            one.page.wait_for_function(
                "i => i.complete && i.naturalWidth > 200", arg=image.element_handle()
            )
            assert image.is_visible() and image.bounding_box()["width"] > 200, one.stem
            total += 1
    assert total >= 9


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_picture_and_sound_can_be_played(shown, kind):
    (clips,) = (one for one in shown if one.stem == "02_clips")
    clips.page.bring_to_front()
    media = clips.article.locator(kind).first
    media.evaluate("m => { m.muted = true; return m.play(); }")
    clips.page.wait_for_timeout(1200)
    assert media.evaluate("m => m.error === null && m.duration > 1 && m.currentTime > 0.3")


def test_galleries_play_from_small_files_that_are_loaded_when_asked_for(shown, pages, build):
    (galleries,) = (one for one in shown if one.stem == "13_galleries")
    galleries.page.bring_to_front()
    players = galleries.article.locator("video")
    assert players.count() > 20
    assert {player.get_attribute("preload") for player in players.all()} == {"none"}
    player = players.first
    player.focus()
    player.evaluate("m => { m.muted = true; return m.play(); }")
    galleries.page.wait_for_function(
        "m => m.currentTime > 0.3 && m.error === null", arg=player.element_handle()
    )
    folder = build / "smoke/book/_build/html/_static/media"
    assert 0 < sum(file.stat().st_size for file in folder.iterdir()) < 15e6
    page = next(path for path in pages if path.stem == "13_galleries")
    assert page.stat().st_size < 6e6 and "base64" not in players.first.get_attribute("src")


def test_figures_and_tables_are_numbered_and_described_and_referred_to(shown):
    total = 0
    for one in shown:
        captions = one.article.locator("div.caption")
        for text in captions.all_inner_texts():
            number = re.match(r"(Figure|Table) (\d+)\.\d+\. \S", text)
            assert number, text
            assert int(number[2]) == int(one.stem[:2])
            title = f"{number[1]} {text.split()[1].rstrip('.')}"
            link = one.article.get_by_role("link", name=title, exact=True)
            assert link.count() >= 1, f"{one.stem}: {text}"
            total += 1
        if one.folder == "chapters":
            assert "@fig" not in one.article.inner_text()
    assert total > 50


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_page(shown, width):
    for one in shown:
        one.page.set_viewport_size({"width": width, "height": 900})
        room, window = one.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert room <= window + 1, one.stem
        if width == 1280:
            over = (
                "all => all.filter(t => !t.closest('[style*=overflow]'))"
                ".map(t => t.offsetWidth - t.closest('.cell_output').clientWidth)"
            )
            tables = one.article.locator(".cell_output table.dataframe")
            widths = tables.evaluate_all(over)
            assert all(width <= 2 for width in widths), f"{one.stem}: {widths}"
            assert widths or one.stem != "12_retrieval"
        one.page.set_viewport_size({"width": 1400, "height": 1200})


def test_a_table_is_sorted_by_the_column_that_is_pressed(shown):
    (introduction,) = (one for one in shown if one.stem == "00_introduction")
    introduction.page.bring_to_front()
    table = introduction.article.locator("table.sortable")
    before = table.locator("tbody tr").all_inner_texts()
    for column, ends in (("UCF-101", ["VICReg-AV", "supervised"]), ("year", ["2020", "2022"])):
        button = table.get_by_role("button", name=column)
        for way in ("ascending", "descending"):
            button.focus()
            introduction.page.keyboard.press("Enter")
            rows = table.locator("tbody tr").all_inner_texts()
            assert sorted(rows) == sorted(before)
            assert all(end in row for end, row in zip(ends, (rows[0], rows[-1]), strict=True))
            sorted_by = table.locator("th[aria-sort]")
            assert sorted_by.all_inner_texts() == [column]
            assert sorted_by.get_attribute("aria-sort") == way
            ends = ends[::-1]
    assert not introduction.trouble


def test_images_are_described_headings_in_order_and_links_lead_somewhere(shown, pages):
    for one in shown:
        texts = [image.get_attribute("alt") for image in one.article.locator("img").all()]
        assert all(text and not text.endswith((".png", ".svg")) for text in texts), one.stem
        levels = one.article.locator("h1, h2, h3, h4").evaluate_all(
            "all => all.map(h => Number(h.tagName[1]))"
        )
        assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), one.stem
        for link in one.page.locator("a[href]").evaluate_all("all => all.map(a => a.href)"):
            if link.startswith("file:"):
                path = unquote(urlsplit(link).path)
                assert os.path.exists(path), f"{one.stem}: {link}"  # noqa: PTH110


def test_a_page_says_at_which_size_it_was_made(shown):
    # Losses, toys, names, encoders at every width, timings, costs: nothing is trained at a size.
    sizeless = ("00_introduction", "04_rince", "03_encoders", "10_concepts", "05_methods")
    sizeless += ("17_speed", "18_reproduce", "explore")
    for one in shown:
        if one.folder == "chapters" and one.stem not in sizeless:
            text = one.article.inner_text()
            assert "smoke" in text and "numbers mean nothing" in text, one.stem


def test_parts_open_with_what_their_chapters_found(shown):
    opened = [one for one in shown if one.stem.startswith("part_")]
    found = [one.article.locator("div.answered").count() for one in opened]
    assert sum(found) >= 16 and found.count(0) == 1  # the appendix
    text = "\n".join(one.article.inner_text() for one in opened)
    assert "@answers" not in text and text.count("Found.") == sum(found)


def test_no_page_shows_a_stale_bar_or_an_empty_cell(shown):
    for one in shown:
        text = one.article.inner_text()
        if one.folder != "reference":  # which describes them
            assert "it/s]" not in text and "injected" not in text and "Traceback" not in text
        for output in one.page.locator(".cell_output").all():
            if not output.is_visible():  # folded
                continue
            box = output.bounding_box()
            assert box is None or box["height"] > 8, one.stem

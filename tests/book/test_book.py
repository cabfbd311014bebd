"""The book at its smallest size: interrupted, finished, made again, read in a browser, explored."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.book.lab import lab, run_all
from tests.conftest import ROOT
from tests.processes import processes, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
BOOK = [sys.executable, "-m", "avnb", "book", "--profile", "smoke"]
AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text()
RULES = [  # of axe-core: https://github.com/dequelabs/axe-core/blob/develop/doc/rule-descriptions.md
    "button-name", "color-contrast", "frame-title", "heading-order", "image-alt", "label",
    "link-name", "list", "listitem", "scrollable-region-focusable", "svg-img-alt",
]  # fmt: skip


@pytest.fixture(scope="module")
def build(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("book")
    shutil.copytree(world, folder / "smoke" / world.name)  # to make it again takes half a minute
    return folder


@pytest.fixture(scope="module")
def environment(build):
    return {**os.environ, "AVNB_BUILD": str(build)}


@pytest.fixture(scope="module")
def interrupted(build, environment):
    """Ctrl-C while the training processes are at work."""
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    job = subprocess.Popen(BOOK, cwd=ROOT, env=environment, **streams)
    wait_for(lambda: processes(build, "avnb train"), seconds=600)
    time.sleep(5)
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=60)
    return job.returncode, said


@pytest.fixture(scope="module")
def made(interrupted, environment):
    done = subprocess.run(BOOK, cwd=ROOT, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def pages(made, build):
    """Paths of the pages that are read, by name: without indices and source."""
    html = build / "smoke/book/_build/html"
    found = [p for p in html.rglob("*.html") if not {"_static", "_modules"} & {*p.parts}]
    return {p.stem: p for p in found if p.stem not in ("genindex", "search", "py-modindex")}


def test_an_interruption_is_taken_calmly_and_leaves_nobody(interrupted, build):
    code, said = interrupted
    assert code == 130 and "the same command goes on where it was" in said
    assert "Traceback" not in said
    wait_for(lambda: not processes(build))


def test_the_second_attempt_keeps_what_the_first_one_finished(made, build):
    said = made.stdout + made.stderr
    assert "running 02_clips.ipynb" not in said and "running 07_probe.ipynb" in said
    assert made.stdout.strip().endswith(str(build / "smoke/book/_build/html/index.html"))


def test_made_again_nothing_is_run_again(made, build, environment):
    start = time.monotonic()
    again = subprocess.run(BOOK, cwd=ROOT, env=environment, text=True, capture_output=True)
    said = again.stdout + again.stderr
    assert again.returncode == 0 and "running" not in said and "building" not in said
    assert time.monotonic() - start < 60


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
        self.article = self.page.locator("article")

    def watch(self, request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.trouble.append(f"asks for {request.url}")


@pytest.fixture(scope="module")
def shown(browser, pages):
    """All pages, opened once."""
    context = browser.new_context(viewport={"width": 1400, "height": 1200})
    yield {name: Shown(context, path) for name, path in pages.items()}
    context.close()


def test_every_page_opens_without_error_and_without_the_network(shown):
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} <= shown.keys()
    for name, one in shown.items():
        one.page.wait_for_timeout(100)
        assert not one.trouble, f"{name}: {one.trouble}"


def test_all_maths_is_rendered(shown):
    for name in ("04_rince", "05_methods", "07_probe"):
        page, article = shown[name].page, shown[name].article
        page.wait_for_function("document.querySelectorAll('mjx-container svg').length > 0")
        written = article.locator("span.math, div.math").count()
        page.wait_for_function(
            "n => document.querySelectorAll('mjx-container svg').length >= n", arg=written
        )
        assert written and page.locator("mjx-merror").count() == 0
        assert not re.search(r"\\\(|\\\[|\$\$", article.inner_text())


def test_images_are_there_and_described_headings_in_order_and_links_lead_somewhere(shown):
    for name, one in shown.items():
        images = one.article.locator("img").evaluate_all(
            "all => all.map(i => [i.complete && i.naturalWidth > 20, i.alt])"
        )
        assert all(there for there, _ in images), name
        assert not one.article.locator("img[src*=_images]:not([width][height])").count(), name
        assert all(alt and not alt.endswith((".png", ".svg", ".jpg")) for _, alt in images), name
        levels = one.article.locator("h1, h2, h3, h4").evaluate_all(
            "all => all.map(h => Number(h.tagName[1]))"
        )
        assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), name
        for link in one.page.locator("a[href]").evaluate_all("all => all.map(a => a.href)"):
            if link.startswith("file:"):
                assert Path(unquote(urlsplit(link).path)).exists(), f"{name}: {link}"


def test_figures_and_tables_are_numbered_by_chapter_and_referred_to(shown):
    total = 0
    for name, one in shown.items():
        numbers = one.article.locator(".caption-number").all_inner_texts()
        if name[:2].isdigit() and name[:2] != "00":
            expected = [f"{int(name[:2])}.{i}" for i, _ in enumerate(numbers, 1)]
            assert [number.strip() for number in numbers] == expected, name
        labels = one.article.locator("figure[id]").evaluate_all("all => all.map(f => f.id)")
        for label in labels if one.folder == "chapters" else ():
            assert one.article.locator(f"a.reference[href='#{label}']").count(), f"{name}: {label}"
        total += len(numbers)
    assert total > 40


def test_clips_and_galleries_play_from_small_files_that_are_loaded_when_asked_for(shown, build):
    page, players = shown["13_galleries"].page, shown["13_galleries"].article.locator("video")
    page.bring_to_front()
    assert players.count() > 20
    assert {player.get_attribute("preload") for player in players.all()} == {"none"}
    player = players.first
    player.evaluate("m => { m.muted = true; return m.play(); }")
    page.wait_for_function(
        "m => m.currentTime > 0.3 && m.error === null", arg=player.element_handle()
    )
    folder = build / "smoke/book/_build/html/_static/media"
    assert 0 < sum(file.stat().st_size for file in folder.iterdir()) < 15e6


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_page(shown, width):
    for name, one in shown.items():
        one.page.set_viewport_size({"width": width, "height": 900})
        room, window = one.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert room <= window + 1, name
        one.page.set_viewport_size({"width": 1400, "height": 1200})


def test_a_page_says_how_it_was_made_and_shows_no_trace_of_running(shown):
    for name, one in shown.items():
        text = one.article.inner_text()
        if one.folder == "chapters":
            assert f"avnb run notebooks/{name}.ipynb out.ipynb" in text, name
            said = "numbers mean nothing" in text or "rows are stored" in text
            assert said or "-p profile smoke" not in text, name
            assert "it/s]" not in text and "injected" not in text and "Traceback" not in text, name


def test_pages_can_be_read_by_everybody(browser, pages):
    """Contrast, names and order of what is on a page, by axe-core, in the light and the dark."""
    context = browser.new_context(viewport={"width": 1400, "height": 1200})
    tab = context.new_page()

    def violations(scheme):
        tab.emulate_media(color_scheme=scheme)
        theme = "s => document.documentElement.dataset.theme === s"
        tab.wait_for_function(theme, arg=scheme)
        found = tab.evaluate("rules => axe.run('article', {runOnly: rules})", RULES)
        assert found["passes"]
        return {(v["id"], n["html"][:200]) for v in found["violations"] for n in v["nodes"]}

    for name in ("index", "00_introduction", "04_rince", "07_probe", "13_galleries", "choices"):
        tab.goto(pages[name].as_uri())
        tab.add_style_tag(content="* { transition: none !important; }")
        tab.evaluate(AXE)
        for scheme in ("light", "dark"):
            assert not violations(scheme), f"{name}, {scheme}"
    pale = "<p style='color: #bbb; background: #fff'>pale</p><img src=''>"
    tab.locator("article").evaluate("(e, html) => e.insertAdjacentHTML('beforeend', html)", pale)
    assert {rule for rule, _ in violations("light")} == {"color-contrast", "image-alt"}
    context.close()


def test_exploring_in_a_real_lab(made, build, browser, tmp_path):
    """All cells are run, a widget is turned, and a video dropped in."""
    page = browser.new_page(viewport={"width": 1400, "height": 1600})
    with lab(tmp_path, build, "explore.ipynb") as address:
        page.goto(address)
        run_all(page)
        query = page.locator(".jp-OutputArea figure video").first
        query.wait_for(timeout=60_000)
        query.evaluate("m => { m.muted = true; return m.play(); }")
        before = query.get_attribute("aria-label")
        queries = page.locator(".widget-dropdown select").nth(2)
        queries.select_option(index=queries.locator("option").count() - 1)
        page.wait_for_function(
            "before => ![null, undefined, before].includes(document.querySelector("
            "'.jp-OutputArea figure video')?.getAttribute('aria-label'))", arg=before,
        )  # fmt: skip
        count = page.locator("figure video").count()
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="a video").click()
        chooser.value.set_files(next((build / "smoke").glob("world-*/ucf101/UCF-101/*/*.avi")))
        page.locator("figure video").nth(count).wait_for(timeout=60_000)
    page.close()

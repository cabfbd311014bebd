"""The book at its smallest size, made once, and a browser to read it with."""

import os
import shutil
import subprocess
import sys

import pytest
from playwright.sync_api import sync_playwright

from tests.conftest import ROOT
from tests.training.test_torchrun import wait_for

BOOK = [sys.executable, "-m", "avnb", "book", "--profile", "smoke"]
NO_ARTICLE = ("genindex.html", "search.html")


@pytest.fixture(scope="session")
def build(common):
    """The folder of the book, the same for all tests of a session."""
    folder = common / "book"
    folder.mkdir(exist_ok=True)
    return folder


def environment(build):
    return {**os.environ, "AVNB_BUILD": str(build)}


@pytest.fixture(scope="module")
def pages(build, request):
    """All pages; made here, unless another process of this session is about to interrupt them."""
    if any(item.path.name == "test_book.py" for item in request.session.items):
        wait_for((build / "tried").exists, seconds=900)
    command, env = BOOK, environment(build)
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = sorted((build / "smoke/book/_build/html").rglob("*.html"))
    return [p for p in found if "_static" not in p.parts and p.name not in NO_ARTICLE]


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "Chromium is missing; on Debian: apt install chromium"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"],
        )

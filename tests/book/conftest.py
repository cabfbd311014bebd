"""A browser to read the book with, and who is at work on it."""

import shutil
import time

import psutil
import pytest
from playwright.sync_api import sync_playwright


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


def processes(build, command=""):
    """Processes, other than zombies, whose build folder is this one, by a word of their command."""
    found = []
    for one in psutil.process_iter():
        try:
            if one.environ().get("AVNB_BUILD") == str(build) and command in one.cmdline():
                found.append(one)
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # of a zombie as well
            continue
    return found


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "Chromium is missing; on Debian: apt install chromium"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"],
        )

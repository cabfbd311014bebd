"""A real JupyterLab with one notebook, driven in a browser."""

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import TimeoutError

from tests.conftest import ROOT
from tests.processes import wait_for


def answers(address: str) -> bool:
    """Whether a server does so, which may be later than its log tells."""
    with contextlib.suppress(URLError), urlopen(address) as reply:
        return reply.status == 200
    return False


@contextlib.contextmanager
def lab(folder: Path, build: Path, notebook: str):
    """The address of a copy of a notebook in a Lab of its own, in `folder`."""
    shutil.copy(ROOT / "notebooks" / notebook, folder / notebook)
    token, log = secrets.token_hex(8), folder / "lab.txt"
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0",
        f"--notebook-dir={folder}", f"--IdentityProvider.token={token}",
        "--LabApp.collaborative=False", "--LabApp.news_url=None",
    ]  # fmt: skip
    whole = folder / "settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    whole.parent.mkdir(parents=True)
    whole.write_text('{"windowingMode": "none"}')  # else cells out of view are not in the page
    settings = {"AVNB_BUILD": str(build), "JUPYTER_CONFIG_DIR": str(folder / "config")}
    settings["JUPYTERLAB_SETTINGS_DIR"] = str(folder / "settings")
    with log.open("w") as file:
        job = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **settings}, stdout=file, stderr=file
        )
        try:
            wait_for(lambda: re.search(r"http://127\.0\.0\.1:\d+/", log.read_text()), seconds=60)
            address = re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())[0]
            wait_for(lambda: answers(f"{address}api"), seconds=60)
            yield f"{address}lab/tree/{notebook}?token={token}"
        finally:
            job.terminate()
            job.wait(timeout=30)


def run_all(page) -> None:
    """Run all cells, and wait until the kernel is done."""
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    select = page.get_by_role("button", name="Select", exact=True)
    with contextlib.suppress(TimeoutError):  # it asks for a kernel where none was used before
        select.click(timeout=8_000)
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()

"""The book at its smallest size: interrupted, made, and made again. `test_browser` looks at it."""

import signal
import subprocess
import time

import pytest

from tests.conftest import ROOT
from tests.report.conftest import BOOK, environment
from tests.training.test_torchrun import alive, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def interrupted(build):
    """Ctrl-C while the training processes are at work."""
    job = subprocess.Popen(
        BOOK, cwd=ROOT, env=environment(build), text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for(lambda: list(build.glob("smoke/runs/xid-*/output.txt")), seconds=480)
    time.sleep(2)
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=60)
    return job.returncode, said


@pytest.fixture(scope="module")
def made(build, interrupted):
    done = subprocess.run(BOOK, cwd=ROOT, env=environment(build), text=True, capture_output=True)
    (build / "tried").touch()
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.timeout(1200)
def test_an_interruption_is_taken_calmly_and_leaves_nobody(build, interrupted):
    code, said = interrupted
    assert code == 130 and "the same command goes on where it was" in said
    assert "Traceback" not in said
    wait_for(lambda: not alive(build))


@pytest.mark.timeout(1200)
def test_the_second_attempt_keeps_what_the_first_one_finished(made, build):
    assert "running 02_clips.ipynb" not in made.stdout + made.stderr
    assert "running 06_pretraining.ipynb" in made.stdout + made.stderr
    assert made.stdout.strip().endswith(str(build / "smoke/book/_build/html/index.html"))


@pytest.mark.timeout(1200)
def test_made_again_nothing_is_run_again(made, build):
    start = time.monotonic()
    again = subprocess.run(BOOK, cwd=ROOT, env=environment(build), text=True, capture_output=True)
    said = again.stdout + again.stderr
    assert again.returncode == 0 and "running" not in said and "building" not in said
    # The browser's tests may be asking for the book too: then this process says that it waits.
    ready = f"the book is ready: {build}/smoke/book/_build/html/index.html"
    assert again.stdout.splitlines()[-1] == ready
    assert time.monotonic() - start < 60

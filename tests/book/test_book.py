"""The book at its smallest size: interrupted, made, and made again. `test_browser` looks at it."""

import signal
import subprocess
import time
from functools import partial

import pytest

from tests.book.conftest import BOOK, environment
from tests.conftest import ROOT
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
def attempts(build, interrupted):
    """The second and the third, and the seconds of the third; the browser's tests wait for both."""
    command = partial(subprocess.run, BOOK, cwd=ROOT, env=environment(build), text=True)
    try:
        made = command(capture_output=True)
        assert made.returncode == 0, made.stderr[-3000:]
        start = time.monotonic()
        return made, command(capture_output=True), time.monotonic() - start
    finally:
        (build / "tried").touch()


@pytest.mark.timeout(1200)
def test_an_interruption_is_taken_calmly_and_leaves_nobody(build, interrupted):
    code, said = interrupted
    assert code == 130 and "the same command goes on where it was" in said
    assert "Traceback" not in said
    wait_for(lambda: not alive(build))


@pytest.mark.timeout(1200)
def test_the_second_attempt_keeps_what_the_first_one_finished(attempts, build):
    made, _, _ = attempts
    assert "running 02_clips.ipynb" not in made.stdout + made.stderr
    assert "running 06_pretraining.ipynb" in made.stdout + made.stderr
    assert made.stdout.strip().endswith(str(build / "smoke/book/_build/html/index.html"))


@pytest.mark.timeout(1200)
def test_made_again_nothing_is_run_again(attempts, build):
    _, again, seconds = attempts
    said = again.stdout + again.stderr
    assert again.returncode == 0 and "running" not in said and "building" not in said
    assert again.stdout == f"the book is ready: {build}/smoke/book/_build/html/index.html\n"
    assert seconds < 60

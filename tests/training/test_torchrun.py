"""No process is left behind, whatever ends the launcher. Real torchrun, real signals."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from avnb.training.job_output import LaunchError
from avnb.training.torchrun import launch
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def alive(folder):
    """Processes of the job in `folder`, by their environment; zombies are not alive."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if state != "Z" and str(folder).encode() in (entry / "environ").read_bytes():
                    found.append(
                        (entry.name, (entry / "cmdline").read_bytes().replace(b"\0", b" "))
                    )
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return found


def wait_for(condition, seconds=120.0, pause=0.1):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(pause)


LAUNCHER = """
import os, sys
os.environ["AVNB_TEST_JOB"] = sys.argv[1]
from pathlib import Path
from avnb.training.torchrun import launch
folder = Path(sys.argv[1])
launch([sys.argv[2], sys.argv[1]], processes=2, folder=folder, title="job",
       module="tests.job_sleep")
"""


@pytest.fixture
def job(tmp_path):
    """A launcher whose two workers are asleep."""
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path), "sleep"], cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: len(list(tmp_path.glob("ready*"))) == 2)
    assert len(alive(tmp_path)) >= 3  # torchrun and two workers
    yield process, tmp_path
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    "sent", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name
)
def test_a_signal_to_the_launcher_leaves_no_process(job, sent):
    process, folder = job
    process.send_signal(sent)
    process.wait(timeout=30)
    wait_for(lambda: not alive(folder))


def test_a_killed_torchrun_leaves_no_workers(job):
    process, folder = job
    (torchrun,) = (pid for pid, line in alive(folder) if b"torch.distributed.run" in line)
    os.kill(int(torchrun), signal.SIGKILL)
    assert process.wait(timeout=40) != 0
    wait_for(lambda: not alive(folder))


def test_a_killed_worker_ends_the_job(job):
    process, folder = job
    worker = (folder / "ready0").read_text()
    os.kill(int(worker), signal.SIGKILL)
    assert process.wait(timeout=60) != 0
    wait_for(lambda: not alive(folder))


def test_a_notebook_cell_that_times_out_leaves_no_process(tmp_path):
    """As nbclient does it: the kernel is interrupted, then shut down."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError

    cell = textwrap.dedent(LAUNCHER).replace("sys.argv[1]", repr(str(tmp_path)))
    cell = cell.replace("sys.argv[2]", "'sleep'")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    client = NotebookClient(notebook, timeout=30, resources={"metadata": {"path": str(ROOT)}})
    with pytest.raises(CellTimeoutError):
        client.execute()
    assert len(list(tmp_path.glob("ready*"))) == 2
    wait_for(lambda: not alive(tmp_path))


def test_the_error_quotes_a_failing_worker_and_the_log_is_kept(tmp_path):
    with pytest.raises(LaunchError) as caught:
        launch(
            ["fail", str(tmp_path)], processes=2, folder=tmp_path, title="job",
            module="tests.job_sleep",
        )  # fmt: skip
    message = str(caught.value)
    assert "ZeroDivisionError" in message and "job_sleep.py" in message
    assert "told before failing" in (tmp_path / "output.txt").read_text()


def test_a_stalled_job_is_given_up(tmp_path):
    start = time.monotonic()
    with pytest.raises(LaunchError, match="no sign of life for 8 s"):
        launch(
            ["sleep", str(tmp_path)], processes=1, folder=tmp_path, title="job",
            module="tests.job_sleep", stall_seconds=8,
        )  # fmt: skip
    assert time.monotonic() - start < 120


def test_progress_lines_move_the_bar_and_do_not_reach_the_log(tmp_path, capfd):
    launch(
        ["count", str(tmp_path)], processes=1, folder=tmp_path, title="counting",
        module="tests.job_sleep",
    )  # fmt: skip
    said, seen = capfd.readouterr()
    assert "something everybody should know" in said
    assert "counting" in seen and "4/4" in seen and "almost there" in seen
    log = (tmp_path / "output.txt").read_text()
    assert "an ordinary line" in log and "almost there" not in log


def test_less_than_one_process_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        launch([], processes=0, folder=tmp_path, title="job")

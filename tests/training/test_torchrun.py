"""No process is left behind, whatever ends the launcher. Real torchrun, real signals."""

import os
import signal
import subprocess
import sys

import pytest
from tqdm import tqdm

from avnb.training.launch import LaunchError, launch, show
from tests.conftest import ROOT
from tests.processes import processes, wait_for

LAUNCHER = """
import os, sys
os.environ["AVNB_TEST_JOB"] = sys.argv[1]
from pathlib import Path
from avnb.training.launch import launch
launch({Path(sys.argv[1]): ["tests.job_sleep", "sleep", sys.argv[1]]}, 2, "job")
"""


@pytest.fixture
def job(tmp_path):
    """A launcher whose two workers are asleep."""
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path)], cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: len(list(tmp_path.glob("ready*"))) == 2)
    assert len(processes(tmp_path)) >= 3  # torchrun and two workers
    yield process, tmp_path
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_a_signal_to_the_launcher_leaves_no_process(job, sent):
    process, folder = job
    process.send_signal(sent)
    process.wait(timeout=30)
    wait_for(lambda: not processes(folder))


@pytest.mark.slow
@pytest.mark.parametrize("part", ["torchrun", "worker"])
def test_a_killed_part_ends_the_job_and_leaves_no_process(job, part):
    process, folder = job
    torchrun = processes(folder, "torch.distributed.run")[0].pid
    worker = (folder / "ready0").read_text()
    os.kill(int(torchrun if part == "torchrun" else worker), signal.SIGKILL)
    assert process.wait(timeout=60) != 0
    wait_for(lambda: not processes(folder))


@pytest.mark.slow
def test_one_that_fails_is_quoted_and_ends_those_beside_it(tmp_path, monkeypatch):
    monkeypatch.setenv("AVNB_TEST_JOB", str(tmp_path))
    monkeypatch.setenv("LAST", "1")  # the process that fails
    folders = tmp_path / "sleep", tmp_path / "fail"
    jobs = {folder: ["tests.job_sleep", folder.name, str(folder)] for folder in folders}
    with pytest.raises(LaunchError, match=r"(?s)fail/output\.txt.*job_sleep\.py.*ZeroDivision"):
        launch(jobs, 2, "jobs")
    assert not processes(tmp_path)
    assert "told before failing" in (folders[1] / "output.txt").read_text()


def test_a_job_without_a_traceback_is_explained_by_its_last_lines(tmp_path):
    with pytest.raises(LaunchError, match=r"(?s)status 1.*No module named avnb\.none"):
        launch({tmp_path: ["avnb.none"]}, 1, "job")


def test_a_bar_counts_the_epochs_in_the_logs_and_shows_what_the_job_says(tmp_path):
    runs, output = [tmp_path / "a", tmp_path / "b"], tmp_path / "output.txt"
    with tqdm(total=6) as bar:
        show(bar, runs, output)
        assert bar.n == 0
        for folder in runs:
            folder.mkdir()
            (folder / "log.jsonl").write_text('{"epoch": 0}\n')
        output.write_text("before\rxid 5/9 clips\r")
        show(bar, runs, output)
        assert (bar.n, bar.postfix) == (2, "xid 5/9 clips")
        show(bar, runs, output, "waits for nodes")
        assert (bar.n, bar.postfix) == (2, "waits for nodes")

"""Two nodes of a real SLURM train what two processes on this machine train."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from tqdm import tqdm

from avnb.config import Pretrain
from avnb.data import subsets
from avnb.data.manifest import Manifest
from avnb.profiles import PROFILES
from avnb.progress import MARK
from avnb.training import checkpoint, cost, slurm
from avnb.training.pretraining import (
    Pretrained,
    job_of,
    located,
    pretrain,
    pretrain_all,
    processes_of,
    run_folder,
)
from avnb.training.slurm import Resources, Slurm
from avnb.training.torchrun import LaunchError
from avnb.training.trainer import Trained
from tests.conftest import ROOT, with_values
from tests.slurm import ask, free_ports, installed, two_nodes
from tests.training.test_torchrun import alive, wait_for
from tests.training.test_trainer import same_tensors

# Long enough to be met while it runs.
RUN = Pretrain.from_flat(**{**PROFILES["smoke"]["pretrain"], "epochs": 4})
HELD = Slurm(minutes=30, options={"hold": ""})


@pytest.fixture(scope="module")
def nodes():
    """The folder of a running cluster of two nodes."""
    if not installed():
        pytest.skip("SLURM is not installed (Debian: apt install slurm-wlm munge)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        with two_nodes() as folder:
            yield folder
    assert not alive(folder)  # SLURM_CONF, in the environment of all of them, names it


@pytest.fixture(scope="module")
def manifest(manifests):
    return Manifest.load(manifests / "vggsound")


@pytest.fixture(scope="module")
def local(manifest, tmp_path_factory):
    """The last checkpoint of two processes on this machine, one thread each as on the nodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 2)
        folder = pretrain(RUN, manifest, tmp_path_factory.mktemp("local"), processes=2)
    return checkpoint.load(folder / "last.pt")


LAUNCHER = """
import sys
from pathlib import Path
from avnb.training.pretraining import pretrain
from avnb.data.manifest import Manifest
from tests.training.test_slurm import HELD, RUN
manifest = Manifest.load(Path(sys.argv[1]))
pretrain(RUN, manifest, Path(sys.argv[2]), processes=2, launcher="slurm", nodes=2, slurm=HELD)
"""


def test_interrupted_and_called_again_two_nodes_train_as_two_processes_here(
    nodes, manifest, local, tmp_path, capfd
):
    folder = run_folder(tmp_path, RUN, subsets.training(manifest, RUN)[0])
    said = tmp_path / "said.txt"
    with said.open("w") as file, subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(manifest.where), str(tmp_path)], cwd=ROOT, stderr=file,
    ) as launcher:  # fmt: skip
        wait_for(lambda: "JobHeldUser" in said.read_text() or launcher.poll() is not None, 90)
        launcher.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in said.read_text()
    job = json.loads((folder / "slurm.json").read_text())["job"]
    message = f"job {job} goes on; the same call returns to it, `scancel {job}` ends it"
    assert message in said.read_text()
    assert slurm.state(job) == ("PENDING", "JobHeldUser")
    for other in ({"launcher": "local"}, {"launcher": "slurm", "slurm": HELD, "nodes": 1}):
        with pytest.raises(LaunchError, match=f"job {job} of SLURM is training this run"):
            pretrain(RUN, manifest, tmp_path, processes=2, **other)
    ask("scontrol", "release", job)
    pretrain(RUN, manifest, tmp_path, processes=2, launcher="slurm", nodes=2, slurm=HELD)
    assert Pretrained(run=RUN, folder=folder).finished and not (folder / "slurm.json").exists()
    assert [p.name for p in (folder / "slurm").glob("*_submitted.pkl")] == [f"{job}_submitted.pkl"]
    assert "NodeList=n[1-2]" in ask("scontrol", "show", "job", job)
    seen = capfd.readouterr()
    assert f"job {job} of SLURM" in seen.out and "loss" in seen.err
    assert same_tensors(checkpoint.load(folder / "last.pt"), local)


def test_all_runs_are_submitted_before_the_first_has_ended(nodes, manifest, tmp_path):
    runs = [with_values(RUN, epochs=1, seed=seed) for seed in (0, 1)]
    notes = [located(run, manifest, tmp_path).folder / "slurm.json" for run in runs]
    waited = []

    def release():
        wait_for(lambda: all(note.exists() for note in notes), 60)
        for note in notes:
            job = json.loads(note.read_text())["job"]
            waited.append(slurm.state(job))
            ask("scontrol", "release", job)

    thread = threading.Thread(target=release)
    thread.start()
    done = pretrain_all(runs, manifest, tmp_path, processes=1, launcher="slurm", slurm=HELD)
    thread.join()
    assert waited == [("PENDING", "JobHeldUser")] * 2
    assert all(one.finished for one in done) and not any(note.exists() for note in notes)


def once_an_epoch_is_done(folder, act):
    """Calls `act(job)` in a thread when the job of the run in `folder` has done an epoch."""

    def wait_and_act():
        wait_for((folder / "last.pt").exists, 120)
        act(json.loads((folder / "slurm.json").read_text())["job"])

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def test_preempted_the_job_is_requeued_under_its_id_and_ends_as_if_nothing_had_been(
    nodes, manifest, local, tmp_path
):
    folder = run_folder(tmp_path, RUN, subsets.training(manifest, RUN)[0])

    def preempt(job):
        ask("scancel", "--signal=USR2", job)
        wait_for(lambda: slurm.state(job)[0] == "PENDING", 60)
        preempted.append((job, len(Trained(folder=folder).log)))
        ask("scontrol", "update", f"JobId={job}", "StartTime=now")  # else it waits two minutes

    preempted = []
    thread = once_an_epoch_is_done(folder, preempt)
    slurm = Slurm(minutes=30)
    pretrain(RUN, manifest, tmp_path, processes=2, launcher="slurm", nodes=2, slurm=slurm)
    thread.join()
    ((job, epochs),) = preempted
    assert 0 < epochs < RUN.optim.epochs
    assert "Restarts=1 " in ask("scontrol", "show", "job", job)
    assert same_tensors(checkpoint.load(folder / "last.pt"), local)


def test_a_job_that_is_killed_is_an_error_and_leaves_the_run_free(nodes, manifest, tmp_path):
    long = Pretrain.from_flat(**{**RUN.flat(), "epochs": 100})
    folder = run_folder(tmp_path, long, subsets.training(manifest, long)[0])
    thread = once_an_epoch_is_done(folder, lambda job: ask("scancel", "--signal=KILL", f"{job}.0"))
    with pytest.raises(LaunchError, match=r"(?s)ended as (FAILED|CANCELLED).*(srun|stepd): error"):
        pretrain(long, manifest, tmp_path, processes=1, launcher="slurm")
    thread.join()
    killed = Pretrained(run=long, folder=folder)
    assert killed.log and not killed.finished
    slurm.check(folder, None)  # no job is in the way


def test_a_failing_processs_traceback_is_in_the_exception(nodes, manifest, tmp_path):
    job = job_of(RUN, manifest, processes=2, workers=0)
    job["about"]["data"] = "another digest"
    (tmp_path / "job.json").write_text(json.dumps(job))
    with pytest.raises(LaunchError, match=r"ended as FAILED") as caught:
        slurm.launch([tmp_path], Resources(processes=2, nodes=2), title="job")
    message = str(caught.value)
    assert "Traceback" in message and "train.py" in message and "submitit" not in message[-200:]
    assert message.rstrip().endswith("job.json was written")


def test_what_sbatch_refuses_is_said_in_its_words(nodes, tmp_path):
    cast = Resources(processes=1, slurm=Slurm(partition="nowhere"))
    with pytest.raises(LaunchError, match=r"sbatch refused the job: .*invalid partition"):
        slurm.launch([tmp_path], cast, title="job")


def test_what_a_run_would_cost_there_is_measured_there(nodes, manifest, tmp_path):
    found = cost.measure(RUN, manifest, tmp_path, launcher="slurm", steps=4)
    assert 0 < found.step_seconds < 60 and list(tmp_path.iterdir()) == []


def test_a_job_that_nobody_can_return_to_is_cancelled(nodes, manifest, tmp_path):
    (tmp_path / "job.json").write_text(json.dumps(job_of(RUN, manifest, 1, 0)))
    job = slurm.submit(tmp_path, Resources(processes=1, slurm=HELD))
    assert slurm.state(job) == ("PENDING", "JobHeldUser")
    slurm.cancel(tmp_path)
    assert slurm.state(job)[0] == "CANCELLED" and not (tmp_path / "slurm.json").exists()
    slurm.cancel(tmp_path)  # there is none


# ---- without a cluster --------------------------------------------------------------------------


def test_one_torchrun_a_node_started_by_hand_trains_the_same(manifest, local, tmp_path):
    """Two of them on this machine; `is_host` stands for what they would know by their names."""
    job = job_of(RUN, manifest, processes=2, workers=0)
    (tmp_path / "job.json").write_text(json.dumps(job))
    rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_ports(1)[0]}"]
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
             *rendezvous, f"--rdzv-conf=is_host={host}", "-m", "avnb", "train", str(tmp_path)],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for host in (1, 0)
    ]  # fmt: skip
    try:
        assert [agent.wait(120) for agent in agents] == [0, 0]
    finally:
        for agent in agents:
            agent.kill()
            agent.wait()
    assert same_tensors(checkpoint.load(tmp_path / "last.pt"), local)


def test_without_slurm_it_says_what_to_do(manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"`sbatch`, which is not on.*login node.*'local'"):
        pretrain(RUN, manifest, tmp_path, processes=2, launcher="slurm")


def test_where_nobody_can_ask_for_the_runs_job_it_is_not_trained_over(tmp_path, monkeypatch):
    (tmp_path / "slurm.json").write_text(json.dumps({"job": "7", "values": {}}))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"`squeue` is not here.*delete that file"):
        slurm.check(tmp_path, None)


def test_what_a_job_says_is_shown_even_if_its_bar_moves_on(capsys):
    lines = [MARK + '{"said": "collapse"}', "a line", MARK + '{"done": 3, "total": 9, "note": "x"}']
    with tqdm(total=0) as bar:
        assert slurm.listen(None, iter([lines]), bar, 0) > 0
        assert (bar.n, bar.total) == (3, 9)
    assert "collapse" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "nodes", "gpus", "found"),
    [(0, 2, 4, 8), (0, 2, 0, 2), (0, 1, 3, 2), (4, 2, 2, 4), (8, 1, 8, 8)],
)
def test_processes_are_spread_evenly(asked, nodes, gpus, found):
    slurm = Slurm(gpus_per_node=gpus)
    assert processes_of(asked, 8, "slurm", nodes, slurm) == found


@pytest.mark.parametrize(
    ("asked", "launcher", "nodes", "gpus", "message"),
    [
        (3, "slurm", 2, 2, r"3 processes on 2 nodes with 2 GPUs each.*one of \[2, 4\]"),
        (8, "slurm", 2, 2, r"one of \[2, 4\]"),
        (0, "slurm", 3, 2, "8 shards cannot be shared evenly by 3 nodes"),
        (0, "slurm", 0, 0, "nodes = 0"),
        (0, "local", 2, 0, "this machine only.*On a cluster"),
        (0, "slrum", 1, 0, "did you mean 'slurm'"),
    ],
)
def test_what_cannot_be_spread_is_refused_in_words(asked, launcher, nodes, gpus, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        processes_of(asked, 8, launcher, nodes, Slurm(gpus_per_node=gpus))


def test_values_are_read_from_one_line():
    line = "partition=gpu minutes=90 memory_gb=1.5 setup='module load cuda' --qos=long --exclusive"
    slurm = Slurm.from_text(line)
    assert slurm == Slurm(
        partition="gpu", minutes=90, memory_gb=1.5, setup="module load cuda",
        options={"qos": "long", "exclusive": ""},
    )  # fmt: skip
    asked = Resources(processes=8, nodes=2, workers=3, slurm=slurm).parameters("x")
    assert asked["ntasks_per_node"] == 4 and asked["cpus_per_task"] == 4
    assert asked["mem"] == "1536MB" and asked["time"] == 90 and asked["account"] is None
    assert asked["additional_parameters"] == {"requeue": True, "qos": "long", "exclusive": True}
    with pytest.raises(TypeError, match="did you mean 'partition'"):
        Slurm.from_text("partitoin=gpu")
    with pytest.raises(ValueError, match="minutes"):
        Slurm(minutes=0)


def test_a_growing_file_is_read_from_its_last_lines_on(tmp_path):
    file = tmp_path / "log"
    news = slurm.gained(file)
    assert next(news) == []
    file.write_bytes(b"x" * 10**6 + b"\nlast\nhal")
    assert next(news)[1:] == ["last"]
    with file.open("a") as out:
        out.write("f\nmore\n")
    assert next(news) == ["half", "more"] and next(news) == []


def test_a_turn_too_short_for_one_checkpoint_is_not_repeated(tmp_path):
    task = slurm.Task(tmp_path, minutes=10, gpus_per_node=0)
    task.began, task.first = time.monotonic() - 9 * 60, 0
    with pytest.raises(RuntimeError, match="10 minutes were too short for one checkpoint"):
        task.checkpoint()
    (tmp_path / "last.pt").write_bytes(b"")
    again = task.checkpoint().function
    assert (again.folder, again.minutes) == (tmp_path, 10)

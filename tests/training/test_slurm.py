"""Two nodes of a real SLURM train what two processes on this machine train."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from avnb.config import Pretrain
from avnb.data.manifest import Manifest
from avnb.profiles import PROFILES
from avnb.progress import MARK
from avnb.training import checkpoint, cost, runs, slurm
from avnb.training.launch import JobOutput, LaunchError
from avnb.training.runs import pretraining_run
from avnb.training.launch import Resources, Slurm
from avnb.training.slurm_task import Task
from tests.conftest import ROOT, with_values
from tests.slurm import ask, free_ports, installed, two_nodes
from tests.training.test_torchrun import alive, wait_for
from tests.training.test_trainer import same_tensors

# Long enough to be met while it runs.
RUN = Pretrain.from_flat(**{**PROFILES["smoke"]["pretrain"], "epochs": 4})
HELD = Slurm(minutes=30, options={"hold": ""})
TWO_NODES = Resources(processes=2, launcher="slurm", nodes=2, slurm=HELD)


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
        run = pretraining_run(RUN, manifest, tmp_path_factory.mktemp("local"))
        runs.train([run], Resources(processes=2))
    return checkpoint.load(run.checkpoint)


LAUNCHER = """
import sys
from pathlib import Path
from avnb.data.manifest import Manifest
from avnb.training import runs
from avnb.training.runs import pretraining_run
from tests.training.test_slurm import RUN, TWO_NODES
run = pretraining_run(RUN, Manifest.load(Path(sys.argv[1])), Path(sys.argv[2]))
runs.train([run], TWO_NODES)
"""


@pytest.mark.slow
def test_interrupted_and_called_again_two_nodes_train_as_two_processes_here(
    nodes, manifest, local, tmp_path, capfd
):
    run = pretraining_run(RUN, manifest, tmp_path)
    folder = run.folder
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
    assert not run.finished and not run.is_pending
    for other in (Resources(processes=2), dataclasses.replace(TWO_NODES, nodes=1)):
        with pytest.raises(LaunchError, match=f"job {job} of SLURM is training this run"):
            runs.train([run], other)
    ask("scontrol", "release", job)
    runs.train([run], TWO_NODES)
    assert run.finished and not (folder / "slurm.json").exists()
    assert [p.name for p in (folder / "slurm").glob("*_submitted.pkl")] == [f"{job}_submitted.pkl"]
    assert "NodeList=n[1-2]" in ask("scontrol", "show", "job", job)
    seen = capfd.readouterr()
    assert f"job {job} of SLURM" in seen.out and "loss" in seen.err
    assert same_tensors(checkpoint.load(run.checkpoint), local)


@pytest.mark.slow
def test_all_runs_are_submitted_before_the_first_has_ended(nodes, manifest, tmp_path):
    configs = [with_values(RUN, epochs=1, seed=seed) for seed in (0, 1)]
    both = [pretraining_run(config, manifest, tmp_path) for config in configs]
    notes = [run.folder / "slurm.json" for run in both]
    waited = []

    def release():
        wait_for(lambda: all(note.exists() for note in notes), 60)
        for note in notes:
            job = json.loads(note.read_text())["job"]
            waited.append(slurm.state(job))
            ask("scontrol", "release", job)

    thread = threading.Thread(target=release)
    thread.start()
    runs.train(both, Resources(processes=1, launcher="slurm", slurm=HELD))
    thread.join()
    assert waited == [("PENDING", "JobHeldUser")] * 2
    assert all(run.finished for run in both) and not any(note.exists() for note in notes)


def once_an_epoch_is_done(run, act):
    """Calls `act(job)` in a thread when the job of a run has done an epoch."""

    def wait_and_act():
        wait_for(run.checkpoint.exists, 120)
        act(json.loads((run.folder / "slurm.json").read_text())["job"])

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


@pytest.mark.slow
def test_preempted_the_job_is_requeued_under_its_id_and_ends_as_if_nothing_had_been(
    nodes, manifest, local, tmp_path
):
    run = pretraining_run(RUN, manifest, tmp_path)

    def preempt(job):
        ask("scancel", "--signal=USR2", job)
        wait_for(lambda: slurm.state(job)[0] == "PENDING", 60)
        preempted.append((job, len(run.log)))
        ask("scontrol", "update", f"JobId={job}", "StartTime=now")  # else it waits two minutes

    preempted = []
    thread = once_an_epoch_is_done(run, preempt)
    runs.train([run], dataclasses.replace(TWO_NODES, slurm=Slurm(minutes=30)))
    thread.join()
    ((job, epochs),) = preempted
    assert 0 < epochs < RUN.optim.epochs
    assert "Restarts=1 " in ask("scontrol", "show", "job", job)
    assert same_tensors(checkpoint.load(run.checkpoint), local)


@pytest.mark.slow
def test_a_job_that_is_killed_is_an_error_and_leaves_the_run_free(nodes, manifest, tmp_path):
    run = pretraining_run(with_values(RUN, epochs=100), manifest, tmp_path)
    thread = once_an_epoch_is_done(run, lambda job: ask("scancel", "--signal=KILL", f"{job}.0"))
    with pytest.raises(LaunchError, match=r"(?s)ended as (FAILED|CANCELLED).*(srun|stepd): error"):
        runs.train([run], Resources(processes=1, launcher="slurm"))
    thread.join()
    assert run.log and not run.finished and run.is_pending
    slurm.check(run.folder, Resources())  # no job is in the way


@pytest.mark.slow
def test_a_failing_processs_traceback_is_in_the_exception(nodes, manifest, tmp_path):
    job = pretraining_run(RUN, manifest, tmp_path).job(Resources(processes=2))
    job["metadata"] = dataclasses.replace(job["metadata"], data="another digest")
    runs.write_job(tmp_path, job)
    with pytest.raises(LaunchError, match=r"ended as FAILED") as caught:
        slurm.launch([tmp_path], dataclasses.replace(TWO_NODES, slurm=Slurm()), title="job")
    message = str(caught.value)
    assert (
        "Traceback" in message and "pretraining.py" in message and "submitit" not in message[-200:]
    )
    assert message.rstrip().endswith("job.json was written")


@pytest.mark.slow
def test_what_sbatch_refuses_is_said_in_its_words(nodes, tmp_path):
    nowhere = Resources(processes=1, launcher="slurm", slurm=Slurm(partition="nowhere"))
    with pytest.raises(LaunchError, match=r"sbatch refused the job: .*invalid partition"):
        slurm.launch([tmp_path], nowhere, title="job")


@pytest.mark.slow
def test_what_a_run_would_cost_there_is_measured_there(nodes, manifest, tmp_path):
    run = pretraining_run(RUN, manifest, tmp_path)
    found = cost.measure(run, Resources(launcher="slurm"), steps=4)
    assert 0 < found.step_seconds < 60 and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_job_that_nobody_can_return_to_is_cancelled(nodes, manifest, tmp_path):
    resources = Resources(processes=1, launcher="slurm", slurm=HELD)
    runs.write_job(tmp_path, pretraining_run(RUN, manifest, tmp_path).job(resources))
    job = slurm.submit(tmp_path, resources)
    assert slurm.state(job) == ("PENDING", "JobHeldUser")
    slurm.cancel(tmp_path)
    assert slurm.state(job)[0] == "CANCELLED" and not (tmp_path / "slurm.json").exists()
    slurm.cancel(tmp_path)  # there is none


# ---- without a cluster --------------------------------------------------------------------------


@pytest.mark.slow
def test_one_torchrun_a_node_started_by_hand_trains_the_same(manifest, local, tmp_path):
    """Two of them on this machine; `is_host` stands for what they would know by their names."""
    runs.write_job(tmp_path, pretraining_run(RUN, manifest, tmp_path).job(Resources(processes=2)))
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
        runs.train(
            [pretraining_run(RUN, manifest, tmp_path)], Resources(processes=2, launcher="slurm")
        )


def test_where_nobody_can_ask_for_the_runs_job_it_is_not_trained_over(tmp_path, monkeypatch):
    (tmp_path / "slurm.json").write_text(json.dumps({"job": "7", "values": {}}))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"`squeue` is not here.*delete that file"):
        slurm.check(tmp_path, Resources())


def test_what_a_job_says_is_shown_even_if_its_bar_moves_on(capsys):
    lines = [MARK + '{"said": "collapse"}', "a line", MARK + '{"done": 3, "total": 9, "note": "x"}']
    output = "".join(line + "\n" for line in lines).encode()
    with JobOutput("job") as heard:
        heard.heard = 0
        for at in range(0, len(output), 7):  # a chunk may end anywhere
            heard.feed(output[at : at + 7])
        assert heard.heard > 0 and not heard.stalled(60)
        assert (heard.bar.n, heard.bar.total) == (3, 9)
        assert list(heard.tail) == ["a line"]
    assert "collapse" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "nodes", "gpus", "found"),
    [(0, 2, 4, 8), (0, 2, 0, 2), (0, 1, 3, 2), (4, 2, 2, 4), (8, 1, 8, 8)],
)
def test_processes_are_spread_evenly(asked, nodes, gpus, found):
    slurm = Slurm(gpus_per_node=gpus)
    resources = Resources(processes=asked, launcher="slurm", nodes=nodes, slurm=slurm)
    assert resources.resolved(8) == dataclasses.replace(resources, processes=found)


@pytest.mark.parametrize(
    ("asked", "launcher", "nodes", "gpus", "message"),
    [
        (3, "slurm", 2, 2, r"3 processes on 2 nodes with 4 GPUs.*one of \[2, 4\]"),
        (8, "slurm", 2, 2, r"one of \[2, 4\]"),
        (0, "slurm", 3, 2, "8 shards cannot be shared evenly by 3 nodes"),
        (0, "slurm", 0, 0, "nodes = 0"),
        (0, "local", 2, 0, "this machine only.*On a cluster"),
        (0, "slrum", 1, 0, "did you mean 'slurm'"),
    ],
)
def test_what_cannot_be_spread_is_refused_in_words(asked, launcher, nodes, gpus, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        Resources(
            processes=asked, launcher=launcher, nodes=nodes, slurm=Slurm(gpus_per_node=gpus)
        ).resolved(8)


def test_values_are_read_from_one_line():
    line = "partition=gpu minutes=90 memory_gb=1.5 setup='module load cuda' --qos=long --exclusive"
    values = Slurm.from_text(line)
    assert values == Slurm(
        partition="gpu", minutes=90, memory_gb=1.5, setup="module load cuda",
        options={"qos": "long", "exclusive": ""},
    )  # fmt: skip
    resources = Resources(processes=8, launcher="slurm", nodes=2, workers=3, slurm=values)
    asked = slurm.executor_parameters(resources, "x")
    assert asked["ntasks_per_node"] == 4 and asked["cpus_per_task"] == 4
    own = Resources(processes=8, launcher="slurm", slurm=Slurm(gpus_per_node=8))
    assert slurm.executor_parameters(own, "x")["cpus_per_task"] == 1 + slurm.WORKERS_A_GPU
    own = Resources(processes=8, launcher="slurm")  # on processors, which compute
    assert slurm.executor_parameters(own, "x")["cpus_per_task"] == 1
    assert asked["mem"] == "1536MB" and asked["time"] == 90 and asked["account"] is None
    assert asked["additional_parameters"] == {"requeue": True, "qos": "long", "exclusive": True}
    with pytest.raises(TypeError, match="did you mean 'partition'"):
        Slurm.from_text("partitoin=gpu")
    with pytest.raises(ValueError, match="minutes"):
        Slurm(minutes=0)


def test_a_growing_file_is_read_from_its_last_lines_on(tmp_path):
    file = tmp_path / "log"
    growing = slurm.GrowingFile(file)
    with JobOutput("job") as heard:

        def new_lines():
            heard.tail.clear()
            heard.feed(growing.read())
            return list(heard.tail)

        assert growing.read() == b"" and new_lines() == []
        file.write_bytes(b"x" * 10**6 + b"\nlast\nhal")
        first, *others = new_lines()
        assert others == ["last"] and set(first) == {"x"} and len(first) < 10**5
        with file.open("a") as out:
            out.write("f\nmore\n")
        assert new_lines() == ["half", "more"] and new_lines() == []


def test_a_turn_too_short_for_one_checkpoint_is_not_repeated(tmp_path):
    task = Task(tmp_path, minutes=10, gpus_per_node=0)
    task.began, task.first = time.monotonic() - 9 * 60, 0
    with pytest.raises(RuntimeError, match="10 minutes were too short for one checkpoint"):
        task.checkpoint()
    (tmp_path / "last.pt").write_bytes(b"")
    again = task.checkpoint().function
    assert (again.folder, again.minutes) == (tmp_path, 10)

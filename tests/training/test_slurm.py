"""Two nodes of a real SLURM train what two processes on this machine train."""

import dataclasses
import json
import signal
import subprocess
import sys
import threading

import pytest

from avnb.config import Pretrain
from avnb.data.manifest import Manifest
from avnb.profiles import PROFILES
from avnb.training import checkpoint, runs, slurm
from avnb.training.launch import LaunchError, Resources
from avnb.training.runs import pretraining_run
from tests.conftest import ROOT, with_values
from tests.processes import processes, wait_for
from tests.slurm import ask, installed, two_nodes
from tests.training.test_trainer import same_tensors

# Long enough to be met while it runs.
RUN = Pretrain.from_flat(**{**PROFILES["smoke"]["pretrain"], "epochs": 4})
SHORT = with_values(RUN, epochs=1, seed=1)
NAMES = "export MASTER_ADDR=127.0.0.1"  # those of the nodes do not resolve
FREE = {"nodes": 2, "time": 30, "setup": [NAMES]}
HELD = {"additional_parameters": {"hold": True}}
TWO_NODES = Resources(processes=2, slurm=FREE | HELD)


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
    assert not processes(folder)  # SLURM_CONF, in the environment of all of them, names it


@pytest.fixture(scope="module")
def manifest(manifests):
    return Manifest.load(manifests / "vggsound")


@pytest.fixture(scope="module")
def local(manifest, tmp_path_factory):
    """The last checkpoint of two processes on this machine, one thread each as on the nodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        run = pretraining_run(RUN, manifest, tmp_path_factory.mktemp("local"))
        runs.train([run], Resources(processes=2))
    return checkpoint.load(run.checkpoint)


LAUNCHER = """
import sys
from pathlib import Path
from avnb.data.manifest import Manifest
from avnb.training import runs
from avnb.training.runs import pretraining_run
from tests.training.test_slurm import RUN, SHORT, TWO_NODES
manifest = Manifest.load(Path(sys.argv[1]))
both = [pretraining_run(config, manifest, Path(sys.argv[2])) for config in (RUN, SHORT)]
runs.train(both, TWO_NODES)
"""


@pytest.mark.slow
def test_interrupted_and_called_again_two_nodes_train_as_two_processes_here(
    nodes, manifest, local, tmp_path, capfd
):
    """Two runs, whose jobs are both submitted before the first one has ended."""
    both = [pretraining_run(config, manifest, tmp_path) for config in (RUN, SHORT)]
    said = tmp_path / "said.txt"
    with said.open("w") as file, subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(manifest.where), str(tmp_path)], cwd=ROOT,
        stdout=file, stderr=file,
    ) as launcher:  # fmt: skip
        wait_for(lambda: "JobHeldUser" in said.read_text() or launcher.poll() is not None, 90)
        launcher.send_signal(signal.SIGINT)
    assert "the jobs go on; the same call returns to them" in said.read_text()
    jobs = [json.loads((run.folder / "slurm.json").read_text())["job"] for run in both]
    for run, job in zip(both, jobs, strict=True):
        assert slurm.state(job) == "PENDING JobHeldUser" and not run.finished
        with pytest.raises(LaunchError, match=f"job {job} of SLURM is training this run"):
            runs.train([run], Resources(processes=2))
        ask("scontrol", "release", job)
    runs.train(both, TWO_NODES)
    for run, job in zip(both, jobs, strict=True):
        assert run.finished and not (run.folder / "slurm.json").exists()
        submitted = [p.name for p in (run.folder / "slurm").glob("*_submitted.pkl")]
        assert submitted == [f"{job}_submitted.pkl"]
    assert "NodeList=n[1-2]" in ask("scontrol", "show", "job", jobs[0])
    seen = capfd.readouterr()
    assert f"job {jobs[0]} of SLURM" in seen.out and "5/5" in seen.err
    assert same_tensors(checkpoint.load(both[0].checkpoint), local)


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
        wait_for(lambda: slurm.state(job).startswith("PENDING"), 60)
        preempted.append((job, len(run.log)))
        ask("scontrol", "update", f"JobId={job}", "StartTime=now")  # else it waits two minutes

    preempted = []
    thread = once_an_epoch_is_done(run, preempt)
    runs.train([run], Resources(processes=2, slurm=FREE))
    thread.join()
    ((job, epochs),) = preempted
    assert 0 < epochs < RUN.optim.epochs
    assert "Restarts=1 " in ask("scontrol", "show", "job", job)
    assert same_tensors(checkpoint.load(run.checkpoint), local)


@pytest.mark.slow
def test_a_job_that_is_killed_is_an_error_and_leaves_the_run_free(nodes, manifest, tmp_path):
    run = pretraining_run(with_values(RUN, epochs=100), manifest, tmp_path)
    thread = once_an_epoch_is_done(run, lambda job: ask("scancel", "--signal=KILL", f"{job}.0"))
    with pytest.raises(LaunchError, match=r"(?s)of SLURM failed.*(srun|stepd): error"):
        runs.train([run], Resources(processes=1, slurm={}))
    thread.join()
    assert run.log and not run.finished and slurm.submitted(run.folder) is None


@pytest.mark.slow
def test_a_failing_processs_traceback_is_in_the_exception(nodes, manifest, tmp_path, monkeypatch):
    run = pretraining_run(RUN, manifest, tmp_path)
    changed = dataclasses.replace(run.metadata(), data="another digest")
    monkeypatch.setattr(type(run), "metadata", lambda self: changed)
    with pytest.raises(
        LaunchError, match=r"(?s)Traceback.*runs\.py.* data: it has 'another digest'"
    ):
        runs.train([run], Resources(processes=2, slurm=FREE))


@pytest.mark.slow
def test_what_sbatch_refuses_is_said_in_its_words(nodes, manifest, tmp_path):
    nowhere = Resources(processes=1, slurm={"partition": "nowhere"})
    with pytest.raises(LaunchError, match=r"SLURM did not take the job: .*invalid partition"):
        runs.train([pretraining_run(RUN, manifest, tmp_path)], nowhere)


def test_without_slurm_it_says_what_to_do(manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    run = pretraining_run(RUN, manifest, tmp_path)
    with pytest.raises(LaunchError, match=r"SLURM did not take the job: Could not detect"):
        runs.train([run], Resources(processes=2, slurm={}))
    (run.folder / "slurm.json").write_text(json.dumps({"job": "7", "processes": 2}))
    with pytest.raises(FileNotFoundError, match="squeue"):  # nobody can ask for the run's job
        runs.train([run], Resources(processes=2))


@pytest.mark.parametrize(
    ("asked", "nodes", "gpus", "found"),
    [(0, 2, 4, 8), (0, 2, 0, 2), (0, 1, 3, 2), (4, 2, 2, 4), (8, 1, 8, 8), (0, 2, "gpu:x:4", 8)],
)
def test_processes_are_spread_evenly(asked, nodes, gpus, found):
    name = "gres" if isinstance(gpus, str) else "gpus_per_node"
    resources = Resources(processes=asked, slurm={"nodes": nodes, name: gpus})
    assert resources.resolved(8).processes == found


@pytest.mark.parametrize(
    ("asked", "nodes", "message"),
    [
        (3, 2, r"3 processes on 2 nodes with 4 GPUs.*one of \[2, 4\]"), (8, 2, r"one of \[2, 4\]"),
        (0, 3, "on 3 nodes .* cannot share 8 shards evenly"),
    ],
)  # fmt: skip
def test_what_cannot_be_spread_is_refused_in_words(asked, nodes, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        Resources(processes=asked, slurm={"nodes": nodes, "gpus_per_node": 2}).resolved(8)


def test_settings_are_submitits_and_ours_where_there_are_none(tmp_path):
    given = {"nodes": 2, "time": 90, "setup": ["module load cuda"], "exclusive": True}
    options = {"additional_parameters": {"reservation": "x"}}
    resources = Resources(processes=8, workers=3, slurm={**given, **options})
    asked = slurm.executor_parameters(resources, "x")
    assert (asked["ntasks_per_node"], asked["cpus_per_task"], asked["time"]) == (4, 4, 90)
    assert asked["setup"] == ["export OMP_NUM_THREADS=4", "module load cuda"]
    assert asked["exclusive"] and "--cpus-per-task=4" in asked["srun_args"]
    assert asked["additional_parameters"] == {"requeue": True, "reservation": "x"}
    asked = slurm.executor_parameters(Resources(processes=8, slurm={"gpus_per_node": 8}), "x")
    assert asked["cpus_per_task"] == 1 + slurm.WORKERS_A_GPU and asked["time"] == slurm.MINUTES
    asked = slurm.executor_parameters(Resources(processes=8, slurm={}), "x")
    assert asked["cpus_per_task"] == 1  # on processors, which compute

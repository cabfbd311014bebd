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

from avnb import checkpoint, cluster
from avnb.cluster import Cast, Slurm
from avnb.config import PROFILES, Pretrain
from avnb.launch import LaunchError
from avnb.pretrain import describe, finished, pretrain, processes_of, read_log, run_folder
from avnb.videos import Manifest
from tests import slurm as test_slurm
from tests.conftest import ROOT
from tests.slurm import ask
from tests.test_launch import alive, wait_for
from tests.test_train import same_tensors

# Long enough to be met while it runs; 1 CPU a process, so that two fit a node of any machine.
RUN = Pretrain.from_flat(**{**PROFILES["smoke"]["pretrain"], "epochs": 6})
HELD = Slurm(minutes=30, options={"hold": ""})


@pytest.fixture(scope="module")
def nodes():
    """The folder of a running cluster of two nodes."""
    if not test_slurm.installed():
        pytest.skip("SLURM is not installed (Debian: apt install slurm-wlm munge)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        with test_slurm.cluster() as folder:
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
from avnb.pretrain import pretrain
from avnb.videos import Manifest
from tests.test_cluster import HELD, RUN
manifest = Manifest.load(Path(sys.argv[1]))
pretrain(RUN, manifest, Path(sys.argv[2]), processes=2, launcher="slurm", nodes=2, slurm=HELD)
"""


def test_interrupted_and_called_again_two_nodes_train_as_two_processes_here(
    nodes, manifest, local, tmp_path, capfd
):
    folder = run_folder(tmp_path, RUN, manifest.split("train"))
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(manifest.where), str(tmp_path)], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as launcher:  # fmt: skip
        wait_for((folder / "slurm.json").exists, 60)
        time.sleep(1)
        launcher.send_signal(signal.SIGINT)
        _, err = launcher.communicate(timeout=60)
    job = json.loads((folder / "slurm.json").read_text())["job"]
    assert "KeyboardInterrupt" in err
    assert f"job {job} goes on; the same call returns to it, `scancel {job}` ends it" in err
    assert cluster.state(job) == ("PENDING", "JobHeldUser")
    for other in ({"launcher": "local"}, {"launcher": "slurm", "slurm": HELD, "nodes": 1}):
        with pytest.raises(LaunchError, match=f"job {job} of SLURM is training this run"):
            pretrain(RUN, manifest, tmp_path, processes=2, **other)
    ask("scontrol", "release", job)
    pretrain(RUN, manifest, tmp_path, processes=2, launcher="slurm", nodes=2, slurm=HELD)
    assert finished(folder, RUN) and not (folder / "slurm.json").exists()
    assert [p.name for p in (folder / "slurm").glob("*_submitted.pkl")] == [f"{job}_submitted.pkl"]
    assert "NodeList=n[1-2]" in ask("scontrol", "show", "job", job)
    seen = capfd.readouterr()
    assert f"job {job} of SLURM" in seen.out and "loss" in seen.err
    assert same_tensors(checkpoint.load(folder / "last.pt"), local)

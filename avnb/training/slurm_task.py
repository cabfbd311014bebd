"""One process of a job on a cluster: what submitit pickles, and calls on a node."""

import os
import re
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avnb.profiles import SHARING, cores
from avnb.training import entrypoint
from avnb.training.job_output import LaunchError


@dataclass
class Task:
    """Trains the run in `folder`, together with the other processes of the job."""

    folder: Path
    minutes: int  # time limit of the turn
    gpus_per_node: int

    def __call__(self) -> None:
        """Find the other processes and train."""
        import submitit

        here = submitit.JobEnvironment()
        # What an earlier turn left would be taken for this one's.
        for old in here.paths.result_pickle.parent.glob(f"{here.paths.result_pickle.name}*"):
            old.unlink()
        on_node = here.num_tasks // here.num_nodes
        if self.gpus_per_node and torch.cuda.device_count() < on_node:
            raise RuntimeError(
                f"node {here.hostname} was to give {self.gpus_per_node} GPUs, but PyTorch sees "
                f"{torch.cuda.device_count()}; does `nvidia-smi` work there, in this environment?"
            )
        # Jobs that share a node have different numbers; ports above 32767 are handed out.
        port = 20_000 + int(here.raw_job_id) % 10_000
        os.environ |= {"RANK": str(here.global_rank), "WORLD_SIZE": str(here.num_tasks)}
        os.environ |= {"LOCAL_RANK": str(here.local_rank), "LOCAL_WORLD_SIZE": str(on_node)}
        # Most clusters bind a task to its own CPUs; on others it sees those of all.
        alone = cores() <= int(os.environ.get("SLURM_CPUS_PER_TASK", "0"))
        os.environ[SHARING] = "1" if alone else str(on_node)
        os.environ |= {"MASTER_ADDR": address(here.hostnames[0]), "MASTER_PORT": str(port)}
        self.began, self.first = time.monotonic(), saved_at(self.folder)
        entrypoint.main(self.folder)

    def checkpoint(self) -> Any:
        """What to run next time; submitit asks when the time is up or the job is preempted.

        Raises:
            RuntimeError: when a whole turn was too short for a checkpoint: another would be, too.
        """
        from submitit.helpers import DelayedSubmission

        spent = (time.monotonic() - self.began) / 60
        if spent > 0.8 * self.minutes and saved_at(self.folder) == self.first:
            raise RuntimeError(
                f"{self.minutes} minutes were too short for one checkpoint, from which a job can "
                "resume: raise `minutes`, take more processes, or lower `save_every_steps`"
            )
        return DelayedSubmission(Task(self.folder, self.minutes, self.gpus_per_node))


def saved_at(folder: Path) -> int:
    """When the last checkpoint of the run in `folder` was written; 0 when there is none."""
    last = folder / "last.pt"
    return last.stat().st_mtime_ns if last.exists() else 0


def address(node: str) -> str:
    """Where a node is reached: its name, or what SLURM has for one that does not resolve."""
    try:
        socket.getaddrinfo(node, None)
    except socket.gaierror:
        match = re.search(r"\bNodeAddr=(\S+)", ask("scontrol", "show", "node", node).stdout)
        if not match:
            raise
        return match[1]
    return node


def ask(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One of SLURM's commands and what it printed.

    Raises:
        LaunchError: when this machine does not have it.
    """
    program = shutil.which(name)
    if program is None:
        raise LaunchError(
            f"the launcher 'slurm' needs SLURM's command `{name}`, which is not on this machine's "
            "PATH: start from a login node of the cluster, or take the launcher 'local'"
        )
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)

"""What a job runs on, and jobs of one process or several on this machine.

Whatever ends the launcher (an interrupt, a time-out, a kill), the job's processes end too; if one
of them fails, all stop, and the exception carries its traceback.
"""

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch

from avnb import processes
from avnb.config import Group, unknown_name, within
from avnb.data.loader import AUTO
from avnb.files import json_lines, tqdm
from avnb.models import collapse
from avnb.profiles import SHARING, cores

Launcher = Literal["local", "slurm"]
GRACE_SECONDS = 10.0  # between asking a job to end and ending it
LOOK_EVERY_SECONDS = 0.3
TAIL_BYTES = 2**14


class LaunchError(RuntimeError):
    """A job failed; the message ends with the failing process's traceback or its last lines."""


@dataclass(frozen=True, kw_only=True)
class Slurm(Group):
    """What is asked of SLURM; '' and 0 leave the choice to the cluster unless said otherwise."""

    partition: str = ""
    account: str = ""
    minutes: int = within(1, 10**6, 24 * 60)  # time limit of one turn; then it is requeued
    requeues: int = within(0, 10**6, 100)  # at most
    gpus_per_node: int = within(0, 10**6, 0)  # 0 trains on processors
    cpus_per_process: int = within(0, 10**6, 0)  # 0: one, and one a worker
    memory_gb: float = within(0, 10**6, 0.0)  # of a node
    setup: str = ""  # a line of shell before Python starts: "module load cuda"
    options: Mapping[str, str] = field(default_factory=dict)  # others of sbatch: {"qos": "long"}

    @classmethod
    def from_text(cls, text: str) -> Self:
        """From one line: `partition=gpu gpus_per_node=8 minutes=2880 --qos=long --exclusive`.

        Words that begin with `--` are options of sbatch, as they are.

        Raises:
            TypeError: for an unknown name; it gives the nearest.
            ValueError: for a value that is no number where one is meant, or out of range.
        """
        kinds = {k: v for k, v in typing.get_type_hints(cls).items() if v in (str, int, float)}
        values: dict[str, Any] = {}
        options: dict[str, str] = {}
        for word in shlex.split(text):
            name, _, value = word.partition("=")
            if name.startswith("--"):
                options[name.removeprefix("--")] = value
            elif name in kinds:
                values[name] = kinds[name](value)
            else:
                raise TypeError(unknown_name("SLURM value", name, kinds))
        return cls(**values, options=options)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The processes of a job and where they run.

    Args:
        processes: of the whole job; 0 is one per GPU, or one per core.
        workers: decoding processes of each; 0 decodes in the process itself, AUTO takes as many as
            there are cores to spare.
        launcher: `local`, on this machine, or `slurm`.
        nodes: of the cluster; the processes are spread evenly over them.
        slurm: what is asked of SLURM.
    """

    processes: int = 0
    workers: int = AUTO
    launcher: Launcher = "local"
    nodes: int = 1
    slurm: Slurm = field(default_factory=Slurm)

    def __post_init__(self) -> None:
        if self.launcher not in typing.get_args(Launcher):
            raise ValueError(unknown_name("launcher", self.launcher, typing.get_args(Launcher)))
        if self.nodes < 1 or (self.launcher == "local" and self.nodes > 1):
            raise ValueError(
                f"nodes = {self.nodes}: the launcher 'slurm' takes 1 or more, 'local' has this "
                "machine only (README, 'On a cluster', says how to start torchrun on several by "
                "hand)"
            )

    def resolved(self, shards: int) -> Self:
        """With the number of processes that the launcher will start; they share `shards` evenly.

        Raises:
            ValueError: when the number asked for cannot be used; it says which can.
        """
        local = self.launcher == "local"
        gpus = torch.cuda.device_count() if local else self.nodes * self.slurm.gpus_per_node
        usable = [n for n in range(1, shards + 1) if shards % n == 0 and n % self.nodes == 0]
        if gpus and self.processes:
            usable = [n for n in usable if n <= gpus]
        if not usable or (self.processes and self.processes not in usable):
            raise ValueError(
                f"{self.processes or 'any'} processes on {self.nodes} nodes with {gpus} GPUs "
                f"cannot share {shards} shards evenly: take one of {usable}, 0 (chosen for you), "
                "or set `shards` to a number that the processes divide and that divides `batch`"
            )
        # Without GPUs: as many as this machine has cores, and one per node of a cluster.
        at_most = self.processes or gpus or (cores() if local else self.nodes)
        chosen = max([n for n in usable if n <= at_most] or usable[:1])
        return dataclasses.replace(self, processes=chosen)


# ---- progress -----------------------------------------------------------------------------------


def last_lines(file: Path, count: int) -> list[str]:
    """What a job wrote last; each state of a bar counts as a line."""
    if not file.exists():
        return []
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - TAIL_BYTES))
        lines = opened.read().decode(errors="replace").splitlines()
    return [line for line in lines if line.strip()][-count:]


class Progress:
    """A bar over the epochs of runs that other processes train, read from the runs' logs.

    Args:
        epochs: of each run at most, by its folder.
        title: of the bar.
    """

    def __init__(self, epochs: Mapping[Path, int], title: str):
        self.title = title
        self.done = {folder: len([*json_lines(folder / "log.jsonl")]) for folder in epochs}
        total, done = sum(epochs.values()), sum(self.done.values())
        self.bar = tqdm(desc=title, total=total, initial=done, unit="epoch")

    def update(self, output: Path, state: str = "") -> None:
        """Move the bar; beside it stands the state of the job, or the last line of its output."""
        for folder in self.done:
            rows = [*json_lines(folder / "log.jsonl")][self.done[folder] :]
            for warning in filter(None, map(collapse.collapse_warning, rows)):
                self.bar.write(f"{folder.name}: {warning}")
            self.done[folder] += len(rows)
            self.bar.update(len(rows))
        text = state or "".join(last_lines(output, 1))
        if text != self.bar.postfix:
            self.bar.set_postfix_str(text)

    def close(self) -> None:
        """End the bar."""
        self.bar.set_postfix_str("")
        self.bar.close()


# ---- jobs on this machine -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Job:
    """`python -m MODULE ...` in one process, or in several by torchrun.

    Args:
        command: module and arguments.
        folder: gets the whole output, in `output.txt`.
        processes: of the job.
    """

    command: Sequence[str]
    folder: Path
    processes: int = 1

    @property
    def output(self) -> Path:
        """What the job's processes print."""
        return self.folder / "output.txt"

    @property
    def errors(self) -> Path:
        """The error of the process that failed first, as torch's `record` writes it."""
        return self.folder / "error.json"

    def explain(self, title: str, status: int) -> str:
        """Why the job failed: the failing process's traceback, else the last lines it wrote."""
        reason = "\n".join(last_lines(self.output, 40))
        if self.errors.exists():
            message = json.loads(self.errors.read_text()).get("message", {})
            found = message if isinstance(message, dict) else {"message": message}
            reason = found.get("extraInfo", {}).get("py_callstack") or found["message"]
        end = f"failed (status {status})"
        if status < 0:
            end = f"was ended by {signal.Signals(-status).name}"
        return f"{title} {end}; the whole output is in {self.output}\n\n{reason.strip()}"


@contextlib.contextmanager
def started(job: Job, sharing: int) -> Iterator[subprocess.Popen[bytes]]:
    """The job's process; whatever happens inside the block, it and its group are gone afterwards.

    `sharing` is the number of processes that share this machine's cores.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    job.errors.unlink(missing_ok=True)
    # Threads that the caller has set stay: several jobs may share the machine.
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // sharing))}
    settings = {"TORCHELASTIC_ERROR_FILE": str(job.errors), SHARING: str(sharing)}
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.processes}"]
    command = [*(torchrun if job.processes > 1 else ()), "-m", *job.command]
    guard = [sys.executable, processes.__file__, str(os.getpid())]  # it dies with this process
    with job.output.open("ab") as output:
        process = subprocess.Popen(
            [*guard, sys.executable, "-u", *command],
            env={**threads, **os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # torchrun passes it on to its workers
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def launch(jobs: Sequence[Job], title: str, watch: Callable[[], None] = lambda: None) -> None:
    """Run jobs side by side and wait for their ends; `watch` is called meanwhile.

    Raises:
        LaunchError: when a process fails; then none is left.
    """
    sharing = sum(job.processes for job in jobs)
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(started(job, sharing)) for job in jobs]
        while None in (status := [process.poll() for process in running]) and not any(status):
            watch()
            time.sleep(LOOK_EVERY_SECONDS)
    watch()
    for job, code in zip(jobs, status, strict=True):
        if code:
            raise LaunchError(job.explain(title, code))

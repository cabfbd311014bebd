"""What a job runs on, and jobs of one process or several on this machine.

Whatever ends the launcher (an interrupt, a time-out, a kill), the job's processes end too; if one
of them fails, all stop, and the exception carries its traceback.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

from avnb import processes as guard
from avnb.data.loader import AUTO
from avnb.files import json_lines, tqdm
from avnb.profiles import SHARING, cores

GRACE_SECONDS = 10.0  # between asking a job to end and ending it
TAIL_BYTES = 2**14
# glibc keeps freed memory: steps on the CPU would ask the system for the same memory again.
KEEP_MEMORY = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**32))


class LaunchError(RuntimeError):
    """A job failed; the message ends with the failing process's traceback or its last lines."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The processes of a job and where they run.

    `processes` are those of the whole job; 0 is one per GPU, or one per core. Each has `workers`
    that decode: 0 decodes in the process itself, AUTO takes as many as there are cores to spare.
    `slurm` has settings of submitit's SlurmExecutor for jobs on a cluster, whose nodes the
    processes are spread over evenly: {"partition": "gpu", "nodes": 2, "gpus_per_node": 8}.
    """

    processes: int = 0
    workers: int = AUTO
    slurm: Mapping[str, Any] | None = None

    @property
    def gpus_per_node(self) -> int:
        """GPUs of each node that `slurm` asks for, by that name or in `gres`."""
        asked = {**(self.slurm or {}).get("additional_parameters", {}), **(self.slurm or {})}
        counts = re.findall(r"gpu(?::[^:,]+)?:(\d+)", asked.get("gres", ""))
        return asked.get("gpus_per_node") or sum(map(int, counts))

    def resolved(self, shards: int) -> Self:
        """With the number of processes that will be started; they share `shards` evenly.

        Raises:
            ValueError: when the number asked for cannot be used; it says which can.
        """
        # Without GPUs: as many as this machine has cores, and one per node of a cluster.
        nodes, gpus, most = 1, torch.cuda.device_count(), cores()
        if self.slurm is not None:
            most = nodes = self.slurm.get("nodes", 1)
            gpus = nodes * self.gpus_per_node
        usable = [n for n in range(nodes, (gpus or shards) + 1, nodes) if shards % n == 0]
        if not usable or (self.processes and self.processes not in usable):
            raise ValueError(
                f"{self.processes or 'any'} processes on {nodes} nodes with {gpus} GPUs cannot "
                f"share {shards} shards evenly: take one of {usable}, 0 (chosen for you), or set "
                "`shards` to a number that the processes divide and that divides `batch`"
            )
        fitting = [n for n in usable if n <= (gpus or most)] or usable[:1]
        return replace(self, processes=self.processes or fitting[-1])


def last_lines(file: Path, count: int) -> str:
    """What a job wrote last; each state of a bar counts as a line."""
    if not file.exists():
        return ""
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - TAIL_BYTES))
        lines = opened.read().decode(errors="replace").splitlines()
    return "\n".join([line for line in lines if line.strip()][-count:])


def show(bar: tqdm, folders: Iterable[Path], output: Path, state: str = "") -> None:
    """Move a bar to the number of epochs in the logs of runs that other processes train.

    Beside it stands the state of the job, or else the last line of its output.
    """
    bar.update(sum(len([*json_lines(folder / "log.jsonl")]) for folder in folders) - int(bar.n))
    if (text := state or last_lines(output, 1)) != bar.postfix:
        bar.set_postfix_str(text)


@contextlib.contextmanager
def started(
    folder: Path, command: Sequence[str], processes: int, sharing: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A job's process; whatever happens inside the block, it and its group are gone afterwards.

    `sharing` is the number of processes that share this machine's cores.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (error := folder / "error.json").unlink(missing_ok=True)
    # What the caller has set stays: several jobs may share the machine.
    usual = {"OMP_NUM_THREADS": str(max(1, cores() // sharing)), **KEEP_MEMORY}
    settings = {"TORCHELASTIC_ERROR_FILE": str(error), SHARING: str(sharing)}
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    python = [sys.executable, "-u", *(torchrun if processes > 1 else ()), "-m", *command]
    with (folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, guard.__file__, str(os.getpid()), *python],  # dies with this process
            env={**usual, **os.environ, **settings},
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


def launch(
    commands: Mapping[Path, Sequence[str]],
    processes: int,
    title: str,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Run jobs side by side and wait for their ends; `watch` is called meanwhile.

    `commands` are of `python -m`, each run by so many `processes`, by the folder that gets the
    output, in `output.txt`. LaunchError when a process fails; then none is left.
    """
    with contextlib.ExitStack() as stack:
        options = processes, processes * len(commands)
        jobs = {f: stack.enter_context(started(f, c, *options)) for f, c in commands.items()}
        while None in (codes := [job.poll() for job in jobs.values()]) and not any(codes):
            watch()
            time.sleep(0.3)
    watch()
    for folder, code in zip(jobs, codes, strict=True):
        if code:
            output = folder / "output.txt"
            reason = last_lines(output, 40)
            with contextlib.suppress(FileNotFoundError, KeyError, TypeError):  # as after a kill
                error = json.loads((folder / "error.json").read_text())
                reason = error["message"]["extraInfo"]["py_callstack"]
            found = f"{title} failed (status {code}); the whole output is in {output}"
            raise LaunchError(f"{found}\n\n{reason}")

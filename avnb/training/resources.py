"""What a job runs on: processes of this machine, or of a cluster."""

import dataclasses
import re
import shlex
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch

from avnb.config import Group, unknown_name, within
from avnb.data.loader import AUTO
from avnb.profiles import cores

Launcher = Literal["local", "slurm"]
OURS = "is set by the launcher, which finds the job's output and its processes by it"
RUNS, WRITES = "changes what is run", "changes where the job writes or reads"
REFUSED = {  # options of sbatch, with the reason
    **dict.fromkeys(("wrap", "array", "test-only", "bcast", "prolog", "epilog"), RUNS),
    **dict.fromkeys(("task-prolog", "task-epilog", "container", "uid", "gid"), RUNS),
    **dict.fromkeys(("export", "export-file", "get-user-env", "propagate"), RUNS),
    **dict.fromkeys(("chdir", "output", "error", "input", "open-mode"), WRITES),
    **dict.fromkeys(("job-name", "nodes", "ntasks", "ntasks-per-node", "requeue"), OURS),
    **dict.fromkeys(("no-requeue", "signal", "time", "wait", "parsable", "quiet"), OURS),
}


@dataclass(frozen=True, kw_only=True)
class Slurm(Group):
    """What is asked of SLURM; '' and 0 leave the choice to the cluster unless said otherwise."""

    partition: str = ""
    account: str = ""
    minutes: int = within(1, 10**6, 24 * 60)  # time limit of one turn; then it is requeued
    requeues: int = within(0, 10**6, 100)  # at most
    gpus_per_node: int = within(0, 10**6, 0)  # 0 trains on processors
    cpus_per_process: int = within(0, 10**6, 0)  # 0: one, and one a worker; see README
    memory_gb: float = within(0, 10**6, 0.0)  # of a node
    setup: str = ""  # a line of shell before Python starts: "module load cuda"
    options: Mapping[str, str] = field(default_factory=dict)  # others of sbatch: {"qos": "long"}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.options:
            if not re.fullmatch(r"[a-z][a-z0-9-]+", name):
                raise ValueError(f"--{name} is no option of sbatch: write it whole, as --qos=long")
            # sbatch takes the beginning of an option for the whole.
            if whole := next((refused for refused in REFUSED if refused.startswith(name)), ""):
                raise ValueError(f"--{name} is not passed on to sbatch: it {REFUSED[whole]}")

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
        stall_seconds: a job is given up when nothing is heard of it for so long.
    """

    processes: int = 0
    workers: int = AUTO
    launcher: Launcher = "local"
    nodes: int = 1
    slurm: Slurm = field(default_factory=Slurm)
    stall_seconds: float = 900.0

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
        if not usable:
            raise ValueError(
                f"{shards} shards cannot be shared evenly by {self.nodes} nodes: set `shards` to a "
                "multiple of the nodes"
            )
        fitting = [n for n in usable if n <= gpus] if gpus else usable
        if self.processes == 0:
            # Without GPUs: as many as this machine has cores, and one per node of a cluster.
            at_most = gpus or (cores() if local else self.nodes)
            chosen = max([n for n in usable if n <= at_most] or usable[:1])
            if chosen < gpus:
                print(f"{chosen} of {gpus} GPUs are used: {shards} shards are divided evenly")
            return dataclasses.replace(self, processes=chosen)
        if self.processes not in fitting:
            where = f" on {self.nodes} nodes" if not local else ""
            raise ValueError(
                f"{self.processes} processes{where} with {gpus} GPUs cannot share {shards} shards "
                f"evenly: take one of {fitting}, 0 (chosen for you), or set `shards` to a number "
                "that the processes divide and that divides `batch`"
            )
        return self

    @property
    def values(self) -> dict[str, Any]:
        """All values as plain data, as a submitted job remembers them."""
        return dataclasses.asdict(self)

"""Runs of training: where each is, whether it is finished, one call that trains what is left."""

import contextlib
import itertools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from avnb.data.manifest import Manifest
from avnb.files import locked, write_text
from avnb.models.methods.base import Log
from avnb.profiles import STORED_ONLY, cores
from avnb.training import slurm, torchrun
from avnb.training.checkpoint import Metadata
from avnb.training.resources import Resources


@dataclass(frozen=True, kw_only=True)
class TrainingRun(ABC):
    """A run of training: its values, its data, and the folder it is in or will be.

    The folder holds `job.json` (what its processes read), `last.pt`, `log.jsonl`, `output.txt`.
    """

    config: Any
    manifest: Manifest  # of all videos
    folder: Path
    method: str  # as result rows name it

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.folder / "last.pt"

    @property
    def name(self) -> str:
        """The run's id, as result rows have it."""
        return self.folder.name

    @property
    def work(self) -> float:
        """How long it takes, as far as its values say; in no unit."""
        return float(self.config.optim.epochs * self.config.clips_per_video)

    @property
    def log(self) -> Log:
        """A row per epoch: means of all terms, statistics of embeddings, validation."""
        lines = (self.folder / "log.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def has_begun(self) -> bool:
        """Whether a checkpoint and a log have been written."""
        return self.checkpoint.exists() and (self.folder / "log.jsonl").exists()

    @property
    def finished(self) -> bool:
        """Whether training is complete."""
        return self.has_begun and self.is_finished(self.log)

    @property
    def is_pending(self) -> bool:
        """Whether it is neither finished nor a job on a cluster."""
        return not self.finished and not (self.folder / "slurm.json").exists()

    @abstractmethod
    def is_finished(self, log: Log) -> bool:
        """Whether training with this log is complete."""

    @abstractmethod
    def job(self, resources: Resources) -> dict[str, Any]:
        """What its processes read; ValueError when the data or the processes do not fit."""

    def write_job(self, resources: Resources) -> Metadata:
        """Write the job file; what it says the run is."""
        slurm.check(self.folder, resources)  # asked now: another's job would read that file
        job = self.job(resources)
        write_job(self.folder, job)
        return job["metadata"]

    def prepare(self, resources: Resources) -> bool:
        """Write the job file; whether there is anything to train."""
        self.write_job(resources)
        return True


def write_job(folder: Path, job: dict[str, Any]) -> None:
    """Write `job.json`."""
    text = json.dumps({**job, "metadata": asdict(job["metadata"])}, indent=1)
    write_text(folder / "job.json", text)


def read_metadata(job: dict[str, Any]) -> Metadata:
    """The metadata in a job as its processes read it."""
    return Metadata(**job["metadata"])


def check_unchanged(file: Any, found: Any, told: Any, folder: Path) -> None:
    """Raise ValueError unless what is found in `file` is what the job in `folder` was told."""
    if found != told:
        raise ValueError(f"{file} has changed since {folder / 'job.json'} was written")


def check_micro_batch(config: Any, processes: int) -> None:
    """Raise ValueError unless a process's share of the batch can be taken in parts as asked."""
    share, micro = config.optim.batch // processes, config.compute.micro_batch
    if micro and share % micro:
        raise ValueError(
            f"{share} clips per process cannot be taken {micro} at a time: `micro_batch` must "
            f"divide {share}"
        )


def train(runs: Sequence[TrainingRun], resources: Resources | None = None, title: str = "") -> None:
    """Train what is not finished; the runs then are.

    What was interrupted resumes from its last checkpoint. On this machine all are trained by one
    job, one after the other, or side by side where each takes one process; a cluster gets a job
    each. Where BatchNorm takes its statistics in each process, the number of processes matters a
    little; it is in the run's job file.

    Args:
        runs: different ones.
        resources: processes, workers, launcher; by default those of this machine.
        title: of the progress bar.

    Raises:
        LaunchError: when a job fails; the message holds the failing process's traceback.
        ValueError: when the videos or the number of processes do not fit a run.
    """
    if not runs:
        return
    missing = [run.name for run in runs if not run.finished]
    if missing and STORED_ONLY.get():
        raise ValueError(
            f"{missing[0]} has not been trained to its end, and only stored runs may be used here: "
            "make the book, or run its chapter, first"
        )
    resources = resources or Resources()
    resources = resources.resolved(math.gcd(*(run.config.optim.shards for run in runs)))
    title = title or "training " + ", ".join(run.method for run in runs)
    with contextlib.ExitStack() as locks:
        # In one order, or two callers could wait in a circle.
        for folder in sorted(run.folder for run in runs if not run.finished):
            locks.enter_context(locked(folder))
        left = [run for run in runs if not run.finished and run.prepare(resources)]
        shares: list[int] = []
        if resources.processes == 1 and not torch.cuda.is_available():
            groups = divided(left, cores())
            left, shares = list(itertools.chain(*groups)), list(map(len, groups))
        launch([run.folder for run in left], resources, title, shares)


def divided(runs: Sequence[TrainingRun], processes: int) -> list[list[TrainingRun]]:
    """The runs in as many groups of about the same work, at most one per run: longest first."""
    groups: list[list[TrainingRun]] = [[] for _ in range(min(processes, len(runs)))]
    for run in sorted(runs, key=lambda run: -run.work):
        min(groups, key=lambda group: sum(other.work for other in group)).append(run)
    return groups


def launch(
    folders: Sequence[Path], resources: Resources, title: str, shares: Sequence[int] = ()
) -> None:
    """Have the jobs in the folders done; on this machine the first one gets the output of all.

    With `shares`, each process does so many of them by itself.
    """
    if resources.launcher == "slurm":
        slurm.launch(folders, resources, title=title)
    elif folders:
        apart = ["--shares", ",".join(map(str, shares))] if len(shares) > 1 else []
        torchrun.launch(
            ["train", *map(str, folders), *apart],
            processes=max(resources.processes, len(shares)),
            folder=folders[0],
            title=title,
            stall_seconds=resources.stall_seconds,
        )


# SHIM of the redesign: until this module holds them itself, names come from where they stand now.
_SHIM = ["avnb.training.pretraining", "avnb.training.finetuning", "avnb.training.entrypoint"]


def __getattr__(name: str) -> object:
    import importlib

    for module in _SHIM:
        found = importlib.import_module(module)
        if hasattr(found, name):
            return getattr(found, name)
    raise AttributeError(name)

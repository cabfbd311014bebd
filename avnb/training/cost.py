"""What a run would cost on this hardware: some of its steps, measured."""

import dataclasses
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from avnb.data.batch_plan import steps_per_epoch
from avnb.training import runs, slurm
from avnb.training.pretraining import PretrainingRun
from avnb.training.resources import Resources


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run takes, from a few steps of it."""

    step_seconds: float
    steps: int  # of the whole run, at most
    clips: int  # per step
    checkpoint_bytes: int
    free_bytes: int  # on the disk of the runs
    processes: int

    @property
    def hours(self) -> float:
        """Hours of the whole run."""
        return self.step_seconds * self.steps / 3600

    @property
    def clips_per_second(self) -> float:
        """Clips per second over all processes."""
        return self.clips / self.step_seconds

    @property
    def disk_bytes(self) -> int:
        """A checkpoint, and the next one written beside it."""
        return 2 * self.checkpoint_bytes

    def __str__(self) -> str:
        return (
            f"{self.steps} steps of {self.clips} clips at {self.clips_per_second:.1f} clips/s on "
            f"{self.processes} processes: {self.hours:.1f} h; {self.disk_bytes / 1e6:.0f} MB on a "
            f"disk with {self.free_bytes / 1e9:.1f} GB free"
        )


def measure(run: PretrainingRun, resources: Resources | None = None, *, steps: int = 20) -> Cost:
    """Train for some steps in a temporary folder, as `runs.train` would, and measure.

    The first quarter of the steps is not counted: files are opened, kernels chosen.

    Raises:
        LaunchError, ValueError: as `runs.train`.
    """
    resources, all_runs = resources or Resources(), run.folder.parent
    short = dataclasses.replace(resources.slurm, minutes=min(resources.slurm.minutes, 30))
    resources = dataclasses.replace(resources, slurm=short)  # it waits less in the queue
    resources = resources.resolved(run.config.optim.shards)
    all_runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cost-", dir=all_runs) as name:
        folder, job = Path(name), run.job(resources)
        videos = job["metadata"].videos
        whole = steps_per_epoch(videos, run.config) * run.config.optim.epochs
        runs.write_job(folder, {**job, "steps": min(steps, whole)})
        try:
            runs.launch([folder], resources, f"measuring {run.method}")
        finally:
            slurm.cancel(folder)  # nobody can return to a temporary folder
        seconds = json.loads((folder / "speed.json").read_text())["step_seconds"]
        size = (folder / "last.pt").stat().st_size
    return Cost(
        step_seconds=seconds,
        steps=whole,
        clips=run.config.optim.batch,
        checkpoint_bytes=size,
        free_bytes=shutil.disk_usage(all_runs).free,
        processes=resources.processes,
    )

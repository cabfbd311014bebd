"""What a run would cost on this hardware: some of its steps, measured."""

import dataclasses
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from avnb.config import Pretrain
from avnb.data.batch_plan import steps_per_epoch
from avnb.data.manifest import Manifest
from avnb.files import write_aside
from avnb.training.pretraining import Launcher, carry_out, job_of, processes_of
from avnb.training.slurm import Resources, Slurm, cancel


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run takes on this machine, from a few steps of it."""

    step_seconds: float
    steps: int  # of the whole run, at most
    clips: int  # a step
    checkpoint_bytes: int
    free_bytes: int  # on the disk of the runs
    processes: int

    @property
    def hours(self) -> float:
        """Of the whole run."""
        return self.step_seconds * self.steps / 3600

    @property
    def clips_per_second(self) -> float:
        """Over all processes."""
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


def measure(
    run: Pretrain,
    manifest: Manifest,
    runs: Path,
    *,
    processes: int = 0,
    workers: int = 0,
    launcher: Launcher = "local",
    nodes: int = 1,
    slurm: Slurm | None = None,
    steps: int = 20,
) -> Cost:
    """Train for some steps in a folder that is thrown away, as `pretrain` would, and measure.

    The first quarter of the steps is not counted: files are opened, kernels chosen.

    Raises:
        LaunchError, ValueError: as `pretrain`.
    """
    slurm = slurm or Slurm()
    slurm = dataclasses.replace(slurm, minutes=min(slurm.minutes, 30))  # waits less in the queue
    processes = processes_of(processes, run.optim.shards, launcher, nodes, slurm)
    cast = Resources(processes=processes, nodes=nodes, workers=workers, slurm=slurm)
    runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cost-", dir=runs) as name:
        folder = Path(name)
        job = job_of(run, manifest, processes, workers)
        whole = steps_per_epoch(job["about"]["videos"], run) * run.optim.epochs
        write_aside(folder / "job.json", json.dumps({**job, "steps": min(steps, whole)}))
        try:
            carry_out([folder], cast, launcher, f"measuring {run.method}")
        finally:
            cancel(folder)  # who is interrupted cannot return to what is thrown away
        seconds = json.loads((folder / "pace.json").read_text())["step_seconds"]
        size = (folder / "last.pt").stat().st_size
    return Cost(
        step_seconds=seconds,
        steps=whole,
        clips=run.optim.batch,
        checkpoint_bytes=size,
        processes=processes,
        free_bytes=shutil.disk_usage(runs).free,
    )

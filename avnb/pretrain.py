"""Pre-training as one call: statistics, job file, launch, checkpoint. Safe to repeat."""

import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from avnb import checkpoint, health, subsets
from avnb.batches import Arrivals, Sampling, VideoClips, steps_per_epoch, worth_starting
from avnb.config import Pretrain, digest
from avnb.files import locked, write_aside
from avnb.launch import launch
from avnb.methods import METHODS, build
from avnb.train import Row, ended
from avnb.videos import Manifest
from avnb.views import SoundView
from avnb.workspace import Workspace, cores

Bands = tuple[list[float], list[float]]


def run_folder(runs: Path, run: Pretrain, manifest: Manifest) -> Path:
    """The folder of a run; its name holds a hash of all values, of the data and of FORMAT."""
    made_of = {"run": run.flat(), "data": manifest.digest, "format": checkpoint.FORMAT}
    return runs / f"{run.method}-{digest(made_of)}"


def bands(manifest: Manifest, run: Pretrain, *, workers: int) -> Bands:
    """Mean and standard deviation of each mel band over the videos that have sound.

    From one clip a video, not augmented; kept beside the manifest.

    Raises:
        ValueError: when no video has sound.
    """
    heard = manifest.with_sound()
    if not heard.videos:
        raise ValueError(f"no video of {manifest.name} in {manifest.folder} has an audio stream")
    key = {"data": heard.digest, "clip": run.clip, "form": run.spectrogram, "seed": run.seed}
    file = manifest.where / f"bands-{digest(key)}.json"
    if file.exists():
        found = json.loads(file.read_text())
        return found["mean"], found["std"]
    mels = run.spectrogram.mels
    view = SoundView(run.clip, run.spectrogram, ([0.0] * mels, [1.0] * mels))
    sampling = Sampling(clip=run.clip, count=1, place="random", augment=run.augment)
    clips = Arrivals(
        VideoClips(heard, sampling, seed=run.seed), [(0, i, (0,)) for i in range(len(heard))],
        workers=worth_starting(workers, len(heard)),
    )  # fmt: skip
    count, total, squares = 0, torch.zeros(mels).double(), torch.zeros(mels).double()
    for batch in tqdm(clips, total=len(heard), desc="mel band statistics", unit="video"):
        x = view.log_mel(batch.sound).double()[0]  # [M, t]
        count, total, squares = count + x.shape[1], total + x.sum(1), squares + (x**2).sum(1)
    mean = total / count
    std = (squares / count - mean**2).clamp_min(0).sqrt().clamp_min(1e-3)  # empty bands stay 0
    write_aside(file, json.dumps({"mean": mean.tolist(), "std": std.tolist()}))
    return mean.tolist(), std.tolist()


def describe(run: Pretrain, manifest: Manifest, statistics: Bands) -> dict[str, Any]:
    """What a checkpoint says about itself."""
    return {
        "run": run.flat(), "data": manifest.digest, "data_set": manifest.name,
        "videos": len(manifest), "without_sound": len(manifest) - len(manifest.with_sound()),
        "classes": list(manifest.classes), "bands": [list(s) for s in statistics],
    }  # fmt: skip


def finished(folder: Path, run: Pretrain) -> bool:
    """Whether the run in `folder` has come to its end."""
    made = (folder / "last.pt").exists() and (folder / "log.jsonl").exists()
    return made and ended(run, read_log(folder))


def read_log(folder: Path) -> list[Row]:
    """One dictionary an epoch: means of all terms, health, validation."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@dataclass(frozen=True)
class Pretrained:
    """A finished run."""

    run: Pretrain
    folder: Path

    @property
    def checkpoint(self) -> Path:
        """Its last checkpoint."""
        return self.folder / "last.pt"

    @property
    def name(self) -> str:
        """Its id, as result rows have it."""
        return self.folder.name

    @property
    def log(self) -> list[Row]:
        """One dictionary an epoch."""
        return read_log(self.folder)

    @property
    def complaints(self) -> list[str]:
        """What its log says of collapsed embeddings."""
        return [said for row in self.log if (said := health.complaint(row))]


def pretrained(
    work: Workspace, methods: Iterable[str], *, data: str = "", seed: int = 0, processes: int = 0
) -> dict[str, Pretrained]:
    """Runs of several methods with a workspace's values; those not done yet are done now.

    `data` is the folder of VGGSound, '' for synthetic videos.
    """
    manifest, found = work.manifest("vggsound", data), {}
    for method in methods:
        run = work.pretraining(method=method, seed=seed)
        found[method] = Pretrained(run, pretrain(run, manifest, work.runs, processes=processes))
    return found


def resolved(processes: int, shards: int) -> int:
    """The number of processes: as asked, or for 0 one a GPU, else one a core, dividing `shards`.

    Raises:
        ValueError: when the number asked for cannot be used; it says which can.
    """
    gpus, allowed = torch.cuda.device_count(), [n for n in range(1, shards + 1) if shards % n == 0]
    if processes == 0:
        return max(n for n in allowed if n <= (gpus or cores()))
    if processes not in allowed:
        raise ValueError(
            f"{processes} processes cannot share {shards} shards evenly: take one of {allowed}, "
            "0 (chosen for you), or set `shards` to a multiple of the processes"
        )
    if gpus and processes > gpus:
        raise ValueError(f"{processes} processes, but {gpus} GPUs: take at most {gpus}, or 0")
    return processes


def check_parts(run: Pretrain, processes: int) -> None:
    """Raise ValueError unless a process's share of a batch can be taken in parts as asked."""
    share, micro = run.optim.batch // processes, run.compute.micro_batch
    if not micro or micro == share:
        return
    if not METHODS[run.method].divisible:
        raise ValueError(
            f"{run.method} takes variances and covariances of the whole batch at once: its "
            f"{share} clips a process cannot be taken {micro} at a time. Leave `micro_batch` 0, "
            "and use more processes, precision='bf16' or a smaller `batch`"
        )
    if share % micro:
        raise ValueError(
            f"{share} clips a process cannot be taken {micro} at a time: "
            f"`micro_batch` must divide {share}"
        )


def job_of(run: Pretrain, manifest: Manifest, processes: int, workers: int) -> dict[str, Any]:
    """What the processes of a run read: values, statistics, files of ids."""
    train, _ = subsets.training(manifest, run)
    check_parts(run, processes)
    steps_per_epoch(len(train), run)
    train_ids, validation_ids = map(str, subsets.files(manifest, run.subset))
    return {
        "about": describe(run, train, bands(train, run, workers=max(1, workers))),
        "manifest": str(manifest.where), "train_ids": train_ids, "validation_ids": validation_ids,
        "workers": workers, "processes": processes,
    }  # fmt: skip


def pretrain(
    run: Pretrain, manifest: Manifest, runs: Path, *, processes: int = 0, workers: int = 0,
    stall_seconds: float = 900.0,
) -> Path:  # fmt: skip
    """Pre-train on the training split and return the run's folder, which holds `last.pt`.

    Done already, nothing happens; interrupted, it goes on after the last checkpoint. Where
    BatchNorm takes its statistics in each process, the number of processes matters a little; it
    stands in the run's job file.

    Args:
        manifest: as its folder has it on disk: the processes read it there.
        runs: the folder of runs.
        processes: of the job; 0 is one a GPU, or one a core.
        workers: decoding processes for each of them; 0 decodes in the process itself.

    Raises:
        LaunchError: when the job fails; the message holds the worker's traceback.
        ValueError: when the videos or the number of processes do not fit the run.
    """
    train, _ = subsets.training(manifest, run)
    folder, processes = run_folder(runs, run, train), resolved(processes, run.optim.shards)
    if finished(folder, run):
        return folder
    with locked(folder):
        if finished(folder, run):  # by whoever held the lock
            return folder
        job = job_of(run, manifest, processes, workers)
        write_aside(folder / "job.json", json.dumps(job, indent=1))
        if run.method == "random":
            untrained = build(run, len(train), len(train.classes))
            checkpoint.save(folder / "last.pt", job["about"], untrained, log=[])
            write_aside(folder / "log.jsonl", "")
        else:
            launch(
                ["train", str(folder)], processes=processes, folder=folder,
                title=f"pre-training {run.method}", stall_seconds=stall_seconds,
            )  # fmt: skip
    return folder


# ---- what it would cost -----------------------------------------------------------------------


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


def cost(
    run: Pretrain, manifest: Manifest, runs: Path, *, processes: int = 0, workers: int = 0,
    steps: int = 20,
) -> Cost:  # fmt: skip
    """Train for some steps in a folder that is thrown away, and measure.

    The first quarter of the steps is not counted: files are opened, kernels chosen.
    """
    processes = resolved(processes, run.optim.shards)
    runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cost-", dir=runs) as name:
        folder = Path(name)
        job = job_of(run, manifest, processes, workers)
        write_aside(folder / "job.json", json.dumps({**job, "steps": steps}))
        launch(
            ["train", str(folder)], processes=processes, folder=folder,
            title=f"measuring {run.method}",
        )  # fmt: skip
        seconds = json.loads((folder / "pace.json").read_text())["step_seconds"]
        size = (folder / "last.pt").stat().st_size
    videos = job["about"]["videos"]
    return Cost(
        step_seconds=seconds, steps=steps_per_epoch(videos, run) * run.optim.epochs,
        clips=run.optim.batch, checkpoint_bytes=size, processes=processes,
        free_bytes=shutil.disk_usage(runs).free,
    )  # fmt: skip

"""Pre-training as one call: statistics, job file, launch, checkpoint. Safe to repeat."""

import contextlib
import json
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from avnb.config import Pretrain
from avnb.data import subsets
from avnb.data.batch_plan import steps_per_epoch
from avnb.data.catalogue import open_manifest
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import ClipLoader, worth_starting
from avnb.data.manifest import Manifest
from avnb.data.transforms import AudioTransform
from avnb.files import locked, write_aside
from avnb.models.methods import METHODS, build
from avnb.training import checkpoint, slurm
from avnb.training.slurm import Resources, Slurm
from avnb.training.torchrun import launch
from avnb.training.trainer import Trained, ended
from avnb.values import digest, identity, unknown_name
from avnb.workspace import Workspace, cores

MelStatistics = tuple[list[float], list[float]]
Launcher = Literal["local", "slurm"]


def run_name(run: Pretrain, data: str) -> str:
    """The id of a run: its method and a hash of its values, of the digest `data` and of FORMAT."""
    made_of = {"run": run.flat(), "data": data, "format": checkpoint.FORMAT}
    return f"{run.method}-{digest(identity(made_of))}"


def run_folder(runs: Path, run: Pretrain, manifest: Manifest) -> Path:
    """The folder of a run."""
    return runs / run_name(run, manifest.digest)


def mel_statistics(manifest: Manifest, run: Pretrain, *, workers: int) -> MelStatistics:
    """Mean and standard deviation of each mel band over the videos that have sound.

    From one clip a video, not augmented; kept beside the manifest.

    Raises:
        ValueError: when no video has sound.
    """
    heard = manifest.with_audio()
    if not heard.videos:
        raise ValueError(f"no video of {manifest.name} in {manifest.folder} has an audio stream")
    key = {"data": heard.digest, "clip": run.clip, "form": run.spectrogram, "seed": run.seed}
    file = manifest.where / f"bands-{digest(key)}.json"
    if file.exists():
        found = json.loads(file.read_text())
        return found["mean"], found["std"]
    mels = run.spectrogram.mels
    view = AudioTransform(run.clip, run.spectrogram, ([0.0] * mels, [1.0] * mels))
    sampling = Sampling(clip=run.clip, count=1, place="random", augment=run.augment)
    clips = ClipLoader(
        VideoClips(heard, sampling, seed=run.seed),
        [(0, i, (0,)) for i in range(len(heard))],
        workers=worth_starting(workers, len(heard)),
    )
    count, total, squares = 0, torch.zeros(mels).double(), torch.zeros(mels).double()
    for batch in tqdm(clips, total=len(heard), desc="mel band statistics", unit="video"):
        x = view.log_mel(batch.audio).double()[0]  # [M, t]
        count, total, squares = count + x.shape[1], total + x.sum(1), squares + (x**2).sum(1)
    mean = total / count
    std = (squares / count - mean**2).clamp_min(0).sqrt().clamp_min(1e-3)  # empty bands stay 0
    write_aside(file, json.dumps({"mean": mean.tolist(), "std": std.tolist()}))
    return mean.tolist(), std.tolist()


def describe(
    run: Pretrain, manifest: Manifest, statistics: MelStatistics | None, *, dropped: int = 0
) -> dict[str, Any]:
    """What a checkpoint says about itself; `dropped` are videos left out for want of sound."""
    silent = len(manifest) - len(manifest.with_audio())
    return {
        "run": run.flat(),
        "data": manifest.digest,
        "data_set": manifest.name,
        "videos": len(manifest),
        "without_audio": dropped + silent,
        "classes": list(manifest.classes),
        "mel_statistics": [list(s) for s in statistics] if statistics else None,
    }


@dataclass(frozen=True, kw_only=True)
class Pretrained(Trained):
    """A pre-training."""

    run: Pretrain

    @property
    def finished(self) -> bool:
        """Whether it has come to its end."""
        return self.begun and ended(self.run, self.log)


def located(run: Pretrain, manifest: Manifest, runs: Path) -> Pretrained:
    """Where a run on (a subset of) the videos of a manifest is, or will be."""
    return Pretrained(run=run, folder=run_folder(runs, run, subsets.training(manifest, run)[0]))


def pretrained(
    work: Workspace,
    methods: Iterable[str],
    *,
    data: str = "",
    seed: int = 0,
    processes: int = 0,
    workers: int = 0,
    launcher: Launcher = "local",
    nodes: int = 1,
    slurm: Slurm | None = None,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Pretrained]:
    """Runs of several methods with a workspace's values; those not done yet are done now.

    `data` is the folder of VGGSound, '' for synthetic videos; `changes` are values that differ
    from the workspace's, by flat name; the rest is as in `pretrain`.
    """
    manifest = open_manifest(work, "vggsound", data)
    runs = [work.pretraining(method=m, seed=seed, **(changes or {})) for m in methods]
    found = pretrain_all(
        runs,
        manifest,
        work.runs,
        processes=processes,
        workers=workers,
        launcher=launcher,
        nodes=nodes,
        slurm=slurm,
    )
    return {one.run.method: one for one in found}


def dividing(shards: int) -> list[int]:
    """The numbers of processes that can share the shards evenly."""
    return [n for n in range(1, shards + 1) if shards % n == 0]


def resolved(processes: int, shards: int) -> int:
    """The number of processes: as asked, or for 0 one a GPU, else one a core, dividing `shards`.

    Raises:
        ValueError: when the number asked for cannot be used; it says which can.
    """
    gpus, allowed = torch.cuda.device_count(), dividing(shards)
    if processes == 0:
        chosen = max(n for n in allowed if n <= (gpus or cores()))
        if chosen < gpus:
            print(f"{chosen} of {gpus} GPUs are used: {shards} shards are dealt to them evenly")
        return chosen
    if processes not in allowed:
        raise ValueError(
            f"{processes} processes cannot share {shards} shards evenly: take one of {allowed}, "
            "0 (chosen for you), or set `shards` to a number that the processes divide and that "
            "divides `batch`"
        )
    if gpus and processes > gpus:
        raise ValueError(f"{processes} processes, but {gpus} GPUs: take at most {gpus}, or 0")
    return processes


def check_parts(run: Pretrain, processes: int) -> None:
    """Raise ValueError unless a process's share of a batch can be taken in parts as asked."""
    share, micro = run.optim.batch // processes, run.compute.micro_batch
    if not micro or micro == share:
        return
    if not METHODS[run.method].supports_micro_batches:
        raise ValueError(
            f"{run.method} takes variances and covariances of the whole batch at once: its "
            f"{share} clips a process cannot be taken {micro} at a time. Leave `micro_batch` 0, "
            "and use more processes, precision='bf16' or a smaller `batch`"
        )
    check_share(share, micro)


def check_share(share: int, micro: int) -> None:
    """Raise ValueError unless `share` clips of a process can be taken `micro` at a time."""
    if micro and share % micro:
        raise ValueError(
            f"{share} clips a process cannot be taken {micro} at a time: "
            f"`micro_batch` must divide {share}"
        )


def job_of(run: Pretrain, manifest: Manifest, processes: int, workers: int) -> dict[str, Any]:
    """What the processes of a run read: values, statistics, files of ids."""
    train, validation = subsets.training(manifest, run)
    if METHODS[run.method].measures and not validation.videos:
        raise ValueError(
            f"{run.method} is validated, and of {len(manifest.split('train'))} usable training "
            f"videos none is left for that: lower `subset_videos` ({run.subset.subset_videos}), "
            f"and see that `validation_videos` ({run.subset.validation_videos}) is above 0"
        )
    check_parts(run, processes)
    steps_per_epoch(len(train), run)
    train_ids, validation_ids = subsets.files(manifest, run.subset)
    dropped = len(subsets.chosen(manifest, train_ids)) - len(train)
    needed = run.uses_audio or train.with_audio().videos
    statistics = mel_statistics(train, run, workers=max(workers, cores())) if needed else None
    return {
        "about": describe(run, train, statistics, dropped=dropped),
        "manifest": str(manifest.where.resolve()),
        "train_ids": str(train_ids.resolve()),
        "validation_ids": str(validation_ids.resolve()),
        "workers": workers,
        "processes": processes,
    }


def spread(processes: int, shards: int, nodes: int, gpus: int) -> int:
    """The number of processes on `nodes` nodes with `gpus` GPUs each; for 0 as many as fit best.

    Raises:
        ValueError: when they cannot be spread evenly; it says which can.
    """
    at_most = nodes * gpus if gpus else shards
    allowed = [n for n in dividing(shards) if n % nodes == 0 and n <= at_most]
    if not allowed:
        raise ValueError(
            f"{shards} shards cannot be shared evenly by {nodes} nodes: set `shards` to a multiple "
            "of the nodes"
        )
    if processes == 0:
        return max(allowed) if gpus else allowed[0]
    if processes not in allowed:
        raise ValueError(
            f"{processes} processes on {nodes} nodes with {gpus} GPUs each cannot share {shards} "
            f"shards evenly: take one of {allowed}, or 0 (chosen for you)"
        )
    return processes


def processes_of(job: int, shards: int, launcher: Launcher, nodes: int, slurm: Slurm) -> int:
    """The number of processes that a launcher starts when asked for `job`, 0 to choose.

    Raises:
        ValueError: when it cannot start them.
    """
    if launcher not in typing.get_args(Launcher):
        raise ValueError(unknown_name("launcher", launcher, typing.get_args(Launcher)))
    if nodes < 1 or (launcher == "local" and nodes > 1):
        raise ValueError(
            f"nodes = {nodes}: the launcher 'slurm' takes 1 or more, 'local' has this machine "
            "only (README, 'On a cluster', says how to start torchrun on several by hand)"
        )
    if launcher == "local":
        return resolved(job, shards)
    return spread(job, shards, nodes, slurm.gpus_per_node)


def outstanding(many: Iterable[Pretrain], manifest: Manifest, runs: Path) -> list[Pretrain]:
    """Those of the runs that are neither finished nor in a cluster's hands."""
    found = [located(run, manifest, runs) for run in many]
    return [
        one.run for one in found if not one.finished and not (one.folder / "slurm.json").exists()
    ]


def pretrain(run: Pretrain, manifest: Manifest, runs: Path, **config: Any) -> Path:
    """`pretrain_all` for one run: its folder."""
    return pretrain_all([run], manifest, runs, **config)[0].folder


def pretrain_all(
    many: Sequence[Pretrain],
    manifest: Manifest,
    runs: Path,
    *,
    processes: int = 0,
    workers: int = 0,
    stall_seconds: float = 900.0,
    launcher: Launcher = "local",
    nodes: int = 1,
    slurm: Slurm | None = None,
) -> list[Pretrained]:
    """Pre-train on the training split and return where each run is.

    What is done already is left alone; what was interrupted goes on after its last checkpoint.
    On this machine all are trained by one job, one after the other; a cluster gets a job each.
    Where BatchNorm takes its statistics in each process, the number of processes matters a
    little; it stands in the run's job file.

    Args:
        many: different runs.
        manifest: as its folder has it on disk: the processes read it there.
        runs: the folder of runs.
        processes: of the job; 0 is one a GPU, or one a core.
        workers: decoding processes for each of them; 0 decodes in the process itself.
        stall_seconds: the job is given up when nothing is heard of it for so long.
        launcher: `local`, on this machine, or `slurm`.
        nodes: of the cluster; the processes are spread evenly over them.
        slurm: what is asked of SLURM.

    Raises:
        LaunchError: when the job fails; the message holds the worker's traceback.
        ValueError: when the videos or the number of processes do not fit a run.
    """
    slurm, shards = slurm or Slurm(), math.gcd(*(run.optim.shards for run in many))
    processes = processes_of(processes, shards, launcher, nodes, slurm)
    cast = Resources(processes=processes, nodes=nodes, workers=workers, slurm=slurm)
    found = [located(run, manifest, runs) for run in many]
    with contextlib.ExitStack() as locks:
        # In one order, or two callers could wait in a circle.
        for folder in sorted(one.folder for one in found if not one.finished):
            locks.enter_context(locked(folder))
        left = [
            one.folder
            for one in found
            if not one.finished and prepared(one, manifest, cast, launcher)
        ]
        names = ", ".join(run.method for run in many)
        carry_out(left, cast, launcher, f"pre-training {names}", stall_seconds)
    return found


def prepared(one: Pretrained, manifest: Manifest, cast: Resources, launcher: Launcher) -> bool:
    """Write what the processes of a run read; whether there is anything to train."""
    run, folder = one.run, one.folder
    # Asked now: another's job would read the file that is written below.
    slurm.check(folder, cast if launcher == "slurm" else None)
    job = job_of(run, manifest, cast.processes, cast.workers)
    write_aside(folder / "job.json", json.dumps(job, indent=1))
    if run.method != "random":
        return True
    metadata = job["about"]
    untrained = build(run, metadata["videos"], len(metadata["classes"]))
    checkpoint.save(folder / "last.pt", metadata, untrained, log=[])
    write_aside(folder / "log.jsonl", "")
    return False


def carry_out(
    folders: Sequence[Path],
    cast: Resources,
    launcher: Launcher,
    title: str,
    stall_seconds: float = 900.0,
) -> None:
    """Have the jobs that the folders describe done; here, the first one gets the output of all.

    Raises:
        LaunchError: when one fails.
    """
    if launcher == "slurm":
        slurm.launch(folders, cast, title=title, stall_seconds=stall_seconds)
    elif folders:
        launch(
            ["train", *map(str, folders)],
            processes=cast.processes,
            folder=folders[0],
            title=title,
            stall_seconds=stall_seconds,
        )

"""Runs of pre-training and fine-tuning: where each is, one call that trains what is left.

The folder of a run holds `job.json` (what its processes read), `last.pt`, `log.jsonl`,
`output.txt` and `tensorboard/`.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.errors import record

from avnb import distributed
from avnb.config import Finetune, Pretrain, digest, identity
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import steps_per_epoch
from avnb.data.manifest import Manifest
from avnb.data.subsets import training_and_validation
from avnb.data.transform import BatchTransform, mel_statistics
from avnb.files import json_lines, locked, read_json, write_text
from avnb.models.encoders import VideoEncoder
from avnb.models.methods import build_method, find_method, method_label
from avnb.models.methods.base import Log
from avnb.models.own import resolved_spec, source_digest
from avnb.profiles import Workspace, cores
from avnb.training import checkpoint, slurm
from avnb.training.checkpoint import Metadata
from avnb.training.classifier import Classifier
from avnb.training.launch import Job, LaunchError, Progress, Resources, launch
from avnb.training.loop import Validation, fit


@dataclass(frozen=True, kw_only=True)
class StartingPoint:
    """The encoder that fine-tuning starts from: a checkpoint, or code of the user's own."""

    method: str  # as result rows name it
    checkpoint: Path | None
    backbone: str
    width: int

    def load(self) -> VideoEncoder:
        """The encoder, frozen."""
        if self.checkpoint is None:
            return checkpoint.own_encoder(self.backbone)
        return checkpoint.load_encoders(self.checkpoint, backbone=self.backbone)[0]

    def describe(self) -> dict[str, Any]:
        """Method, backbone and width, and a digest of the weights."""
        sha = hashlib.sha256()
        for name, value in self.load().state_dict().items():
            sha.update(name.encode() + value.numpy().tobytes())
        named = {"method": self.method, "backbone": self.backbone, "width": self.width}
        return {**named, "weights": sha.hexdigest()[:16]}


def model_class(config: Pretrain | Finetune) -> Any:
    """The class of what is trained with these values: a method, or Classifier."""
    return find_method(config.method) if isinstance(config, Pretrain) else Classifier


def code_digest(config: Pretrain) -> str:
    """Stands for the user's own code in a run; '' when there is none."""
    return source_digest(config.method) + source_digest(config.backbone)


def describe(
    config: Pretrain | Finetune,
    train: Manifest,
    statistics: Any = None,
    start: StartingPoint | None = None,
) -> Metadata:
    """What a checkpoint says about its run, from the training videos and their mel statistics."""
    return Metadata(
        kind="finetuning" if start else "pretraining",
        config=config.flat(),
        data=train.digest,
        data_set=train.name,
        videos=len(train),
        classes=list(train.classes),
        mel_statistics=[list(s) for s in statistics] if statistics else None,
        code=code_digest(config) if isinstance(config, Pretrain) else "",
        encoder=start.describe() if start else None,
    )


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A run of pre-training, or of fine-tuning where it has a `start`."""

    config: Any  # Pretrain or Finetune
    manifest: Manifest  # of all videos
    folder: Path
    method: str  # as result rows name it
    start: StartingPoint | None = None

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.folder / "last.pt"

    @property
    def name(self) -> str:
        """The run's id, as result rows have it."""
        return self.folder.name

    @property
    def log(self) -> Log:
        """A row per epoch: means of all terms, statistics of embeddings, validation, speed."""
        return list(json_lines(self.folder / "log.jsonl"))

    @property
    def finished(self) -> bool:
        """Whether training is complete."""
        written = self.checkpoint.exists() and (self.folder / "log.jsonl").exists()
        return written and model_class(self.config).is_finished(self.config, self.log)

    @property
    def work(self) -> int:
        """How long it takes, as far as its values say; in no unit."""
        views = 1 + model_class(self.config).uses_second_view
        return self.config.optim.epochs * self.config.clips_per_video * views

    def metadata(self) -> Metadata:
        """What the run is, as its job file and its checkpoint say.

        Raises:
            ValueError: when the videos do not fit the run.
        """
        if self.start:
            return describe(self.config, self.manifest.split("train"), start=self.start)
        config, method = self.config, model_class(self.config)
        train, validation = training_and_validation(self.manifest, config)
        if method.validation_metrics and not validation.videos:
            raise ValueError(
                f"{self.method} is validated, and no usable training video is left for that: lower "
                f"`subset_videos` ({config.subset.subset_videos}), and see that "
                f"`validation_videos` ({config.subset.validation_videos}) is above 0"
            )
        needed = method.uses_audio or train.with_audio().videos
        statistics = mel_statistics(train, config) if needed else None
        return describe(config, train, statistics)

    def prepare(self, resources: Resources) -> bool:
        """Write the job file, and the checkpoint of a method that is not trained; whether to train.

        Raises:
            ValueError: when the videos or the processes do not fit the run.
        """
        metadata = self.metadata()
        steps_per_epoch(metadata.videos, self.config)
        self.check_micro_batch(resources.processes)
        start = self.start.checkpoint if self.start else None
        job = {
            "metadata": dataclasses.asdict(metadata),
            "manifest": str(self.manifest.where.resolve()),
            "checkpoint": str(start.resolve()) if start else "",
            "workers": resources.workers,
            "processes": resources.processes,
        }
        write_text(self.folder / "job.json", json.dumps(job, indent=1))
        if model_class(self.config).is_trained:
            return True
        untrained = build_method(self.config, metadata.videos, len(metadata.classes))
        checkpoint.save(self.checkpoint, metadata, untrained, log=[])
        write_text(self.folder / "log.jsonl", "")
        return False

    def check_micro_batch(self, processes: int) -> None:
        """Raise ValueError unless a process's share of the batch can be taken in parts as asked."""
        share, micro = self.config.optim.batch // processes, self.config.compute.micro_batch
        whole = not model_class(self.config).supports_micro_batches
        if micro and (share % micro or (whole and micro != share)):
            needs = "variances of the whole batch" if whole else "equal parts"
            raise ValueError(
                f"{share} clips per process cannot be taken {micro} at a time: {self.method} needs "
                f"{needs}; leave `micro_batch` 0, or change `batch` or the number of processes"
            )


# ---- pre-training -------------------------------------------------------------------------------


def run_name(config: Pretrain, data: str, code: str = "") -> str:
    """The id of a run: its method and a hash of its values, its data and the user's own code."""
    parts = {"config": config.flat(), "data": data, "format": checkpoint.FORMAT}
    if code:
        parts["code"] = code
    return f"{method_label(config.method)}-{digest(identity(parts))}"


def with_absolute_files(config: Pretrain) -> Pretrain:
    """The same values, in which files of the user's own code are found from any folder."""
    own = {name: resolved_spec(getattr(config, name)) for name in ("method", "backbone")}
    return config.changed(**own)


def pretraining_run(config: Pretrain, manifest: Manifest, folder: Path) -> TrainingRun:
    """A run on (a subset of) the training videos of a manifest, below the folder of all runs."""
    config = with_absolute_files(config)
    data = training_and_validation(manifest, config)[0].digest
    folder = folder / run_name(config, data, code_digest(config))
    label = method_label(config.method)
    return TrainingRun(config=config, manifest=manifest, folder=folder, method=label)


def pretraining_runs(
    work: Workspace,
    manifest: Manifest,
    methods: Iterable[str],
    *,
    seed: int = 0,
    values: Mapping[str, Any] | None = None,
) -> dict[str, TrainingRun]:
    """The runs of several methods in a workspace, by method; nothing is trained yet.

    Args:
        work: the workspace, whose values they have.
        manifest: the videos.
        methods: as `parse_methods` gives them.
        seed: of the runs.
        values: that differ from the workspace's, by flat name.
    """
    configs = [work.pretraining(method=m, **{"seed": seed, **(values or {})}) for m in methods]
    found = [pretraining_run(config, manifest, work.runs) for config in configs]
    return {run.method: run for run in found}


def training_sampling(config: Pretrain | Finetune) -> Sampling:
    """How a run's training clips are cut."""
    method, distance = model_class(config), None
    if isinstance(config, Pretrain) and method.uses_second_view:
        v = config.vicreg
        distance = (v.second_view_min_seconds, v.second_view_max_seconds)
    return Sampling(
        clip=config.clip,
        count=config.clips_per_video,
        place="random",
        augment=config.augment,
        audio=method.uses_audio,
        second_view_seconds=distance,
    )


# ---- fine-tuning (thesis 4.2.2) -----------------------------------------------------------------


def finetuning_run(
    config: Finetune, start: StartingPoint, manifest: Manifest, folder: Path
) -> TrainingRun:
    """A run on the training videos of a manifest, below the folder of all runs."""
    about = describe(config, manifest.split("train"), start=start)
    parts = [identity(about.config), about.data, about.classes, about.encoder, checkpoint.FORMAT]
    folder = folder / f"finetune-{manifest.name}-{start.method}-{digest(parts)}"
    return TrainingRun(
        config=config, manifest=manifest, folder=folder, method=start.method, start=start
    )


# ---- training -----------------------------------------------------------------------------------


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
    runs = [run for run in runs if not run.finished]
    if not runs:
        return
    resources = resources or Resources()
    resources = resources.resolved(math.gcd(*(run.config.optim.shards for run in runs)))
    with contextlib.ExitStack() as locks:
        # In one order, or two callers could wait in a circle.
        for folder in sorted(run.folder for run in runs):
            locks.enter_context(locked(folder))
        for run in runs:
            if resources.launcher == "local" and (job := slurm.submitted(run.folder)):
                raise LaunchError(
                    f"job {job.job_id} of SLURM is training this run ({run.folder}): call with "
                    f"launcher='slurm' to return to it, or end it with `scancel {job.job_id}`"
                )
        left = [run for run in runs if not run.finished and run.prepare(resources)]
        if not left:
            return
        title = title or "training " + ", ".join(run.method for run in runs)
        progress = Progress({run.folder: run.config.optim.epochs for run in left}, title)
        try:
            if resources.launcher == "slurm":
                slurm.launch(main, [run.folder for run in left], resources, progress)
            else:
                launch_here(left, resources.processes, progress)
        finally:
            progress.close()


def launch_here(runs: Sequence[TrainingRun], processes: int, progress: Progress) -> None:
    """Train on this machine; the first run of a job gets the output of all."""
    alone = processes == 1 and not torch.cuda.is_available()
    groups = divided(runs, cores() if alone else 1)
    jobs = [
        Job(
            command=["avnb", "train", *(str(run.folder) for run in group)],
            folder=group[0].folder,
            processes=processes,
        )
        for group in groups
    ]
    launch(jobs, progress.title, lambda: progress.update(jobs[0].output))


def divided(runs: Sequence[TrainingRun], count: int) -> list[list[TrainingRun]]:
    """The runs in as many groups of about the same work, at most one per run: longest first."""
    if count == 1:
        return [list(runs)]
    groups: list[list[TrainingRun]] = [[] for _ in range(min(count, len(runs)))]
    for run in sorted(runs, key=lambda run: -run.work):
        min(groups, key=lambda group: sum(other.work for other in group)).append(run)
    return groups


@record
def main(*folders: Path) -> None:
    """One process of a job: do what `job.json` in each folder says, one after the other.

    Several folders share one start: importing torch and forming the process group costs seconds.
    """
    with distributed.process_group() as device:
        for folder in folders:
            train_process(folder, device)


def train_process(folder: Path, device: torch.device) -> None:
    """This process's part of a run, as its job file says.

    Raises:
        ValueError: when the videos, the starting point or the user's own code are others now.
    """
    job = read_json(folder / "job.json", "the description of a job")
    metadata, manifest = Metadata(**job["metadata"]), Manifest.load(Path(job["manifest"]))
    workers, validation = job["workers"], None
    config: Any
    if metadata.encoder:
        config, train = Finetune.from_flat(**metadata.config), manifest.split("train")
        named = {k: v for k, v in metadata.encoder.items() if k != "weights"}
        file = Path(job["checkpoint"]) if job["checkpoint"] else None
        start = StartingPoint(checkpoint=file, **named)
        found = describe(config, train, start=start)
        model: Any = Classifier(start.load(), len(train.classes), config)
        transform = BatchTransform()
    else:
        config = metadata.pretrain
        train, held_out = training_and_validation(manifest, config)
        found = describe(config, train, metadata.mel_statistics)
        model = build_method(config, len(train), len(train.classes))
        transform = BatchTransform(config, metadata.mel_statistics)
        if model.validation_metrics:
            validation = Validation(clips=validation_clips(held_out, config), workers=workers)
    told, now = dataclasses.asdict(metadata), dataclasses.asdict(found)
    if changed := [name for name in told if told[name] != now[name]]:
        raise ValueError(f"{changed} have changed since {folder / 'job.json'} was written")
    sync = config.compute.sync_batch_norm
    if sync == "all" or (sync == "method" and model.shares_batch_norm):
        distributed.synchronise_batch_norm(model, device)
    clips = VideoClips(train, training_sampling(config), seed=config.seed)
    fit(model, transform, clips, metadata, folder, device, workers=workers, validation=validation)


def validation_clips(manifest: Manifest, config: Pretrain) -> VideoClips:
    """One clip of each video, of the whole frame's centre."""
    px = config.clip.resized_px
    sampling = Sampling(clip=config.clip, count=1, place="random", resize_px=px)
    return VideoClips(manifest, sampling, seed=config.seed)

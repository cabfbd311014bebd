"""Runs of pre-training and fine-tuning: where each is, one call that trains what is left.

The folder of a run holds `job.json` (what its processes read), `last.pt`, `log.jsonl`,
`output.txt` and `tensorboard/`.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import record

from avnb import distributed
from avnb.config import NON_IDENTITY_FIELDS, Finetune, Pretrain, digest, identity
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import steps_per_epoch
from avnb.data.manifest import Manifest
from avnb.data.subsets import training_and_validation
from avnb.data.transform import BatchTransform, mel_statistics
from avnb.files import absolute, json_lines, locked, tqdm, write_text
from avnb.models.encoders import VideoEncoder
from avnb.models.methods import build_method, find_method, method_label
from avnb.models.methods.base import Log
from avnb.models.own import resolved_spec, source_digest
from avnb.profiles import Workspace, cores
from avnb.training import checkpoint, slurm
from avnb.training.checkpoint import Metadata
from avnb.training.classifier import Classifier
from avnb.training.launch import LaunchError, Resources, launch, show
from avnb.training.loop import fit


@dataclass(frozen=True, kw_only=True)
class StartingPoint:
    """The encoder that fine-tuning starts from: a checkpoint, or code of the user's own."""

    method: str  # as result rows name it
    checkpoint: str | Path | None
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
    config: Any, train: Manifest, statistics: Any = None, start: StartingPoint | None = None
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
        code="" if start else code_digest(config),
        encoder=start.describe() if start else {},
    )


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A run of pre-training, or of fine-tuning where it has a `start`."""

    config: Any  # Pretrain or Finetune
    manifest: Manifest  # of all videos
    folder: Path
    start: StartingPoint | None = None

    @property
    def method(self) -> str:
        """As result rows name it."""
        return self.start.method if self.start else method_label(self.config.method)

    @property
    def name(self) -> str:
        """The run's id, as result rows have it."""
        return self.folder.name

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.folder / "last.pt"

    @property
    def log(self) -> Log:
        """A row per epoch: means of all terms, statistics of embeddings, validation, speed."""
        return list(json_lines(self.folder / "log.jsonl"))

    @property
    def finished(self) -> bool:
        """Whether training is complete."""
        ended = model_class(self.config).is_finished(self.config, self.log)
        return ended and self.checkpoint.exists()

    def videos(self) -> tuple[Manifest, Manifest]:
        """Those to train on, and to validate with."""
        if self.start:
            return self.manifest.split("train"), self.manifest.only(())
        return training_and_validation(self.manifest, self.config)

    def lacks(self) -> str:
        """What the videos lack for training this method; '' when it can be trained."""
        (train, held_out), kind = self.videos(), model_class(self.config)
        if self.start or not kind.is_trained:
            return ""
        if kind.uses_labels and len({video.label for video in train.videos}) < 2:
            return "there are no two classes to tell apart"
        if kind.uses_audio and not kind.uses_labels and not train.with_audio().videos:
            return "no video has audio"
        if kind.validation_metrics and not held_out.videos:
            return "it has no videos to validate with: lower `subset_videos`"
        return ""

    def metadata(self) -> Metadata:
        """What the run is."""
        (train, _), uses_audio = self.videos(), model_class(self.config).uses_audio
        needed = not self.start and (uses_audio or train.with_audio().videos)
        statistics = mel_statistics(train, self.config) if needed else None
        return describe(self.config, train, statistics, self.start)

    def prepare(self, resources: Resources) -> bool:
        """Write the job file, and the checkpoint of a method that is not trained; whether to train.

        Raises:
            ValueError: when the videos do not fit the run.
        """
        if reason := self.lacks():
            raise ValueError(f"{self.method} cannot be trained: {reason}")
        metadata, kind = self.metadata(), model_class(self.config)
        steps_per_epoch(metadata.videos, self.config)
        manifest, start = absolute(self.manifest.where), self.start and asdict(self.start)
        job = dict(metadata=asdict(metadata), manifest=manifest, start=start)
        job["workers"] = resources.workers
        write_text(self.folder / "job.json", json.dumps(job, indent=1, default=str))
        if not kind.is_trained:
            sizes = metadata.videos, len(metadata.classes)
            checkpoint.save(self.checkpoint, metadata, build_method(self.config, *sizes), log=[])
        return kind.is_trained


def run_name(config: Pretrain, data: str, code: str = "") -> str:
    """The id of a run: its method and a hash of its values, its data and the user's own code."""
    parts = {"config": config.flat(), "data": data, "format": checkpoint.FORMAT}
    parts |= {"code": code} if code else {}
    return f"{method_label(config.method)}-{digest(identity(parts))}"


def with_absolute_files(config: Pretrain) -> Pretrain:
    """The same values, in which files of the user's own code are found from any folder."""
    own = {name: resolved_spec(getattr(config, name)) for name in ("method", "backbone")}
    return config.changed(**own)


def pretraining_run(config: Pretrain, manifest: Manifest, folder: Path) -> TrainingRun:
    """A run on (a subset of) the training videos of a manifest, below the folder of all runs."""
    config = with_absolute_files(config)
    if config.compute.micro_batch and not model_class(config).supports_micro_batches:
        raise ValueError(f"{config.method} needs whole batches for its loss: no `micro_batch`")
    data = training_and_validation(manifest, config)[0].digest
    folder = folder / run_name(config, data, code_digest(config))
    return TrainingRun(config=config, manifest=manifest, folder=folder)


def pretraining_runs(
    work: Workspace,
    manifest: Manifest,
    methods: Iterable[str],
    *,
    seed: int = 0,
    values: Mapping[str, Any] | None = None,
) -> dict[str, TrainingRun]:
    """The runs of several methods in a workspace, by method; nothing is trained yet.

    `values` differ from the workspace's, by flat name; `methods` are as `parse_methods` gives them.
    A method that these videos cannot train is left out, with a line; ValueError for all of them.
    """
    configs = [work.pretraining(method=m, seed=seed, **(values or {})) for m in methods]
    found = [pretraining_run(config, manifest, work.runs) for config in configs]
    reasons = {run.method: reason for run in found if (reason := run.lacks())}
    lines = [f"{method} is left out: {reason}" for method, reason in reasons.items()]
    if len(lines) == len(found):
        raise ValueError("\n".join([f"no method can be trained on {manifest.folder}", *lines]))
    print(*lines, sep="\n", end="\n" if lines else "")
    return {run.method: run for run in found if run.method not in reasons}


def finetuning_run(
    config: Finetune, start: StartingPoint, manifest: Manifest, folder: Path
) -> TrainingRun:
    """A run on the training videos of a manifest, below the folder of all runs (thesis 4.2.2)."""
    data, classes = manifest.split("train").digest, list(manifest.classes)
    parts = [identity(config.flat()), data, classes, start.describe(), checkpoint.FORMAT]
    folder = folder / f"finetune-{manifest.name}-{start.method}-{digest(parts)}"
    return TrainingRun(config=config, manifest=manifest, folder=folder, start=start)


def training_sampling(config: Pretrain | Finetune) -> Sampling:
    """How a run's training clips are cut."""
    method = model_class(config)
    values: Any = dict(place="random", augment=config.augment, audio=method.uses_audio)
    if isinstance(config, Pretrain) and method.uses_second_view:
        v = config.vicreg
        values["second_view_seconds"] = v.second_view_min_seconds, v.second_view_max_seconds
    clip = config.clip
    if method.in_sync:  # audio as long as the frames, so that it ends before the second view
        clip = replace(clip, max_offset_seconds=0.0, audio_seconds=clip.video_seconds)
    return Sampling(clip=clip, count=config.clips_per_video, **values)


def train(runs: Sequence[TrainingRun], resources: Resources | None = None, title: str = "") -> None:
    """Train what is not finished; the runs then are.

    What was interrupted resumes from its last checkpoint. On this machine all are trained by one
    job, one after the other, or side by side where each takes one process; a cluster gets a job
    each.

    Raises:
        LaunchError: when a job fails; the message holds the failing process's traceback.
        ValueError: when the videos or the number of processes do not fit a run.
    """
    for run in runs:
        if run.finished and (run.folder / "job.json").exists():
            tell_ignored(run)
    runs = [run for run in runs if not run.finished]
    if not runs:
        return
    resources = resources or Resources()
    resources = resources.resolved(math.gcd(*(run.config.optim.shards for run in runs)))
    with contextlib.ExitStack() as stack:
        # In one order, or two callers could wait in a circle.
        for folder in sorted(run.folder for run in runs):
            stack.enter_context(locked(folder))
            if resources.slurm is None and (job := slurm.submitted(folder)):
                raise LaunchError(
                    f"job {job.job_id} of SLURM is training this run ({folder}): give `slurm` to "
                    f"return to it, or end it with `scancel {job.job_id}`"
                )
        left = [run for run in runs if not run.finished and run.prepare(resources)]
        if left:
            train_in_jobs(left, resources, title or f"training {', '.join(r.method for r in runs)}")


def tell_ignored(run: TrainingRun) -> None:
    """Say which values that fit a run to a machine come too late for this finished one."""
    made = json.loads((run.folder / "job.json").read_text())["metadata"]["config"]
    for name, value in run.config.flat().items():
        if name in NON_IDENTITY_FIELDS and value != made[name]:
            print(f"{run.name} is finished: {name} = {value} changes nothing")


def train_in_jobs(runs: Sequence[TrainingRun], resources: Resources, title: str) -> None:
    """Train runs whose job files are written, and wait for them with a bar of their epochs."""
    folders = [run.folder for run in runs]
    with tqdm(desc=title, total=sum(r.config.optim.epochs for r in runs), unit="epoch") as bar:
        watch = partial(show, bar, folders)
        if resources.slurm is not None:
            slurm.launch(main, folders, resources, watch)
        else:
            alone = resources.processes == 1 and not torch.cuda.is_available()
            count = min(cores(), len(folders)) if alone else 1
            shares = [folders[i::count] for i in range(count)]
            # The first run of a job gets the output of all.
            commands = {share[0]: ["avnb", "train", *map(str, share)] for share in shares}
            launch(commands, resources.processes, title, partial(watch, folders[0] / "output.txt"))
        bar.total = bar.n  # fewer where runs have ended early


@record
def main(*folders: Path) -> None:
    """One process of a job: do what `job.json` in each folder says, one after the other."""
    with distributed.process_group() as device:
        for folder in folders:
            train_process(folder, device)


def train_process(folder: Path, device: torch.device) -> None:
    """This process's part of a run, as its job file says.

    Raises:
        CheckpointError: when the videos, the starting point or the user's own code are others now.
    """
    job = json.loads((folder / "job.json").read_text())
    metadata, manifest = Metadata(**job["metadata"]), Manifest.load(job["manifest"])
    start = StartingPoint(**job["start"]) if job["start"] else None
    config: Any = (Finetune if start else Pretrain).from_flat(**metadata.config)
    run = TrainingRun(config=config, manifest=manifest, folder=folder, start=start)
    checkpoint.check_same(folder / "job.json", metadata, run.metadata())
    (train, held_out), classes = run.videos(), len(metadata.classes)
    if start:
        model: Any = Classifier(start.load(), classes, config)
    else:
        model = build_method(config, len(train), classes)
    if model.shares_batch_norm and device.type == "cuda" and distributed.world_size() > 1:
        # In place. On the CPU, which it does not serve, each process has its own statistics.
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    transform = BatchTransform(None if start else config, metadata.mel_statistics)
    clips = VideoClips(train, training_sampling(config), seed=config.seed)
    # One clip of each video, of the whole frame's centre.
    once = Sampling(clip=config.clip, count=1, place="random", resize_px=config.clip.resized_px)
    held = VideoClips(held_out, once, seed=config.seed) if model.validation_metrics else None
    fit(model, transform, clips, metadata, folder, device, workers=job["workers"], validation=held)

"""Pre-training: the runs of a workspace, and one process of a run."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avnb import distributed
from avnb.config import Pretrain, digest, identity
from avnb.data import subsets
from avnb.data.batch_plan import steps_per_epoch
from avnb.data.batch_transform import BatchTransform
from avnb.data.clips import Sampling, VideoClips
from avnb.data.manifest import Manifest
from avnb.data.mel_statistics import mel_statistics
from avnb.files import write_text
from avnb.models.methods import Method, build_method, find_method, method_label
from avnb.models.methods.base import Log
from avnb.models.specs import resolved_spec, source_digest
from avnb.profiles import Workspace
from avnb.progress import StepTimer
from avnb.training import checkpoint, runs
from avnb.training.checkpoint import Metadata
from avnb.training.resources import Resources
from avnb.training.runs import TrainingRun
from avnb.training.trainer import Validation, fit


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


def code_digest(config: Pretrain) -> str:
    """Stands for the user's own code in a run; '' when there is none."""
    return source_digest(config.method) + source_digest(config.backbone)


@dataclass(frozen=True, kw_only=True)
class PretrainingRun(TrainingRun):
    """A pre-training run."""

    config: Pretrain

    @property
    def work(self) -> float:
        """As of any run, doubled where every clip has a second view."""
        return super().work * (1 + find_method(self.config.method).uses_second_view)

    def is_finished(self, log: Log) -> bool:
        """As the method says: after the last epoch, or earlier."""
        return find_method(self.config.method).is_finished(self.config, log)

    @property
    def is_pending(self) -> bool:
        """Whether it is trained at all, and neither finished nor a job on a cluster."""
        return find_method(self.config.method).is_trained and super().is_pending

    def job(self, resources: Resources) -> dict[str, Any]:
        """Metadata, files of ids, workers.

        Raises:
            ValueError: when the videos or the processes do not fit the run.
        """
        config, manifest, method = self.config, self.manifest, find_method(self.config.method)
        train, validation = subsets.training_and_validation(manifest, config)
        if method.validation_metrics and not validation.videos:
            raise ValueError(
                f"{self.method} is validated, and of {len(manifest.split('train'))} usable "
                "training videos none is left for that: lower `subset_videos` "
                f"({config.subset.subset_videos}), and see that `validation_videos` "
                f"({config.subset.validation_videos}) is above 0"
            )
        check_micro_batch(config, method, resources.processes)
        steps_per_epoch(len(train), config)
        train_ids, validation_ids = subsets.subset_files(manifest, config.subset)
        dropped = len(subsets.load_subset(manifest, train_ids)) - len(train)
        needed = method.uses_audio or train.with_audio().videos
        statistics = mel_statistics(train, config) if needed else None
        return {
            "metadata": describe(config, train, statistics, dropped=dropped),
            "manifest": str(manifest.where.resolve()),
            "train_ids": str(train_ids.resolve()),
            "validation_ids": str(validation_ids.resolve()),
            "workers": resources.workers,
            "processes": resources.processes,
        }

    def prepare(self, resources: Resources) -> bool:
        """Write the job file, and the checkpoint of a method that is not trained."""
        metadata = self.write_job(resources)
        if find_method(self.config.method).is_trained:
            return True
        untrained = build_method(self.config, metadata.videos, len(metadata.classes))
        checkpoint.save(self.checkpoint, metadata, untrained, log=[])
        write_text(self.folder / "log.jsonl", "")
        return False


def check_micro_batch(config: Pretrain, method: type[Method], processes: int) -> None:
    """Raise ValueError unless a process's share of the batch can be taken in parts as asked."""
    share, micro = config.optim.batch // processes, config.compute.micro_batch
    if micro and micro != share and not method.supports_micro_batches:
        raise ValueError(
            f"{method_label(config.method)} takes variances and covariances of the whole batch at "
            f"once: its {share} clips per process cannot be taken {micro} at a time. Leave "
            "`micro_batch` 0, and use more processes, precision='bf16' or a smaller `batch`"
        )
    runs.check_micro_batch(config, processes)


def describe(
    config: Pretrain, manifest: Manifest, statistics: Any, *, dropped: int = 0
) -> Metadata:
    """What a checkpoint says about itself; `dropped` videos were left out for lack of audio."""
    silent = len(manifest) - len(manifest.with_audio())
    return Metadata(
        kind="pretraining",
        config=config.flat(),
        data=manifest.digest,
        data_set=manifest.name,
        videos=len(manifest),
        classes=list(manifest.classes),
        without_audio=dropped + silent,
        mel_statistics=[list(s) for s in statistics] if statistics else None,
        code=code_digest(config),
    )


def pretraining_run(config: Pretrain, manifest: Manifest, folder: Path) -> PretrainingRun:
    """A run on (a subset of) the training videos of a manifest, below the folder of all runs."""
    config = with_absolute_files(config)
    name = run_name(
        config, subsets.training_and_validation(manifest, config)[0].digest, code_digest(config)
    )
    label = method_label(config.method)
    return PretrainingRun(config=config, manifest=manifest, folder=folder / name, method=label)


def pretraining_runs(
    work: Workspace,
    manifest: Manifest,
    methods: Iterable[str],
    *,
    seed: int = 0,
    values: Mapping[str, Any] | None = None,
) -> dict[str, PretrainingRun]:
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


def training_sampling(config: Pretrain) -> Sampling:
    """How a run's training clips are cut."""
    method, v = find_method(config.method), config.vicreg
    distance = (v.second_view_min_seconds, v.second_view_max_seconds)
    return Sampling(
        clip=config.clip,
        count=config.clips_per_video,
        place="random",
        augment=config.augment,
        audio=method.uses_audio,
        second_view_seconds=distance if method.uses_second_view else None,
    )


def train_process(folder: Path, job: dict[str, Any], device: torch.device) -> None:
    """This process's part of a run, as its job file says."""
    metadata, manifest = runs.read_metadata(job), Manifest.load(Path(job["manifest"]))
    config = metadata.pretrain
    train, held_out = (
        subsets.apply_missing_audio(subsets.load_subset(manifest, Path(job[ids])), config)
        for ids in ("train_ids", "validation_ids")
    )
    runs.check_unchanged(job["manifest"], train.digest, metadata.data, folder)
    model = build_method(config, len(train), len(train.classes))
    sync = config.compute.sync_batch_norm
    if sync == "all" or (sync == "method" and model.shares_batch_norm):
        distributed.synchronise_batch_norm(model, device)
    steps, validation = job.get("steps", 0), None
    if model.validation_metrics and not steps:
        px = config.clip.resized_px
        centre = Sampling(clip=config.clip, count=1, place="random", resize_px=px)
        clips = VideoClips(held_out, centre, seed=config.seed)
        validation = Validation(clips=clips, workers=job["workers"])
    timer = StepTimer(steps, torch.cuda.synchronize if device.type == "cuda" else lambda: None)
    fit(
        model,
        BatchTransform(config, metadata.mel_statistics),
        VideoClips(train, training_sampling(config), seed=config.seed),
        metadata,
        folder,
        device,
        workers=job["workers"],
        validation=validation,
        max_steps=steps,
        timer=timer if steps else None,
    )
    if steps and distributed.rank() == 0:
        write_text(folder / "speed.json", json.dumps({"step_seconds": timer.step_seconds}))

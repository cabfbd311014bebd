"""Fine-tuning of a pre-trained video encoder (thesis 4.2.2): runs, and one process of a run."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avnb import distributed
from avnb.config import Finetune, digest, identity
from avnb.data.batch_plan import steps_per_epoch
from avnb.data.batch_transform import BatchTransform
from avnb.data.clips import Sampling, VideoClips
from avnb.data.manifest import Manifest
from avnb.models.encoders import VideoEncoder
from avnb.models.methods.base import Log
from avnb.training import checkpoint, runs
from avnb.training.checkpoint import Metadata
from avnb.training.classifier import Classifier
from avnb.training.resources import Resources
from avnb.training.runs import TrainingRun
from avnb.training.trainer import fit


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

    def describe(self, encoder: VideoEncoder) -> dict[str, Any]:
        """Method, backbone and width, and a digest of the weights."""
        sha = hashlib.sha256()
        for name, value in encoder.state_dict().items():
            sha.update(name.encode() + value.numpy().tobytes())
        weights = sha.hexdigest()[:16]
        return {
            "method": self.method,
            "backbone": self.backbone,
            "width": self.width,
            "weights": weights,
        }


@dataclass(frozen=True, kw_only=True)
class FinetuningRun(TrainingRun):
    """A fine-tuning run; the epochs of the warm-up come first in its log."""

    config: Finetune
    start: StartingPoint
    metadata: Metadata

    def is_finished(self, log: Log) -> bool:
        """After the last epoch."""
        return Classifier.is_finished(self.config, log)

    def job(self, resources: Resources) -> dict[str, Any]:
        """Metadata, where the encoder is, workers; ValueError when the processes do not fit."""
        steps_per_epoch(len(self.manifest.split("train")), self.config)
        runs.check_micro_batch(self.config, resources.processes)
        file = self.start.checkpoint
        return {
            "metadata": self.metadata,
            "manifest": str(self.manifest.where.resolve()),
            "checkpoint": str(file.resolve()) if file else "",
            "workers": resources.workers,
            "processes": resources.processes,
        }


def finetuning_run(
    config: Finetune, start: StartingPoint, manifest: Manifest, folder: Path
) -> FinetuningRun:
    """A run on the training videos of a manifest, below the folder of all runs."""
    train = manifest.split("train")
    metadata = Metadata(
        kind="finetuning",
        config=config.flat(),
        data=train.digest,
        data_set=train.name,
        videos=len(train),
        classes=list(train.classes),
        encoder=start.describe(start.load()),
    )
    parts = [identity(metadata.config), metadata.data, metadata.classes, metadata.encoder]
    name = f"finetune-{train.name}-{start.method}-{digest([*parts, checkpoint.FORMAT])}"
    return FinetuningRun(
        config=config,
        manifest=manifest,
        folder=folder / name,
        method=start.method,
        start=start,
        metadata=metadata,
    )


def training_sampling(config: Finetune) -> Sampling:
    """How training clips are cut."""
    return Sampling(
        clip=config.clip,
        count=config.clips_per_video,
        place="random",
        augment=config.augment,
        audio=False,
    )


def train_process(folder: Path, job: dict[str, Any], device: torch.device) -> None:
    """This process's part of a run, as its job file says."""
    metadata = runs.read_metadata(job)
    config = Finetune.from_flat(**metadata.config)
    train = Manifest.load(Path(job["manifest"])).split("train")
    runs.check_unchanged(job["manifest"], train.digest, metadata.data, folder)
    assert metadata.encoder is not None
    named = {k: v for k, v in metadata.encoder.items() if k != "weights"}
    file = Path(job["checkpoint"]) if job["checkpoint"] else None
    start = StartingPoint(checkpoint=file, **named)
    encoder = start.load()
    where = file or start.backbone  # a file of weights, or code
    runs.check_unchanged(where, start.describe(encoder), metadata.encoder, folder)
    model = Classifier(encoder, len(train.classes), config)
    if config.compute.sync_batch_norm == "all":
        distributed.synchronise_batch_norm(model, device)
    clips = VideoClips(train, training_sampling(config), seed=config.seed)
    fit(model, BatchTransform(), clips, metadata, folder, device, workers=job["workers"])

"""A video encoder that learns classes: fine-tuning (thesis 4.2.2), one process of it.

Shapes: B clips, T frames of S x S pixels, F features (8 * width).
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avnb import distributed, progress
from avnb.config import Pretrain
from avnb.data.batch import Batch
from avnb.data.batch_plan import steps_per_epoch
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import training_epochs
from avnb.data.manifest import Manifest
from avnb.data.transforms import VideoTransform
from avnb.models.encoders import VideoEncoder
from avnb.models.losses import at_least_float
from avnb.models.methods import Terms, TrainableModule, build, derive_seed
from avnb.protocols import Finetune
from avnb.training import checkpoint, released
from avnb.training.trainer import fit


class Classifier(TrainableModule):
    """Features of the picture, dropout, a linear layer: [B, 3, T, S, S] -> [B, classes].

    While progress is 0, the warm-up, only the layer learns. The encoder is then in evaluation
    mode, as in the linear probe: no weight of it moves, and no batch statistic either, so that
    what learns afterwards is the very encoder that was pre-trained.
    """

    has_unused_parameters = True

    def __init__(self, encoder: VideoEncoder, classes: int, run: Finetune):
        super().__init__(run.compute)
        self.run = run
        self.video_encoder = encoder.requires_grad_(True)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(run.seed, 5))
            self.head = nn.Linear(encoder.features, classes)

    def kept(self, batch: Batch) -> Tensor:
        """[B, F] factors of dropout: 0, or what makes up for the zeros.

        Drawn from seed and step for the whole batch of all processes, then divided: the same on
        any number of them, and after an interruption.
        """
        rng = torch.Generator().manual_seed(derive_seed(self.run.seed, 6, batch.step))
        drawn = torch.rand(self.run.optim.batch, self.head.in_features, generator=rng)
        mine = drawn[batch.first : batch.first + len(batch)] >= self.run.dropout
        return mine.to(batch.frames.device) / (1 - self.run.dropout)

    def logits(self, frames: Tensor) -> Tensor:
        """[B, classes] without dropout, of frames [B, 3, T, S, S] that views have looked at."""
        return self.head(self.video_encoder(frames))

    def forward(self, batch: Batch, progress: float) -> Terms:
        """Cross-entropy, and the share of clips classified right, of a training batch."""
        warm = progress == 0
        self.video_encoder.train(not warm)
        with self.autocast(batch):
            with torch.set_grad_enabled(not warm):
                features = self.video_encoder(batch.frames)
            (logits,) = at_least_float(self.head(features * self.kept(batch)))
        right = (logits.argmax(1) == batch.label).float().mean()
        return {"loss": F.cross_entropy(logits, batch.label), "accuracy": right}


class FrameTransform(nn.Module):
    """Looks at the frames of a raw batch."""

    def __init__(self) -> None:
        super().__init__()
        self.picture = VideoTransform()

    @torch.no_grad()
    def forward(self, batch: Batch) -> Batch:
        """Frames [B, 3, T, S, S] float, augmented as drawn."""
        return dataclasses.replace(
            batch, frames=self.picture(batch.frames, batch.params), params=None
        )


@dataclass(frozen=True, kw_only=True)
class Start:
    """What fine-tuning starts from: the encoder of a checkpoint, or one as it is initialised."""

    run: Pretrain
    file: Path | None = None  # only `random` goes without

    def __post_init__(self) -> None:
        if self.file is None and self.run.method != "random":
            raise ValueError(f"to start from {self.run.method} takes a checkpoint of it")

    @classmethod
    def read(cls, file: Path) -> "Start":
        """From a checkpoint of this package or a released one.

        Raises:
            FileNotFoundError, CheckpointError: as `released.encoders`.
        """
        metadata = released.encoders(file)[2]
        return cls(run=Pretrain.from_flat(**metadata["run"]), file=file)

    def encoder(self) -> VideoEncoder:
        """The encoder, frozen."""
        if self.file is not None:
            return released.encoders(self.file)[0]
        return build(self.run, 0, 0).video_encoder.requires_grad_(False)

    def metadata(self, encoder: VideoEncoder | None = None) -> dict[str, Any]:
        """Method and width of the encoder, and a digest of its weights; read if not given."""
        sha = hashlib.sha256()
        for name, value in (encoder or self.encoder()).state_dict().items():
            sha.update(name.encode() + value.numpy().tobytes())
        weights = sha.hexdigest()[:16]
        return {"method": self.run.method, "width": self.run.width, "weights": weights}


def sampling_of(run: Finetune) -> Sampling:
    """How training clips are cut."""
    return Sampling(
        clip=run.clip, count=run.clips_per_video, place="random", augment=run.augment, audio=False
    )


def load(file: Path) -> Classifier:
    """A fine-tuned classifier, frozen in evaluation mode.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is no checkpoint of fine-tuning.
    """
    found = checkpoint.load(file)
    metadata = found["about"]
    if "finetune" not in metadata:
        raise checkpoint.CheckpointError(
            f"{file} is a checkpoint of pre-training; fine-tuning starts from it"
        )
    run = Finetune.from_flat(**metadata["finetune"])
    made = Classifier(VideoEncoder(metadata["start"]["width"]), len(metadata["classes"]), run)
    made.load_state_dict(found["method"])
    made.eval().requires_grad_(False)
    return made


def start_of(out: Path, job: dict[str, Any]) -> VideoEncoder:
    """The encoder that the job starts from, seen to be the one that the job was made for."""
    start = Start(
        run=Pretrain.from_flat(**job["start"]["run"]),
        file=Path(job["start"]["file"]) if job["start"]["file"] else None,
    )
    encoder = start.encoder()
    if start.metadata(encoder) != job["about"]["start"]:
        raise ValueError(f"{start.file} has changed since {out / 'job.json'} was written")
    return encoder


def finetuning(out: Path, job: dict[str, Any], device: torch.device) -> None:
    """This process's part of fine-tuning as `job` says, in the folder `out`."""
    metadata = job["about"]
    run = Finetune.from_flat(**metadata["finetune"])
    train = Manifest.load(Path(job["manifest"])).split("train")
    if train.digest != metadata["data"]:
        raise ValueError(f"{job['manifest']} has changed since {out / 'job.json'} was written")
    clips = VideoClips(train, sampling_of(run), seed=run.seed)

    def epochs(done: int) -> Iterator[tuple[int, Iterator[Batch]]]:
        return training_epochs(
            clips,
            run,
            done,
            rank=distributed.rank(),
            processes=distributed.world_size(),
            workers=job["workers"],
        )

    total = steps_per_epoch(len(train), run) * run.optim.epochs
    bar = progress.reporter(total * run.optim.batch) if distributed.rank() == 0 else progress.silent

    def report(steps: int, note: str) -> None:
        bar(steps * run.optim.batch, f"{metadata['start']['method']}: {note}")

    made = Classifier(start_of(out, job), len(train.classes), run)
    if run.synchronised and distributed.world_size() > 1:
        distributed.synchronise_batch_norm(made, device)
    if run.compute.compile_encoders:
        made.video_encoder.compile()
    fit(made, FrameTransform(), epochs, run.optim, run.compute, out, metadata, device, report)

"""Frozen encoders over a manifest, once: features on disk, from which all else is arithmetic.

Features are written as they come and read where they are, so a data set may be larger than
memory. Several encoders on the same clips share one reading of the videos.

Shapes: V videos, C clips of each, F features.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avnb.config import digest
from avnb.data.batch import Batch
from avnb.data.batch_transform import BatchTransform
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import AUTO, video_loader
from avnb.data.manifest import Manifest
from avnb.data.mel_statistics import mel_statistics
from avnb.evaluation.encoder_source import EncoderSource
from avnb.evaluation.feature_store import FeatureWriter, mapped, whole
from avnb.files import locked, tqdm
from avnb.models.specs import source_digest
from avnb.training import checkpoint

CLIPS_PER_FORWARD = 64


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of the clips of each video, with the labels of the videos.

    Those that `load` gives are mapped from the disk and must not be written to.
    """

    video: Tensor  # [V, C, F]
    audio: Tensor  # [V, C, F]; [V, C, 0] when none was wanted, or the encoder has no audio
    label: Tensor  # [V]


class FrozenEncoders(torch.nn.Module):
    """The encoders of a source with their transform, in evaluation mode.

    Where a source has no statistics of the mel bands, as untrained encoders, those of the
    `training` videos are taken, and a line says so.
    """

    def __init__(
        self, source: EncoderSource, training: Manifest | None = None, workers: int = AUTO
    ):
        super().__init__()
        self.source = source
        self.video_encoder, self.audio_encoder, metadata = source.load()
        statistics: Any = metadata.mel_statistics
        if statistics is None and training is not None and self.audio_encoder is not None:
            count = len(training.with_audio())
            origin = f"taken from {count} videos of {training.name}"
            print(f"{source.checkpoint} holds no mel band statistics: {origin}")
            statistics = mel_statistics(training, source.config, workers=workers)
        self.transform = BatchTransform(source.config, statistics)
        self.eval()

    def widths(self, *, audio: bool) -> dict[str, int]:
        """Features per clip of each modality."""
        width = self.audio_encoder.features if audio and self.audio_encoder is not None else 0
        return {"video": self.video_encoder.features, "audio": width}

    @torch.inference_mode()
    def encode(self, batch: Batch, *, audio: bool, at_once: int) -> dict[str, Tensor]:
        """Features of a batch on the CPU, `video` and `audio` [B, F], `at_once` clips at a time.

        `audio` is [B, 0] when no audio is wanted, or the encoder has none.

        Raises:
            ValueError: when the statistics of the mel bands are not known.
        """
        device = next(self.parameters()).device
        parts = []
        for part in batch.split(at_once):
            part = self.transform(part.to(device))
            a = part.label.new_empty(len(part), 0).float()
            if audio and self.audio_encoder is not None:
                if self.transform.audio is None:
                    raise ValueError("no mel band statistics: name the videos to take them from")
                a = self.audio_encoder(part.audio)
            parts.append((self.video_encoder(part.frames).cpu(), a.cpu()))
        video, waveform = (torch.cat(side) for side in zip(*parts, strict=True))
        return {"video": video, "audio": waveform}


def device() -> torch.device:
    """Where encoders run: the first GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def encode_all(
    frozen: FrozenEncoders,
    manifest: Manifest,
    sampling: Sampling,
    *,
    seed: int,
    workers: int = AUTO,
    at_once: int = CLIPS_PER_FORWARD,
    title: str = "features",
) -> Features:
    """Features of encoders that are in no file, in memory; arguments as of `extract`."""
    clips = VideoClips(manifest, sampling, seed=seed)
    block = max(1, at_once // sampling.count)
    loader = video_loader(clips, block, workers=workers)
    encoded = [
        frozen.encode(batch, audio=sampling.audio, at_once=at_once)
        for batch in tqdm(loader, title, -(-len(clips) // block), unit="batch")
    ]
    video, audio = (
        torch.cat([part[name] for part in encoded]).unflatten(0, (len(clips), -1)).clone()
        for name in ("video", "audio")
    )
    return Features(video=video, audio=audio, label=torch.tensor(clips.labels))


def training_part(manifest: Manifest) -> Manifest:
    """The training videos of the data set that `manifest` is a part of."""
    return Manifest.load(manifest.where).split("train")


def extract(
    sources: Sequence[EncoderSource],
    manifest: Manifest,
    sampling: Sampling,
    cache: Path,
    *,
    seed: int,
    workers: int = AUTO,
    at_once: int = CLIPS_PER_FORWARD,
    title: str = "features",
) -> list[Features]:
    """Features of every video under the encoders of each source, in their order.

    Every video is read once for all sources whose features are not there yet. They are kept in
    `cache`, in a folder per source, whose name is made of the encoders, the data and the
    sampling. An interrupted extraction resumes, to the same bytes.

    Args:
        sources: of the encoders.
        manifest: the videos.
        sampling: which clips are taken of each.
        cache: the folder of all features.
        seed: of the sampling.
        workers: decoding processes.
        at_once: clips per forward pass, at most; as many videos as that makes are encoded
            together.
        title: of the progress bar.

    Raises:
        CheckpointError: when a source's file is not a checkpoint.
        DecodeError: when a video of the manifest can no longer be read.
        OSError: when the disk has no room.
    """
    if not manifest.videos:
        raise ValueError(f"no video of {manifest.name} in {manifest.folder} can be used here")
    training = training_part(manifest) if sampling.audio else None
    keys = [key_of(source, manifest, training, sampling, seed) for source in sources]
    folders = [cache / f"{manifest.name}-{digest(key)}" for key in keys]
    with contextlib.ExitStack() as locks:
        for folder in sorted({f for f in folders if not whole(f)}):
            locks.enter_context(locked(folder))  # in one order everywhere: nobody waits in a circle
        left = {f: i for i, f in enumerate(folders) if not whole(f)}
        if left:
            dataset = VideoClips(manifest, sampling, seed=seed)
            block = max(1, at_once // sampling.count)
            pairs = []
            for folder, i in left.items():
                encoders = FrozenEncoders(sources[i], training, workers).to(device())
                pairs.append((encoders, writer_for(folder, encoders, dataset, block)))
            fill(pairs, dataset, block, workers=workers, at_once=at_once, title=title)
            for i, (_, writer) in zip(left.values(), pairs, strict=True):
                writer.finish(keys[i], label=torch.tensor(dataset.labels))
    return [load(folder) for folder in folders]


def key_of(
    source: EncoderSource,
    manifest: Manifest,
    training: Manifest | None,
    sampling: Sampling,
    seed: int,
) -> dict[str, Any]:
    """What the features of a source depend on."""
    return {
        "encoders": encoders_key(source),
        "data": manifest.digest,
        "training": training and training.digest,
        "sampling": sampling,
        "seed": seed,
        "format": checkpoint.FORMAT,
    }


def encoders_key(source: EncoderSource) -> list[Any]:
    """What the encoders of a source are made of."""
    backbone = source.config.backbone
    key: list[Any] = [backbone, source_digest(backbone)]
    if source.checkpoint is not None:
        stat = source.checkpoint.stat()
        key += [str(source.checkpoint.resolve()), stat.st_mtime_ns, stat.st_size]
    if source.mel_statistics is not None:
        key += source.mel_statistics
    return key


def writer_for(
    folder: Path, encoders: FrozenEncoders, dataset: VideoClips, block: int
) -> FeatureWriter:
    """Writes the features of one source, after what is there already."""
    widths = encoders.widths(audio=dataset.sampling.audio)
    shapes = {name: (dataset.sampling.count, width) for name, width in widths.items()}
    return FeatureWriter(folder, len(dataset), shapes, block)


def fill(
    pairs: Sequence[tuple[FrozenEncoders, FeatureWriter]],
    dataset: VideoClips,
    block: int,
    *,
    workers: int,
    at_once: int,
    title: str,
) -> None:
    """Read the videos that are missing somewhere, `block` at a time, and add their features."""
    sampling, begin = dataset.sampling, min(writer.done for _, writer in pairs)
    clips = video_loader(dataset, block, begin=begin, workers=workers)
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(dataset), initial=begin, desc=title, unit="video"))
        for _, writer in pairs:
            stack.enter_context(writer)
        row = begin
        for batch in clips:
            size = (len(batch) // sampling.count, sampling.count)
            for encoders, writer in pairs:
                if writer.done == row:  # others were interrupted later, and have this block
                    encoded = encoders.encode(batch, audio=sampling.audio, at_once=at_once)
                    writer.add({name: x.unflatten(0, size) for name, x in encoded.items()})
            row += size[0]
            bar.update(size[0])


def load(folder: Path) -> Features:
    """Features that `extract` has written, mapped: memory holds what is used."""
    label = torch.from_numpy(np.load(folder / "label.npy"))
    video, audio = (mapped(folder / f"{name}.npy") for name in ("video", "audio"))
    return Features(video=video, audio=audio, label=label)


# SHIM of the redesign: until this module holds them itself, names come from where they stand now.
_SHIM = [
    "avnb.evaluation.encoder_source",
    "avnb.evaluation.feature_store",
    "avnb.evaluation.probe_features",
    "avnb.evaluation.soundtracks",
]


def __getattr__(name: str) -> object:
    import importlib

    for module in _SHIM:
        found = importlib.import_module(module)
        if hasattr(found, name):
            return getattr(found, name)
    raise AttributeError(name)

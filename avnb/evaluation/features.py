"""Frozen encoders over a manifest, once: features on disk, from which all else is arithmetic.

Features are written as they come and read where they lie, so a data set may be larger than
memory. Several encoders that see the same clips share one reading of the videos.

Shapes: V videos, C clips of each, F features (8 * width).
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from avnb.config import Pretrain
from avnb.data.batch import Batch
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import ClipLoader, grouped, worth_starting
from avnb.data.manifest import Manifest
from avnb.data.transforms import AudioTransform, VideoTransform
from avnb.evaluation.feature_store import FeatureWriter, mapped, whole
from avnb.files import locked
from avnb.training import checkpoint, released
from avnb.training.pretraining import mel_statistics
from avnb.values import digest

CLIPS_AT_ONCE = 64  # in one forward pass


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of the clips of each video, with the labels of the videos.

    Those that `load` gives are mapped from the disk and must not be written to.
    """

    video: Tensor  # [V, C, F] of the pictures
    audio: Tensor  # [V, C, F] of the sounds; [V, C, 0] when none was wanted
    label: Tensor  # [V]


class Frozen(torch.nn.Module):
    """The encoders of a checkpoint with their views, in evaluation mode.

    A released checkpoint lacks the statistics that its sounds were standardised with. Those of
    the videos `heard` stand in for them; without such videos it can only see.
    """

    def __init__(self, path: Path, heard: Manifest | None = None, *, workers: int = 2):
        super().__init__()
        self.video_encoder, self.audio_encoder, self.metadata = released.encoders(path)
        self.run = Pretrain.from_flat(**self.metadata["run"])
        statistics = self.metadata["mel_statistics"]
        if statistics is None and heard is not None:
            count = len(heard.with_audio())
            print(f"{path} holds no mel band statistics: taken from {count} videos of {heard.name}")
            statistics = mel_statistics(heard, self.run, workers=workers)
        self.video_transform, self.audio_transform = VideoTransform(), None
        if statistics is not None:
            self.audio_transform = AudioTransform(self.run.clip, self.run.spectrogram, statistics)
        self.eval()

    def see(self, frames: Tensor) -> Tensor:
        """uint8 [B, 3, T, S, S] -> [B, F]."""
        return self.video_encoder(self.video_transform(frames))

    def hear(self, wave: Tensor) -> Tensor:
        """[B, N] -> [B, F]; ValueError when the statistics of the mel bands are not known."""
        if self.audio_transform is None:
            raise ValueError("no mel band statistics: name the videos to take them from (`heard`)")
        return self.audio_encoder(self.audio_transform(wave))

    @torch.inference_mode()
    def encode(self, batch: Batch, *, audio: bool, at_once: int) -> dict[str, Tensor]:
        """Features of a batch on the CPU, `video` and `audio` [B, F], `at_once` clips at a time.

        `audio` is [B, 0] when no sound is wanted.
        """
        device = next(self.parameters()).device
        found = []
        for part in batch.split(at_once):
            seen = part.to(device)
            heard = self.hear(seen.audio) if audio else seen.audio[:, :0]
            found.append((self.see(seen.frames).cpu(), heard.cpu()))
        video, heard_features = (torch.cat(side) for side in zip(*found, strict=True))
        return {"video": video, "audio": heard_features}


def device() -> torch.device:
    """Where encoders run: the first GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training_part(manifest: Manifest) -> Manifest:
    """The training videos of the data set that `manifest` is a part of."""
    return Manifest.load(manifest.where).split("train")


def extract(
    paths: Sequence[Path],
    manifest: Manifest,
    sampling: Sampling,
    cache: Path,
    *,
    seed: int,
    workers: int = 2,
    at_once: int = CLIPS_AT_ONCE,
    title: str = "features",
) -> list[Features]:
    """Features of every video under the encoders of each checkpoint, in the order of `paths`.

    Every video is read once for all checkpoints whose features are not there yet. They are kept
    in `cache`, in a folder a checkpoint, whose name is made of the checkpoint, the data and the
    sampling. An interrupted extraction goes on where it was, to the same bytes. Encoders are in
    evaluation mode: nothing in them changes. Where a checkpoint holds no statistics of the mel
    bands and sound is wanted, they are taken from the training videos of the data set, and a
    line says so.

    Args:
        paths: checkpoints, ours or released ones.
        manifest: the videos.
        sampling: which clips are taken of each.
        cache: the folder of all features.
        seed: of the sampling.
        workers: decoding processes.
        at_once: clips in one forward pass, at most; as many videos as that makes are encoded
            together.
        title: of the progress bar.

    Raises:
        CheckpointError: when a path is not a checkpoint.
        DecodeError: when a video of the manifest can no longer be read.
        OSError: when the disk has no room.
    """
    if not manifest.videos:
        raise ValueError(f"no video of {manifest.name} in {manifest.folder} can be used here")
    heard = training_part(manifest) if sampling.audio else None
    keys = {path: key_of(path, manifest, heard, sampling, seed) for path in paths}
    folders = {path: cache / f"{manifest.name}-{digest(key)}" for path, key in keys.items()}
    with contextlib.ExitStack() as held:
        for folder in sorted({f for f in folders.values() if not whole(f)}):
            held.enter_context(locked(folder))  # in one order everywhere: nobody waits in a circle
        left = {path: folder for path, folder in folders.items() if not whole(folder)}
        if left:
            dataset = VideoClips(manifest, sampling, seed=seed)
            frozen = {p: Frozen(p, heard, workers=workers).to(device()) for p in left}
            block = max(1, at_once // sampling.count)
            growing = [(frozen[p], grown(left[p], frozen[p], dataset, block)) for p in left]
            fill(growing, dataset, block, workers=workers, at_once=at_once, title=title)
            for path, (_, tensors) in zip(left, growing, strict=True):
                tensors.finish(keys[path], label=torch.tensor(dataset.labels))
    return [load(folders[path]) for path in paths]


def key_of(
    path: Path, manifest: Manifest, heard: Manifest | None, sampling: Sampling, seed: int
) -> dict[str, Any]:
    """What the features of a checkpoint depend on."""
    stat = path.stat()
    return {
        "checkpoint": [str(path.resolve()), stat.st_mtime_ns, stat.st_size],
        "data": manifest.digest,
        "heard": heard and heard.digest,
        "sampling": sampling,
        "seed": seed,
        "format": checkpoint.FORMAT,
    }


def grown(folder: Path, frozen: Frozen, dataset: VideoClips, block: int) -> FeatureWriter:
    """The tensors of one checkpoint, as far as they are there."""
    sampling = dataset.sampling
    width = {"video": frozen.video_encoder.features, "audio": frozen.audio_encoder.features}
    shapes = {
        name: (sampling.count, size if name == "video" or sampling.audio else 0)
        for name, size in width.items()
    }
    return FeatureWriter(folder, len(dataset), shapes, block)


def fill(
    growing: Sequence[tuple[Frozen, FeatureWriter]],
    dataset: VideoClips,
    block: int,
    *,
    workers: int,
    at_once: int,
    title: str,
) -> None:
    """Read the videos that are missing somewhere, `block` at a time, and add their features."""
    sampling, begin = dataset.sampling, min(tensors.done for _, tensors in growing)
    every = tuple(range(sampling.count))
    items = [(0, row, every) for row in range(begin, len(dataset))]
    clips = ClipLoader(dataset, items, workers=worth_starting(workers, len(items)))
    with contextlib.ExitStack() as held:
        bar = held.enter_context(tqdm(total=len(dataset), initial=begin, desc=title, unit="video"))
        for _, tensors in growing:
            held.enter_context(tensors)
        row = begin
        for batch in grouped(clips, block):
            size = (len(batch) // sampling.count, sampling.count)
            for frozen, tensors in growing:
                if tensors.done == row:  # others were interrupted later, and have this block
                    found = frozen.encode(batch, audio=sampling.audio, at_once=at_once)
                    tensors.add({name: x.unflatten(0, size) for name, x in found.items()})
            row += size[0]
            bar.update(size[0])


def load(folder: Path) -> Features:
    """Features that `extract` has made, mapped: memory holds what is looked at."""
    label = torch.from_numpy(np.load(folder / "label.npy"))
    return Features(
        video=mapped(folder / "video.npy"), audio=mapped(folder / "audio.npy"), label=label
    )

"""Clips: when they start, and batches of them, read from the store.

Shapes: B clips, T frames of S x S pixels, C clips of a video with V views each.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from avnb.config import Augment, Clip
from avnb.data import augment
from avnb.data.augment import AugmentParams, Crop, map_tensors, sample_params
from avnb.data.manifest import Manifest, Video
from avnb.data.store import EARLY_SECONDS, StoredVideo, stored_video


def audio_starts(
    video_starts: np.ndarray, seconds: float, clip: Clip, rng: np.random.Generator
) -> np.ndarray:
    """[C] starts of the audio, uniform over where it fits and lies near the frames.

    Near is, as in the thesis, a start within +- max_offset of that of the frames.
    """
    last, offset = max(seconds - clip.audio_seconds, 0.0), clip.max_offset_seconds
    around = (np.clip(video_starts + side, 0, last) for side in (-offset, offset))
    return rng.uniform(*around)


def second_view_starts(
    starts: np.ndarray,
    seconds: float,
    clip_seconds: float,
    distance: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """[C] starts of a second clip, a distance after the first.

    Past the video's end it goes on at the beginning. Distances that would bring the clip nearer
    than the lower bound that way are not drawn. Where no distance is left, the second clip is as
    far away as the video allows.
    """
    (least, most), last = distance, max(seconds - clip_seconds, 0.0)
    left = last - starts  # distances up to this stay in the video, longer ones wrap
    behind = np.clip(left - least, 0.0, most - least)
    wrap = np.maximum(left, least)
    wrapped = np.clip(min(most, last - least) - wrap, 0.0, None)
    place = rng.uniform(0.0, 1.0, len(starts)) * (behind + wrapped)
    second = starts + np.where(place < behind, least + place, wrap + place - behind)
    second = np.where(second > last, second - last, second)
    farthest = np.where(starts > left, 0.0, last)
    return np.where(behind + wrapped > 0, second, farthest)


def frame_numbers(starts: np.ndarray, clip: Clip, video: Video) -> np.ndarray:
    """[..., T] numbers of the frames shown in a clip; a video too short for it repeats."""
    times = np.mod(starts[..., None] + np.arange(clip.frames) / clip.video_fps, video.seconds)
    numbers = np.floor((times + EARLY_SECONDS) * video.fps).astype(int)
    return np.minimum(numbers, video.frames - 1)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B clips: uint8 frames and raw waveforms, or the network input made of them."""

    frames: Tensor  # [B, 3, T, S, S]; uint8 ones lie in memory as [B, T, S, S, 3]
    audio: Tensor  # [B, N] waveforms, or [B, 1, M, t] spectrograms; [B, 0] without audio
    params: AugmentParams | None = None
    second_view: Tensor | None = None  # [B, 3, T, S, S] of a second clip of each video
    second_params: AugmentParams | None = None
    label: Tensor  # [B]
    video_index: Tensor  # [B] row of the manifest
    step: int = 0  # steps of the run before this one
    offset: int = 0  # clips of the whole batch before these: of other processes or micro-batches

    def __len__(self) -> int:
        return len(self.video_index)

    def apply(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """The same batch with every tensor replaced by the function of it."""
        return map_tensors(function, self)

    def __getitem__(self, rows: slice) -> "Batch":
        return self.apply(lambda x: x[rows])

    def split(self, size: int) -> list["Batch"]:
        """Parts of `size` clips, in order."""
        begins = range(0, len(self), size)
        return [replace(self[b : b + size], offset=self.offset + b) for b in begins]

    def pin_memory(self) -> "Batch":
        """The same batch in memory from which a GPU copies without waiting."""
        return self.apply(Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device; only the jitter's order, which steers the code, stays."""
        moved = self.apply(lambda x: x.to(device, non_blocking=True))
        for name in ("params", "second_params"):
            if (params := getattr(self, name)) is not None:
                moved = replace(moved, **{name: replace(getattr(moved, name), order=params.order)})
        return moved


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which clips of a video are taken, and how they are cropped."""

    clip: Clip
    count: int  # clips a video
    crops: int = 1  # of each moment, side by side; `count` has them all
    place: Literal["random", "uniform"]
    augment: Augment | None = None  # None: the downstream crops of `resize_px`
    resize_px: int = 0
    interpolation: str = "bilinear"  # of `resize_px`
    random_crop: bool = False
    flip_prob: float = 0.0  # probability of a mirrored clip where there is no `augment`
    video: bool = True
    audio: bool = True
    second_view_seconds: tuple[float, float] | None = None  # distance of a second clip, if any


Place = tuple[int, int, int]  # an epoch, a row of the manifest, and which of the video's clips


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What is drawn for all clips of a video in an epoch; each of them asks for it."""

    starts: np.ndarray  # [C, V] seconds, of the frames
    audio_starts: np.ndarray  # [C] seconds
    crops: list[list[Crop]]  # of each view and clip
    params: list[AugmentParams | None]  # of each view


class VideoClips(Dataset[Batch]):
    """Item: a whole batch of clips, in shared memory where a worker of a DataLoader reads it.

    A clip is the same whichever others are read with it.
    """

    def __init__(self, manifest: Manifest, sampling: Sampling, *, seed: int):
        self.manifest, self.sampling, self.seed = manifest, sampling, seed
        self.labels = manifest.labels
        self.draw = functools.lru_cache(4096)(self.draw)  # type: ignore[method-assign]

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.manifest)

    def crop(self, video: Video, number: int, rng: np.random.Generator) -> Crop:
        """The crop of the clip of this number, the same for all its frames."""
        s = self.sampling
        if s.augment is not None:
            height, width, px = video.height, video.width, s.clip.frame_px
            return augment.random_resized_crop(height, width, px, s.augment, rng)
        across = number % s.crops / (s.crops - 1) if s.crops > 1 else 0.5
        drawn_by = rng if s.random_crop else None
        crop = augment.square_crop(s.resize_px, s.clip.frame_px, drawn_by, across)
        mirrored = bool(s.flip_prob) and rng.random() < s.flip_prob
        return replace(crop, mirrored=mirrored, interpolation=s.interpolation)

    def starts(self, seconds: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Start times of all clips: [C, V] of the frames of V views, [C] of the audio.

        They lie where the whole clip fits, from the beginning to the end; at 0 where it never does.
        """
        s, clip = self.sampling, self.sampling.clip
        audio_seconds = clip.audio_seconds - clip.max_offset_seconds if s.audio else 0.0
        last = max(seconds - max(clip.video_seconds, audio_seconds), 0.0)
        moments, is_random = s.count // s.crops, s.place == "random"
        first = rng.uniform(0, last, moments) if is_random else np.linspace(0, last, moments)
        first = first.repeat(s.crops)
        views, audio = [first], audio_starts(first, seconds, clip, rng)
        if s.second_view_seconds:
            distance = s.second_view_seconds
            views += [second_view_starts(first, seconds, clip.video_seconds, distance, rng)]
        return np.stack(views, axis=1), audio

    def draw(self, epoch: int, index: int) -> Draw:
        """Times, crops and augmentation of all clips of a video in an epoch."""
        s, video = self.sampling, self.manifest.videos[index]
        rng = np.random.default_rng([self.seed, epoch, index])
        starts, heard = self.starts(video.seconds, rng)
        count, views = starts.shape
        crops = [[self.crop(video, i, rng) for i in range(count)] for _ in range(views)]
        params: list[AugmentParams | None] = [None] * views
        if s.augment is not None:
            params = [sample_params(s.augment, count, rng) for _ in range(views)]
        return Draw(starts=starts, audio_starts=heard, crops=crops, params=params)

    def __getitem__(self, places: Sequence[Place]) -> Batch:
        """The clips at these places, in their order."""
        clips = list[Batch]()
        for (epoch, index), group in itertools.groupby(places, key=lambda place: place[:2]):
            clips += self.read(epoch, index, [clip for _, _, clip in group])
        return map_tensors(collated, *clips)

    def whole(self, row: int, epoch: int = 0) -> Batch:
        """All clips of one video."""
        return self[[(epoch, row, clip) for clip in range(self.sampling.count)]]

    def read(self, epoch: int, index: int, wanted: list[int]) -> Iterator[Batch]:
        """Clips of a video, each as the tensors of a batch without their first dimension."""
        s, video = self.sampling, self.manifest.videos[index]
        drawn = self.draw(epoch, index)  # of all clips, so that none depends on which are read
        numbers = frame_numbers(drawn.starts, s.clip, video)  # [C, V, T]
        views = [torch.empty(3, 0, s.clip.frame_px, s.clip.frame_px, dtype=torch.uint8)]
        audio = np.zeros(0, np.float32)
        with stored_video(self.manifest.path(video)) as file:
            images = file.frames(numbers[wanted]) if s.video else {}
            for clip in wanted:
                if s.video:
                    shown = [[images[n] for n in view] for view in numbers[clip].tolist()]
                    views = [crops[clip](x) for crops, x in zip(drawn.crops, shown, strict=True)]
                if s.audio:
                    audio = wrapped_audio(file, drawn.audio_starts[clip], s.clip, video.seconds)
                params = [map_tensors(lambda x, clip=clip: x[clip], p) for p in drawn.params]
                yield Batch(
                    frames=views[0],
                    audio=torch.from_numpy(audio),
                    params=params[0],
                    second_view=views[1] if s.second_view_seconds else None,
                    second_params=params[1] if s.second_view_seconds else None,
                    label=torch.tensor(self.labels[index]),
                    video_index=torch.tensor(index),
                )


def collated(*clips: Tensor) -> Tensor:
    """Stack tensors, in shared memory where a worker of a DataLoader asks; frames channels last."""
    if not clips[0].numel():
        return torch.stack(clips)  # memory of no size cannot be shared
    if clips[0].ndim < 4:
        return default_collate([*clips])
    return default_collate([x.permute(1, 2, 3, 0) for x in clips]).permute(0, 4, 1, 2, 3)


def wrapped_audio(file: StoredVideo, start: float, clip: Clip, seconds: float) -> np.ndarray:
    """[N] of a clip from `start` seconds on; past the video's end it goes on at the beginning."""
    hz, count, length = clip.audio_hz, clip.samples, max(round(seconds * clip.audio_hz), 1)
    first = min(round(start * hz), length - 1)
    if first + count <= length:
        return file.audio(first, count, hz)
    return file.audio(0, length, hz)[(first + np.arange(count)) % length]

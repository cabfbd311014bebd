"""The clips of a video, read in one pass over its file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from avnb.config import Augment, Clip
from avnb.data import clip_times, decoding, transforms
from avnb.data.batch import Batch
from avnb.data.manifest import Manifest, Video
from avnb.data.transforms import AugmentParams, Crop, map_tensors, sample_params
from avnb.data.video_frames import DecodeError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which clips of a video are taken, and how they are cropped."""

    clip: Clip
    count: int  # clips a video
    place: Literal["random", "uniform"]
    augment: Augment | None = None  # None: the downstream crops of `resize_px`
    resize_px: int = 0
    interpolation: str = "bilinear"  # of `resize_px`
    random_crop: bool = False
    flip_prob: float = 0.0  # probability of a mirrored clip where there is no `augment`
    video: bool = True
    audio: bool = True
    second_view_seconds: tuple[float, float] | None = None  # distance of a second clip, if any


Item = tuple[int, int, tuple[int, ...]]  # epoch, row of the manifest, which of its clips


class VideoClips:
    """Item (epoch, row, clips) is a Batch of these clips of the video, read in one pass.

    A clip is the same whichever others are read with it.
    """

    def __init__(self, manifest: Manifest, sampling: Sampling, *, seed: int):
        self.manifest, self.sampling, self.seed = manifest, sampling, seed
        self.labels = manifest.labels

    def __len__(self) -> int:
        return len(self.manifest)

    def crop(self, height: int, width: int, rng: np.random.Generator) -> Crop:
        """One clip's crop, the same for all its frames."""
        s = self.sampling
        if s.augment is not None:
            return transforms.random_resized_crop(height, width, s.clip.frame_px, s.augment, rng)
        crop = transforms.square_crop(s.resize_px, s.clip.frame_px, rng if s.random_crop else None)
        mirrored = bool(s.flip_prob) and rng.random() < s.flip_prob
        return replace(crop, mirrored=mirrored, interpolation=s.interpolation)

    def whole(self, row: int, epoch: int = 0) -> Batch:
        """All clips of one video."""
        return self[epoch, row, tuple(range(self.sampling.count))]

    def starts(self, seconds: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Start times of all clips: [C, V] of the frames of V views, [C] of the audio."""
        s, clip = self.sampling, self.sampling.clip
        length = clip_times.required_seconds(clip) if s.audio else clip.video_seconds
        if s.place == "random":
            first = clip_times.random_starts(seconds, length, s.count, rng)
        else:
            first = clip_times.uniform_starts(seconds, length, s.count)
        audio = clip_times.audio_starts(first, seconds, clip, rng)
        if s.second_view_seconds is None:
            return first[:, None], audio
        second = clip_times.second_view_starts(
            first, seconds, clip.video_seconds, s.second_view_seconds, rng
        )
        return np.stack([first, second], axis=1), audio

    def empty(self, clips: int) -> Batch:
        """A batch with room for so many clips."""
        s, clip = self.sampling, self.sampling.clip
        frames, px = clip.frames if s.video else 0, clip.frame_px
        views = [
            torch.empty(clips, frames, px, px, 3, dtype=torch.uint8).permute(0, 4, 1, 2, 3)
            for _ in range(2 if s.second_view_seconds else 1)
        ]
        params = [AugmentParams.empty(s.augment, clips) if s.augment else None for _ in views]
        return Batch(
            frames=views[0],
            audio=torch.empty(clips, clip.samples if s.audio else 0),
            params=params[0],
            second_view=views[1] if len(views) == 2 else None,
            second_params=params[1] if len(views) == 2 else None,
            label=torch.empty(clips, dtype=torch.long),
            video_index=torch.empty(clips, dtype=torch.long),
        )

    def __getitem__(self, item: Item) -> Batch:
        batch = self.empty(len(item[2]))
        self.read(item, batch, range(len(batch)))
        return batch

    def draw(self, epoch: int, index: int) -> "Draw":
        """Times, crops and augmentation of all clips of a video in an epoch."""
        s, video = self.sampling, self.manifest.videos[index]
        rng = np.random.default_rng([self.seed, epoch, index])
        starts, audio_starts = self.starts(video.seconds, rng)
        count, views = starts.shape
        crops = [
            [self.crop(video.height, video.width, rng) for _ in range(count)] for _ in range(views)
        ]
        params: list[AugmentParams | None] = [None] * views
        if s.augment is not None:
            params = [sample_params(s.augment, count, rng) for _ in range(views)]
        return Draw(starts=starts, audio_starts=audio_starts, crops=crops, params=params)

    def read(self, item: Item, batch: Batch, rows: Sequence[int]) -> None:
        """Read the clips of an item, each into a row of a batch that `empty` made.

        Raises:
            DecodeError: when the file cannot be read, or has another size than the audit found.
        """
        epoch, index, clips = item
        clip, video = self.sampling.clip, self.manifest.videos[index]
        drawn = self.draw(epoch, index)  # of all clips, so that none depends on which are read
        buffers = []
        for row, c in zip(rows, clips, strict=True):
            batch.label[row], batch.video_index[row] = self.labels[index], index
            for view, (frames, room) in enumerate(batch.views):
                buffers.append(ClipBuffer(drawn.crops[view][c], frames[row], video))
                params = drawn.params[view]
                map_tensors(lambda to, x, row=row, c=c: to[row].copy_(x[c]), room, params)
        firsts = drawn.starts[[*clips]].ravel() if self.sampling.video else np.zeros(0)
        audio = decoding.read(
            self.manifest.path(video),
            clip_times.frame_times(firsts, clip, video.seconds).ravel(),
            lambda i, image: buffers[i // clip.frames].add(i % clip.frames, image),
            seconds=video.seconds,
            start=video.start,
            audio_starts=drawn.audio_starts[[*clips]] if self.sampling.audio else None,
            samples=clip.samples,
            hz=clip.audio_hz,
        )
        if audio is not None:
            batch.audio[[*rows]] = torch.from_numpy(audio)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What is drawn for the C clips of a video, each with V views."""

    starts: np.ndarray  # [C, V] seconds, of the frames
    audio_starts: np.ndarray  # [C] seconds
    crops: list[list[Crop]]  # of each view and clip
    params: list[AugmentParams | None]  # of each view


class ClipBuffer:
    """Collects the frames of a clip; when all are there, they are resized in one call.

    Frames that come again, because the file was read again, replace those that came before.

    Args:
        crop: of the clip.
        target: [3, T, S, S] uint8, where they go.
        video: that they are of.
    """

    def __init__(self, crop: Crop, target: Tensor, video: Video):
        self.crop, self.target, self.video = crop, target, video
        self.missing = {*range(target.shape[1])}
        self.parts = np.zeros(0, np.uint8)

    def add(self, time: int, image: np.ndarray) -> None:
        """Frame [H, W, 3] number `time`."""
        found, audited = image.shape[1::-1], (self.video.width, self.video.height)
        if found != audited:
            raise DecodeError(Path(self.video.path), f"has frames of {found} pixels, not {audited}")
        part = self.crop.cut(image)
        if not self.missing:  # the file is read again
            self.missing = {*range(self.target.shape[1])}
        if not self.parts.size:
            self.parts = np.empty((len(self.missing), *part.shape), np.uint8)  # [T, h, w, 3]
        self.parts[time] = part
        self.missing.discard(time)
        if not self.missing:
            frames = self.crop.fit(torch.from_numpy(self.parts).permute(0, 3, 1, 2))
            self.target.copy_(frames.transpose(0, 1))
            self.parts = np.zeros(0, np.uint8)  # the memory is free again

"""The clips of a video, read in one pass over its file."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from avnb.config import Augment, Clip
from avnb.data import clip_times, decoding, transforms
from avnb.data.batch import Batch
from avnb.data.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which clips of a video are taken, and how they are cropped."""

    clip: Clip
    count: int  # clips a video
    place: Literal["random", "uniform"]
    augment: Augment | None = None  # None: the downstream crops of `resize_px`
    resize_px: int = 0
    random_crop: bool = False
    flip_prob: float = 0.0  # of the clips without `augment` are mirrored
    audio: bool = True
    second_view_seconds: tuple[float, float] | None = (
        None  # a second clip of the video, so far away
    )


Item = tuple[int, int, tuple[int, ...]]  # epoch, row of the manifest, which of its clips


class VideoClips(Dataset[Batch]):
    """Item (epoch, row, clips) is a Batch of these clips of the video, read in one pass.

    A clip is the same whichever others are read with it.
    """

    def __init__(self, manifest: Manifest, sampling: Sampling, *, seed: int):
        self.manifest, self.sampling, self.seed = manifest, sampling, seed
        self.labels = manifest.labels

    def __len__(self) -> int:
        return len(self.manifest)

    def crop(self, height: int, width: int, rng: np.random.Generator) -> transforms.Crop:
        """One clip's crop, the same for all its frames."""
        s = self.sampling
        if s.augment is not None:
            return transforms.random_resized_crop(height, width, s.clip.frame_px, s.augment, rng)
        crop = transforms.square_crop(s.resize_px, s.clip.frame_px, rng if s.random_crop else None)
        return replace(crop, mirrored=rng.random() < s.flip_prob) if s.flip_prob else crop

    def whole(self, row: int, epoch: int = 0) -> Batch:
        """All clips of one video."""
        return self[epoch, row, tuple(range(self.sampling.count))]

    def cuts(
        self, seconds: float, rng: np.random.Generator
    ) -> tuple[clip_times.np.ndarray, clip_times.np.ndarray]:
        """Where the clips of a video start: [C, V] pictures of V views, and [C] sounds."""
        s, clip = self.sampling, self.sampling.clip
        takes = clip.video_seconds
        if s.audio:
            takes = clip_times.room(takes, clip.audio_seconds, clip.max_offset_seconds)
        if s.place == "random":
            starts = clip_times.random_starts(seconds, takes, s.count, rng)
        else:
            starts = clip_times.uniform_starts(seconds, takes, s.count)
        heard = clip_times.audio_starts(
            starts, seconds, clip.audio_seconds, clip.max_offset_seconds, rng
        )
        if s.second_view_seconds is None:
            return starts[:, None], heard
        second_view = clip_times.second_view_starts(
            starts, seconds, clip.video_seconds, s.second_view_seconds, rng
        )
        return np.stack([starts, second_view], axis=1), heard

    def __getitem__(self, item: Item) -> Batch:
        epoch, row, wanted = item
        s, video = self.sampling, self.manifest.videos[row]
        clip, rng = s.clip, np.random.default_rng([self.seed, epoch, row])
        starts, heard = self.cuts(video.seconds, rng)
        count, seen = starts.shape
        crops = [self.crop(video.height, video.width, rng) for _ in range(count * seen)]
        params = [
            transforms.draw(s.augment, count, rng) if s.augment is not None else None
            for _ in range(seen)
        ]
        chosen = np.array(wanted)
        times = clip_times.frame_times(
            starts[chosen].ravel(), clip.frames, clip.video_fps, video.seconds
        )
        size = (len(wanted) * seen, clip.frames, 3, clip.frame_px, clip.frame_px)
        frames = torch.empty(size, dtype=torch.uint8)

        def take(index: int, picture: clip_times.np.ndarray) -> None:
            which, at = divmod(index, clip.frames)
            crop = crops[wanted[which // seen] + count * (which % seen)]
            frames[which, at] = crop(torch.from_numpy(picture).permute(2, 0, 1))

        audio = decoding.read(
            self.manifest.path(video),
            times.ravel(),
            take,
            seconds=video.seconds,
            start=video.start,
            audio_starts=heard[chosen] if s.audio else None,
            samples=clip.samples,
            hz=clip.audio_hz,
        )
        pictures = frames.transpose(1, 2)  # [C V, 3, T, S, S]
        kept = [None if d is None else d[torch.from_numpy(chosen)] for d in params]
        return Batch(
            frames=pictures[::seen],
            audio=torch.zeros(len(wanted), 0) if audio is None else torch.from_numpy(audio),
            video=torch.full((len(wanted),), row),
            label=torch.full((len(wanted),), self.labels[row]),
            params=kept[0],
            second_view=pictures[1::2] if seen == 2 else None,
            second_params=kept[1] if seen == 2 else None,
        )

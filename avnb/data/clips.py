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
    flip_prob: float = 0.0  # probability of a mirrored clip where there is no `augment`
    audio: bool = True
    second_view_seconds: tuple[float, float] | None = None  # distance of a second clip, if any


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

    def __getitem__(self, item: Item) -> Batch:
        epoch, row, selected = item
        s, video = self.sampling, self.manifest.videos[row]
        clip, rng = s.clip, np.random.default_rng([self.seed, epoch, row])
        # Drawn for all clips, so that none depends on which of them are read.
        starts, audio_starts = self.starts(video.seconds, rng)
        count, views = starts.shape
        crops = [self.crop(video.height, video.width, rng) for _ in range(count * views)]
        params: list[transforms.AugmentParams | None] = [None] * views
        if s.augment is not None:
            params = [transforms.sample_params(s.augment, count, rng) for _ in range(views)]
        rows = list(selected)
        times = clip_times.frame_times(starts[rows].ravel(), clip, video.seconds)
        shape = (*times.shape, 3, clip.frame_px, clip.frame_px)
        frames = torch.empty(shape, dtype=torch.uint8)  # [C V, T, 3, S, S]

        def store(index: int, image: np.ndarray) -> None:
            which, time = divmod(index, clip.frames)
            crop = crops[rows[which // views] + count * (which % views)]
            frames[which, time] = crop(torch.from_numpy(image).permute(2, 0, 1))

        audio = decoding.read(
            self.manifest.path(video),
            times.ravel(),
            store,
            seconds=video.seconds,
            start=video.start,
            audio_starts=audio_starts[rows] if s.audio else None,
            samples=clip.samples,
            hz=clip.audio_hz,
        )
        frames = frames.transpose(1, 2)
        selected_params = [None if p is None else p[rows] for p in params]
        size = (len(rows),)
        return Batch(
            frames=frames[::views],
            audio=torch.zeros(*size, 0) if audio is None else torch.from_numpy(audio),
            params=selected_params[0],
            second_view=frames[1::2] if views == 2 else None,
            second_params=selected_params[1] if views == 2 else None,
            label=torch.full(size, self.labels[row]),
            video_index=torch.full(size, row),
        )

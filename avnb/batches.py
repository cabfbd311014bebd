"""From a manifest to batches: clips are cut, read and cropped in workers, then mixed.

A plan, drawn before anything is read, says which clips make up each batch: all clips of an epoch,
shuffled. It depends on seed and epoch alone, so any number of processes sees the same batches
and an interrupted epoch can be repeated exactly. A reading of a file gives all clips of it that
are due soon.
"""

import itertools
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from avnb import clips, decode, views
from avnb.config import Augment, Clip
from avnb.guard import die_with_parent
from avnb.videos import Manifest

Plan = list[list[tuple[int, int]]]  # for each step, for each row: video and which of its clips


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which clips of a video are taken, and how they are cropped."""

    clip: Clip
    count: int  # clips a video
    place: Literal["random", "uniform"]
    augment: Augment | None = None  # None: the downstream crops of `resize_px`
    resize_px: int = 0
    random_crop: bool = False
    flip_share: float = 0.0  # of the clips without `augment` are mirrored
    sound: bool = True
    apart_seconds: tuple[float, float] | None = None  # a second clip of the video, so far away


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B clips. Frames are uint8 and sound is raw until `views` have looked at them."""

    frames: Tensor  # [B, 3, T, S, S]
    sound: Tensor  # [B, N] raw, or [B, 1, M, t] as a spectrogram; [B, 0] when none is wanted
    video: Tensor  # [B] row of the manifest
    label: Tensor  # [B]
    draws: views.Draws | None = None
    partner: Tensor | None = None  # [B, 3, T, S, S] of a second clip of each video
    partner_draws: views.Draws | None = None
    step: int = 0  # steps of the run before this one
    first: int = 0  # clips of the whole batch before these: of other processes, or of other parts

    def __post_init__(self) -> None:
        sizes = {
            f.name: len(value) for f in fields(self) if (value := self.tensor(f.name)) is not None
        }
        if len(set(sizes.values())) != 1 or self.frames.ndim != 5 or self.frames.shape[1] != 3:
            raise ValueError(f"a batch of {sizes} with frames {tuple(self.frames.shape)}")

    def tensor(self, name: str) -> Tensor | None:
        """The field's value if it is a tensor."""
        value = getattr(self, name)
        return value if isinstance(value, Tensor) else None

    def __len__(self) -> int:
        return len(self.video)

    def apply(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The same batch with every tensor changed."""
        changed: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                changed[f.name] = change(value)
            elif isinstance(value, views.Draws):
                changed[f.name] = value.apply(change)
        return replace(self, **changed)

    def split(self, size: int) -> list["Batch"]:
        """Parts of `size` clips, in order."""
        return [
            replace(self.apply(lambda x, at=at: x[at : at + size]), first=self.first + at)  # type: ignore[misc]
            for at in range(0, len(self), size)
        ]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device; only the order of draws stays, which steers the code."""
        moved = self.apply(lambda x: x.to(device, non_blocking=True))
        kept = {
            name: replace(new, order=old.order)
            for name in ("draws", "partner_draws")
            if (old := getattr(self, name)) is not None
            and (new := getattr(moved, name)) is not None
        }
        return replace(moved, **kept)

    @classmethod
    def stack(cls, rows: list[tuple["Batch", int]], **where: int) -> "Batch":
        """One batch of the given clips of the given batches."""
        found: dict[str, Any] = {}
        for f in fields(cls):
            values = [getattr(one, f.name) for one, _ in rows]
            if isinstance(values[0], Tensor):
                found[f.name] = torch.stack(
                    [v[at] for v, (_, at) in zip(values, rows, strict=True)]
                )
            elif isinstance(values[0], views.Draws):
                one = [v[at : at + 1] for v, (_, at) in zip(values, rows, strict=True)]
                found[f.name] = views.Draws.stack(one)
        return cls(**{**found, **where})


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

    def crop(self, height: int, width: int, rng: np.random.Generator) -> views.Crop:
        """One clip's crop, the same for all its frames."""
        s = self.sampling
        if s.augment is not None:
            return views.random_resized_crop(height, width, s.clip.frame_px, s.augment, rng)
        crop = views.square_crop(s.resize_px, s.clip.frame_px, rng if s.random_crop else None)
        return replace(crop, mirrored=rng.random() < s.flip_share) if s.flip_share else crop

    def whole(self, row: int, epoch: int = 0) -> Batch:
        """All clips of one video."""
        return self[epoch, row, tuple(range(self.sampling.count))]

    def cuts(self, seconds: float, rng: np.random.Generator) -> tuple[clips.Array, clips.Array]:
        """Where the clips of a video start: [C, V] pictures of V views, and [C] sounds."""
        s, clip = self.sampling, self.sampling.clip
        takes = clip.picture_seconds
        if s.sound:
            takes = clips.room(takes, clip.sound_seconds, clip.max_offset_seconds)
        if s.place == "random":
            starts = clips.random_starts(seconds, takes, s.count, rng)
        else:
            starts = clips.uniform_starts(seconds, takes, s.count)
        heard = clips.sound_starts(
            starts, seconds, clip.sound_seconds, clip.max_offset_seconds, rng
        )
        if s.apart_seconds is None:
            return starts[:, None], heard
        partner = clips.partner_starts(starts, seconds, clip.picture_seconds, s.apart_seconds, rng)
        return np.stack([starts, partner], axis=1), heard

    def __getitem__(self, item: Item) -> Batch:
        epoch, row, wanted = item
        s, video = self.sampling, self.manifest.videos[row]
        clip, rng = s.clip, np.random.default_rng([self.seed, epoch, row])
        starts, heard = self.cuts(video.seconds, rng)
        count, seen = starts.shape
        crops = [self.crop(video.height, video.width, rng) for _ in range(count * seen)]
        draws = [
            views.draw(s.augment, count, rng) if s.augment is not None else None
            for _ in range(seen)
        ]
        chosen = np.array(wanted)
        times = clips.frame_times(
            starts[chosen].ravel(), clip.frames, clip.picture_fps, video.seconds
        )
        size = (len(wanted) * seen, clip.frames, 3, clip.frame_px, clip.frame_px)
        frames = torch.empty(size, dtype=torch.uint8)

        def take(index: int, picture: clips.Array) -> None:
            which, at = divmod(index, clip.frames)
            crop = crops[wanted[which // seen] + count * (which % seen)]
            frames[which, at] = crop(torch.from_numpy(picture).permute(2, 0, 1))

        sound = decode.read(
            self.manifest.path(video), times.ravel(), take, seconds=video.seconds,
            start=video.start,
            sound_starts=heard[chosen] if s.sound else None, samples=clip.samples,
            hz=clip.sound_hz,
        )  # fmt: skip
        pictures = frames.transpose(1, 2)  # [C V, 3, T, S, S]
        kept = [None if d is None else d[torch.from_numpy(chosen)] for d in draws]
        return Batch(
            frames=pictures[::seen],
            sound=torch.zeros(len(wanted), 0) if sound is None else torch.from_numpy(sound),
            video=torch.full((len(wanted),), row),
            label=torch.full((len(wanted),), self.labels[row]),
            draws=kept[0],
            partner=pictures[1::2] if seen == 2 else None,
            partner_draws=kept[1] if seen == 2 else None,
        )


def start_worker(number: int) -> None:
    """A loader's worker computes with one thread and does not outlive its process.

    What a cluster signals to a job before its end is for that process to answer.
    """
    die_with_parent()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    torch.set_num_threads(1)


def worth_starting(workers: int, videos: int) -> int:
    """How many of `workers` pay: starting one costs seconds, reading a video milliseconds."""
    return min(workers, videos // 256)


class Arrivals:
    """Batches of one video each, in the order of `items`, read ahead by `workers` processes.

    What a worker sends lies in shared memory, one open file a tensor; held batches would use up
    the process's files, so each is copied as it comes.
    """

    def __init__(self, dataset: VideoClips, items: Iterable[Item], *, workers: int):
        self.batches: DataLoader[Batch] = DataLoader(
            dataset, batch_size=None, sampler=items, num_workers=workers,
            worker_init_fn=start_worker, prefetch_factor=4 if workers else None,
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            yield batch.apply(Tensor.clone) if self.batches.num_workers else batch


def grouped(arriving: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Batches of one video each, `size` of them put together."""
    several = iter(arriving)
    while held := list(itertools.islice(several, size)):
        yield Batch.stack([(one, row) for one in held for row in range(len(one))])


# ---- the plan of an epoch ---------------------------------------------------------------------


class Batching(Protocol):
    """How many there are, and the batches they consist of."""

    @property
    def epochs(self) -> int:
        """Of the whole run."""

    @property
    def batch(self) -> int:
        """Clips a step over all processes."""

    @property
    def shards(self) -> int:
        """Parts of a batch."""


class Planned(Protocol):
    """The values of a run that say which clips make up which batch."""

    @property
    def seed(self) -> int:
        """Of all that is drawn."""

    @property
    def clips_per_video(self) -> int:
        """An epoch."""

    @property
    def window_steps(self) -> int:
        """Clips due within so many steps come out of one pass over a file."""

    @property
    def optim(self) -> Batching:
        """Epochs and batches."""


def epoch_plan(videos: int, run: Planned, epoch: int) -> Plan:
    """The batches of one epoch over all processes; rows of one shard stand together.

    A shard has its own videos in each epoch, and all their clips are shuffled. They must not
    come in bursts: a bank's row that was moved a few steps ago lies close to everything that
    is embedded now, and a network can tell fresh rows from stale ones without learning
    anything about videos.
    """
    rng, shards = np.random.default_rng([run.seed, epoch]), run.optim.shards
    order, each, size = rng.permutation(videos), run.clips_per_video, run.optim.batch // shards
    parts = []
    for shard in range(shards):
        mine = order[shard::shards][: videos // shards]
        dealt = rng.permutation(len(mine) * each)
        rows = [(int(mine[i // each]), int(i % each)) for i in dealt]
        parts.append([rows[at : at + size] for at in range(0, len(rows) - size + 1, size)])
    return [[row for part in step for row in part] for step in zip(*parts, strict=True)]


def steps_per_epoch(videos: int, run: Planned) -> int:
    """Steps of every epoch; ValueError when the videos do not fill one batch."""
    shards = run.optim.shards
    steps = videos // shards * run.clips_per_video // (run.optim.batch // shards)
    if steps == 0:
        raise ValueError(
            f"{videos} videos x {run.clips_per_video} clips do not fill one batch of "
            f"{run.optim.batch}: lower `batch`, or raise `clips_per_video`"
        )
    return steps


def readings(plan: Plan, window: int) -> list[tuple[int, tuple[int, ...]]]:
    """Which clips each reading of a video gives, in the order in which they are needed.

    A video is opened when a clip of it is due; clips due within `window` steps after it come
    out of the same pass, later ones out of another. The window trades memory for decoding and
    changes nothing else.
    """
    due: dict[int, list[tuple[int, int]]] = {}
    for step, rows in enumerate(plan):
        for video, clip in rows:
            due.setdefault(video, []).append((step, clip))
    found, held = [], set[tuple[int, int]]()
    for step, rows in enumerate(plan):
        for video, clip in rows:
            if (video, clip) not in held:
                now = tuple(c for at, c in due[video] if step <= at <= step + window)
                held.update((video, c) for c in now)
                found.append((video, now))
    return found


class Stream(Sampler[Item]):
    """What this process needs to read, in order, over all epochs to come."""

    def __init__(self, plans: Callable[[int], Plan], epochs: range, window: int):
        self.plans, self.epochs, self.window = plans, epochs, window

    def __iter__(self) -> Iterator[Item]:
        for epoch in self.epochs:
            for video, clips_wanted in readings(self.plans(epoch), self.window):
                yield epoch, video, clips_wanted


def training_epochs(
    dataset: VideoClips, run: Planned, done: int, *, rank: int, processes: int, workers: int
) -> Iterator[tuple[int, Iterator[Batch]]]:
    """Each epoch after `done` steps, with what is left of this process's part of its batches.

    Workers are started once and read ahead over the end of an epoch.
    """
    size, steps = run.optim.batch // processes, steps_per_epoch(len(dataset), run)
    first, skip = divmod(done, steps)

    def plan(epoch: int) -> Plan:
        whole = epoch_plan(len(dataset), run, epoch)[skip if epoch == first else 0 :]
        return [rows[rank * size : (rank + 1) * size] for rows in whole]

    epochs = range(first, run.optim.epochs)
    arriving = iter(Arrivals(dataset, Stream(plan, epochs, run.window_steps), workers=workers))
    for epoch in epochs:
        parts = plan(epoch)
        yield (
            epoch,
            planned_batches(
                arriving, parts, run.window_steps, (epoch + 1) * steps - len(parts), rank * size
            ),
        )


def planned_batches(
    arriving: Iterator[Batch], plan: Plan, window: int, first_step: int, first: int
) -> Iterator[Batch]:
    """Put the arriving clips together as planned; each is held until its step and no longer."""
    reads = iter(readings(plan, window))
    held: dict[tuple[int, int], tuple[Batch, int]] = {}
    for step, rows in enumerate(plan):
        for row in rows:
            if row not in held:
                video, clips_read = next(reads)
                batch = next(arriving)
                held.update({(video, c): (batch, i) for i, c in enumerate(clips_read)})
        yield Batch.stack([held.pop(row) for row in rows], step=first_step + step, first=first)

"""Which clips make up each batch of an epoch, drawn before anything is read."""

from typing import Protocol

import numpy as np

BatchPlan = list[list[tuple[int, int]]]  # for each step, for each row: video and which of its clips


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


def epoch_plan(videos: int, run: Planned, epoch: int) -> BatchPlan:
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


def read_groups(plan: BatchPlan, window: int) -> list[tuple[int, tuple[int, ...]]]:
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

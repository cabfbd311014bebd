"""Which clips make up each batch of an epoch, drawn before anything is read."""

import numpy as np

from avnb.config import Finetune, Pretrain

BatchPlan = list[list[tuple[int, int]]]  # for each step and row: the video, and which of its clips
Place = tuple[int, int, int]  # a clip of a video, its step, and its row in the batch
Training = Pretrain | Finetune


def epoch_plan(videos: int, run: Training, epoch: int) -> BatchPlan:
    """The batches of one epoch over all processes; rows of one shard are adjacent.

    Each shard has its own videos in each epoch, and all their clips are shuffled. Clips of a
    video must not come in bursts: a row of a memory bank that was updated a few steps ago lies
    close to everything that is embedded now, and a network can tell fresh rows from stale ones
    without learning anything about videos.

    With `shuffle_steps`, the clips of a video are spread evenly over so many steps instead of over
    the epoch, so that one pass over its file gives them all if as many batches fit the memory
    (`read_ahead_gb`). All but the first then meet a row that was updated in that time.
    """
    rng, shards = np.random.default_rng([run.seed, epoch]), run.optim.shards
    order, each, size = rng.permutation(videos), run.clips_per_video, run.optim.batch // shards
    parts = []
    for shard in range(shards):
        own = order[shard::shards][: videos // shards]
        if run.shuffle_steps:
            begin = np.repeat(np.arange(len(own)) * each, each)
            shuffled = np.argsort(begin + rng.uniform(0, run.shuffle_steps * size, len(begin)))
        else:
            shuffled = rng.permutation(len(own) * each)
        clips = [(int(own[i // each]), int(i % each)) for i in shuffled]
        parts.append([clips[at : at + size] for at in range(0, len(clips) - size + 1, size)])
    return [[row for part in step for row in part] for step in zip(*parts, strict=True)]


def steps_per_epoch(videos: int, run: Training) -> int:
    """Steps of every epoch; ValueError when the videos do not fill one batch."""
    shards = run.optim.shards
    steps = videos // shards * run.clips_per_video // (run.optim.batch // shards)
    if steps == 0:
        raise ValueError(
            f"{videos} videos x {run.clips_per_video} clips do not fill one batch of "
            f"{run.optim.batch}: lower `batch`, or raise `clips_per_video`"
        )
    return steps


def readings_by_step(plan: BatchPlan, window: int) -> list[list[tuple[int, list[Place]]]]:
    """For each step the videos that are opened for it, each with the clips read in that pass.

    A video is opened when one of its clips is due; clips due within `window` steps after it are
    read in the same pass, later ones in another. The window trades memory for decoding and
    changes nothing else.
    """
    due: dict[int, list[Place]] = {}
    for step, rows in enumerate(plan):
        for row, (video, clip) in enumerate(rows):
            due.setdefault(video, []).append((clip, step, row))
    readings: list[list[tuple[int, list[Place]]]] = [[] for _ in plan]
    for video, places in due.items():
        while places:
            first = places[0][1]
            together = [place for place in places if place[1] <= first + window]
            readings[first].append((video, together))
            places = places[len(together) :]
    return readings

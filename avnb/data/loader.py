"""Batches of clips in a planned order, read ahead by the workers of torch's DataLoader.

A plan, drawn before anything is read, says which clips make up each batch. It depends on seed and
epoch alone, so any number of processes sees the same batches and an interrupted epoch is resumed
exactly. A worker fills a whole batch.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader

from avnb.config import Finetune, Pretrain
from avnb.data.clips import Batch, Place, VideoClips
from avnb.files import serve_parent
from avnb.profiles import cores, sharing

AUTO = -1  # workers: as many as there are cores to spare
Training = Pretrain | Finetune


def epoch_plan(videos: int, run: Training, epoch: int) -> list[list[Place]]:
    """The batches of one epoch over all processes; rows of one shard are adjacent.

    Each shard has its own videos in each epoch, and all their clips are shuffled. Clips of a
    video must not come in bursts: a row of a memory bank that was updated a few steps ago lies
    close to everything that is embedded now, and a network can tell fresh rows from stale ones
    without learning anything about videos.
    """
    rng, shards = np.random.default_rng([run.seed, epoch]), run.optim.shards
    order, each, size = rng.permutation(videos), run.clips_per_video, run.optim.batch // shards
    parts = []
    for shard in range(shards):
        own = order[shard::shards][: videos // shards]
        shuffled = rng.permutation(len(own) * each)
        clips = [(epoch, int(own[i // each]), int(i % each)) for i in shuffled]
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


def spare_workers() -> int:
    """The workers that this machine can give this process, each with one thread.

    A process that computes on a GPU leaves its core to them; without one, every process that
    shares these cores keeps one for itself.
    """
    processes = sharing()
    free = cores() if torch.cuda.is_available() else cores() - processes
    return max(free, 0) // processes


def load(clips: VideoClips, plan: Iterable[list[Place]], *, workers: int = AUTO) -> Iterator[Batch]:
    """The batches of a plan, each given by the places of its clips, in order.

    `workers` processes read ahead; 0 reads when a batch is asked for, AUTO takes as many as there
    are cores to spare.
    """
    workers = spare_workers() if workers == AUTO else workers
    return iter(
        DataLoader(
            clips,
            batch_size=None,  # an item is a batch
            sampler=plan,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,  # children, who die with us
            worker_init_fn=serve_parent,
            generator=torch.Generator(),  # the global one stays as it is
            pin_memory=torch.cuda.is_available(),
        )
    )


def video_batches(
    clips: VideoClips, rows: Iterable[int], size: int, *, workers: int = AUTO
) -> Iterator[Batch]:
    """All clips of each of these videos, in order, `size` videos in a batch."""
    rows, count = list(rows), range(clips.sampling.count)
    parts = (rows[begin : begin + size] for begin in range(0, len(rows), size))
    plan = [[(0, video, clip) for video in part for clip in count] for part in parts]
    return load(clips, plan, workers=workers)


def training_epochs(
    clips: VideoClips, run: Training, done: int, *, rank: int, processes: int, workers: int
) -> Iterator[tuple[int, Iterator[Batch]]]:
    """Each epoch after `done` steps, with the rest of this process's part of its batches.

    Workers are started once and read ahead over the end of an epoch. ValueError when the processes
    do not divide the batches: clips would be left out.
    """
    if run.optim.shards % processes:
        found = f"{processes} processes cannot share {run.optim.shards} shards evenly"
        raise ValueError(f"{found}: start a number of them that divides `shards`")
    size, steps = run.optim.batch // processes, steps_per_epoch(len(clips), run)
    current, skip = divmod(done, steps)
    epochs = range(current, run.optim.epochs)

    def own() -> Iterator[list[Place]]:
        for epoch in epochs:
            for rows in epoch_plan(len(clips), run, epoch)[skip if epoch == current else 0 :]:
                yield rows[rank * size : (rank + 1) * size]

    batches = load(clips, own(), workers=workers)
    for epoch in epochs:
        first = max(epoch * steps, done)
        left = itertools.islice(batches, (epoch + 1) * steps - first)
        yield epoch, (replace(b, step=s, offset=rank * size) for s, b in enumerate(left, first))

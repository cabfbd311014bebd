"""From a manifest to batches: clips are read and cropped in worker processes, then collated.

A plan, drawn before anything is read, says which clips make up each batch: all clips of an epoch,
shuffled. It depends on seed and epoch alone, so any number of processes sees the same batches
and an interrupted epoch can be repeated exactly. Clips of a video that are due soon are read in
one pass.
"""

import itertools
import signal
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from avnb.data.batch import Batch
from avnb.data.batch_plan import BatchPlan, Training, epoch_plan, read_groups, steps_per_epoch
from avnb.data.clips import Item, VideoClips
from avnb.processes import die_with_parent


def start_worker(number: int) -> None:
    """Initialise a loader's worker: one thread, and it does not outlive its process.

    A cluster's signal before the end of a job is for that process to handle.
    """
    die_with_parent()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    torch.set_num_threads(1)


def worth_starting(workers: int, videos: int) -> int:
    """How many of `workers` pay: starting one costs seconds, reading a video milliseconds."""
    return min(workers, videos // 256)


class ClipLoader:
    """Batches of one video each, in the order of `items`, read ahead by `workers` processes.

    A worker's tensors lie in shared memory, one open file each; pending batches would exhaust the
    process's files, so each batch is copied on arrival.
    """

    def __init__(self, dataset: VideoClips, items: Iterable[Item], *, workers: int):
        options: dict[str, Any] = {"num_workers": workers, "worker_init_fn": start_worker}
        if workers:
            options |= {"prefetch_factor": 4, "persistent_workers": True}
            options |= {"multiprocessing_context": "spawn"}
        self.batches = DataLoader[Batch](dataset, batch_size=None, sampler=items, **options)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            yield batch.apply(Tensor.clone) if self.batches.num_workers else batch


def grouped(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Batches of one video each, `size` of them collated."""
    remaining = iter(batches)
    while group := list(itertools.islice(remaining, size)):
        yield Batch.stack([(batch, row) for batch in group for row in range(len(batch))])


def training_epochs(
    dataset: VideoClips, run: Training, done: int, *, rank: int, processes: int, workers: int
) -> Iterator[tuple[int, Iterator[Batch]]]:
    """Each epoch after `done` steps, with the rest of this process's part of its batches.

    Workers are started once and read ahead over the end of an epoch.
    """
    size, steps = run.optim.batch // processes, steps_per_epoch(len(dataset), run)
    current, skip = divmod(done, steps)

    def plan(epoch: int) -> BatchPlan:
        batches = epoch_plan(len(dataset), run, epoch)[skip if epoch == current else 0 :]
        return [rows[rank * size : (rank + 1) * size] for rows in batches]

    epochs, window = range(current, run.optim.epochs), run.window_steps
    items = ((e, video, clips) for e in epochs for video, clips in read_groups(plan(e), window))
    videos = iter(ClipLoader(dataset, items, workers=workers))
    for epoch in epochs:
        own = plan(epoch)
        first = (epoch + 1) * steps - len(own)
        yield epoch, planned_batches(videos, own, window, first, rank * size)


def planned_batches(
    videos: Iterator[Batch], plan: BatchPlan, window: int, first_step: int, offset: int
) -> Iterator[Batch]:
    """Collate arriving clips as planned; each is kept until its step and no longer."""
    groups = iter(read_groups(plan, window))
    pending: dict[tuple[int, int], tuple[Batch, int]] = {}
    for step, rows in enumerate(plan, first_step):
        for row in rows:
            if row not in pending:
                video, clips = next(groups)
                batch = next(videos)
                pending.update({(video, c): (batch, i) for i, c in enumerate(clips)})
        yield Batch.stack([pending.pop(row) for row in rows], step=step, offset=offset)

"""From a manifest to batches: clips are cut, read and cropped in workers, then mixed.

A plan, drawn before anything is read, says which clips make up each batch: all clips of an epoch,
shuffled. It depends on seed and epoch alone, so any number of processes sees the same batches
and an interrupted epoch can be repeated exactly. A reading of a file gives all clips of it that
are due soon.
"""

import itertools
import signal
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from avnb.data.batch import Batch
from avnb.data.batch_plan import BatchPlan, Planned, epoch_plan, read_groups, steps_per_epoch
from avnb.data.clips import Item, VideoClips
from avnb.processes import die_with_parent


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


class ClipLoader:
    """Batches of one video each, in the order of `items`, read ahead by `workers` processes.

    What a worker sends lies in shared memory, one open file a tensor; held batches would use up
    the process's files, so each is copied as it comes.
    """

    def __init__(self, dataset: VideoClips, items: Iterable[Item], *, workers: int):
        self.batches: DataLoader[Batch] = DataLoader(
            dataset,
            batch_size=None,
            sampler=items,
            num_workers=workers,
            worker_init_fn=start_worker,
            prefetch_factor=4 if workers else None,
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
        )

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            yield batch.apply(Tensor.clone) if self.batches.num_workers else batch


def grouped(arriving: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Batches of one video each, `size` of them put together."""
    several = iter(arriving)
    while held := list(itertools.islice(several, size)):
        yield Batch.stack([(one, row) for one in held for row in range(len(one))])


class Stream(Sampler[Item]):
    """What this process needs to read, in order, over all epochs to come."""

    def __init__(self, plans: Callable[[int], BatchPlan], epochs: range, window: int):
        self.plans, self.epochs, self.window = plans, epochs, window

    def __iter__(self) -> Iterator[Item]:
        for epoch in self.epochs:
            for video, clips_wanted in read_groups(self.plans(epoch), self.window):
                yield epoch, video, clips_wanted


def training_epochs(
    dataset: VideoClips, run: Planned, done: int, *, rank: int, processes: int, workers: int
) -> Iterator[tuple[int, Iterator[Batch]]]:
    """Each epoch after `done` steps, with what is left of this process's part of its batches.

    Workers are started once and read ahead over the end of an epoch.
    """
    size, steps = run.optim.batch // processes, steps_per_epoch(len(dataset), run)
    first, skip = divmod(done, steps)

    def plan(epoch: int) -> BatchPlan:
        whole = epoch_plan(len(dataset), run, epoch)[skip if epoch == first else 0 :]
        return [rows[rank * size : (rank + 1) * size] for rows in whole]

    epochs = range(first, run.optim.epochs)
    arriving = iter(ClipLoader(dataset, Stream(plan, epochs, run.window_steps), workers=workers))
    for epoch in epochs:
        parts = plan(epoch)
        yield (
            epoch,
            planned_batches(
                arriving, parts, run.window_steps, (epoch + 1) * steps - len(parts), rank * size
            ),
        )


def planned_batches(
    arriving: Iterator[Batch], plan: BatchPlan, window: int, first_step: int, first: int
) -> Iterator[Batch]:
    """Put the arriving clips together as planned; each is held until its step and no longer."""
    reads = iter(read_groups(plan, window))
    held: dict[tuple[int, int], tuple[Batch, int]] = {}
    for step, rows in enumerate(plan):
        for row in rows:
            if row not in held:
                video, clips_read = next(reads)
                batch = next(arriving)
                held.update({(video, c): (batch, i) for i, c in enumerate(clips_read)})
        yield Batch.stack([held.pop(row) for row in rows], step=first_step + step, first=first)

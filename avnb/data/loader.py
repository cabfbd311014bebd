"""From a manifest to batches: clips are decoded straight into batches, ahead of their use.

A plan, drawn before anything is read, says which clips make up each batch. It depends on seed and
epoch alone, so any number of processes sees the same batches and an interrupted epoch can be
repeated exactly. The batches of the next steps lie side by side in memory, and readers fill
their rows; those of a video that is due more than once in that time are read in one pass.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from avnb.data.batch import Batch
from avnb.data.batch_plan import BatchPlan, Training, epoch_plan, readings_by_step, steps_per_epoch
from avnb.data.clips import VideoClips
from avnb.data.readers import Readers, Reading, tensors
from avnb.data.replacements import Replacements
from avnb.profiles import cores, sharing

LEAST_BATCHES = 3  # one in use, one complete, one being read
READINGS_A_WORKER = 2  # that are asked for ahead, so that none waits for the next
MOST_BATCHES = 128  # more would not make a pass over a file serve more clips
AUTO = -1  # workers: as many as there are cores to spare, if that pays
SECONDS_A_WORKER = 10.0  # of reading then at least: starting one costs some of them
SECONDS_A_CLIP, SECONDS_A_PIXEL = 2e-3, 6e-8  # of one core, about


def reading_seconds(clips: VideoClips) -> float:
    """What one core takes to read every clip once, about."""
    sampling, clip = clips.sampling, clips.sampling.clip
    pixels = clip.frames * clip.frame_px**2 if sampling.video else 0
    return len(clips) * sampling.count * (SECONDS_A_CLIP + SECONDS_A_PIXEL * pixels)


def spare_workers(seconds: float) -> int:
    """The decoding processes that this machine can give this process, for so much reading.

    Each has one thread. A process that computes on a GPU leaves its core to them; without one,
    every process that shares these cores keeps one for itself.
    """
    processes = sharing()
    free = cores() if torch.cuda.is_available() else cores() - processes
    return min(max(free, 0) // processes, int(seconds / SECONDS_A_WORKER))


def batch_gb(clips: VideoClips, size: int) -> float:
    """Memory of a batch of so many clips, in GB."""
    return sum(tensor.nbytes for tensor in tensors(clips.empty(1))) * size / 1e9


class ClipLoader:
    """Batches of clips as planned, read ahead by `workers` processes.

    A batch is a view of memory that is filled anew when the next one is asked for.

    Args:
        clips: of the videos.
        plans: of each epoch its number and the clips of its batches; iterated again in each pass.
        size: clips of a batch, at most.
        workers: decoding processes; 0 decodes in this process when a batch is asked for, AUTO takes
            as many as there are cores to spare.
        read_ahead_gb: memory for batches; never fewer than keep all workers busy.
        replacements: take the place of clips that cannot be read; without them that is an error.
    """

    def __init__(
        self,
        clips: VideoClips,
        plans: Iterable[tuple[int, BatchPlan]],
        *,
        size: int,
        workers: int = AUTO,
        read_ahead_gb: float = 0.0,
        replacements: Replacements | None = None,
    ):
        self.clips, self.plans, self.size = clips, plans, size
        self.replacements = replacements
        self.workers = spare_workers(reading_seconds(clips)) if workers == AUTO else workers
        # A reading gives at most all clips of a video.
        busy = math.ceil(READINGS_A_WORKER * self.workers * clips.sampling.count / size)
        self.lead = max(LEAST_BATCHES, LEAST_BATCHES - 1 + busy)  # batches that are read ahead
        self.memory_gb = read_ahead_gb
        fitting = min(int(read_ahead_gb / batch_gb(clips, size)), MOST_BATCHES)
        self.batches = max(fitting, self.lead)

    @property
    def window(self) -> int:
        """Steps over which the clips of a video are read together."""
        return self.batches - self.lead

    def memory_note(self, steps: int) -> str:
        """What memory would read clips within so many steps together; '' if there is enough."""
        batches = min(steps + self.lead, MOST_BATCHES)
        if self.batches >= batches:
            return ""
        needed = batches * batch_gb(self.clips, self.size)
        return (
            f"a video's clips come within {steps} steps, but memory for so many batches takes "
            f"`read_ahead_gb` {needed:.2g} in each process: with {self.memory_gb:g} its file is "
            "read more than once"
        )

    @cached_property
    def readers(self) -> Readers:
        """Started when they are needed first, and kept for further passes."""
        store = self.clips.empty(self.batches * self.size)
        on_error = self.replacements.note if self.replacements else None
        return Readers(self.clips, store, self.workers, on_error)

    def schedule(self) -> Iterator[tuple[int, list[Reading]]]:
        """Of each batch its size, and the readings that begin with it."""
        begin = 0  # steps of the epochs before
        for epoch, plan in self.plans:
            for rows, readings in zip(plan, readings_by_step(plan, self.window), strict=True):
                yield (
                    len(rows),
                    [
                        Reading(
                            epoch,
                            video,
                            tuple(clip for clip, _, _ in places),
                            tuple(
                                (begin + step) % self.batches * self.size + row
                                for _, step, row in places
                            ),
                        )
                        for video, places in readings
                    ],
                )
            begin += len(plan)

    def __iter__(self) -> Iterator[Batch]:
        readers = self.readers
        readers.finish(readers.unread)  # what an abandoned pass has left
        steps, ahead = itertools.tee(self.schedule())
        # A reading's last clip is due within the window: its batch must be free by then.
        coming = itertools.islice(ahead, self.lead if self.workers else 1)
        for number, (size, readings) in enumerate(steps):
            for _, further in coming:
                for reading in further:
                    readers.ask(reading)
            readers.finish(readings)
            begin = number % self.batches * self.size
            if self.replacements:
                self.replacements.fill(readers.store, begin, size)
            yield readers.store[begin : begin + size]
            coming = itertools.islice(ahead, 1)


def video_blocks(videos: Iterable[int], count: int, block: int) -> BatchPlan:
    """Batches of all `count` clips of each video, `block` videos at a time."""
    rows = iter(videos)
    plan = []
    while group := list(itertools.islice(rows, block)):
        plan.append([(video, clip) for video in group for clip in range(count)])
    return plan


def video_loader(
    clips: VideoClips, block: int, *, begin: int = 0, workers: int = AUTO
) -> ClipLoader:
    """All clips of each video from `begin` on, in order, `block` videos in a batch."""
    count = clips.sampling.count
    plan = video_blocks(range(begin, len(clips)), count, block)
    return ClipLoader(clips, [(0, plan)], size=block * count, workers=workers)


def training_epochs(
    clips: VideoClips,
    run: Training,
    done: int,
    *,
    rank: int,
    processes: int,
    workers: int,
    ledger: Path | None = None,
    announce: Callable[[str], None] | None = None,
) -> Iterator[tuple[int, Iterator[Batch]]]:
    """Each epoch after `done` steps, with the rest of this process's part of its batches.

    Workers are started once and read ahead over the end of an epoch. With a `ledger`, clips that
    cannot be read are replaced and written there. `announce` is told, before the first batch, when
    too little memory defeats `shuffle_steps`.
    """
    size, steps = run.optim.batch // processes, steps_per_epoch(len(clips), run)
    current, skip = divmod(done, steps)

    def plan(epoch: int) -> BatchPlan:
        batches = epoch_plan(len(clips), run, epoch)[skip if epoch == current else 0 :]
        return [rows[rank * size : (rank + 1) * size] for rows in batches]

    epochs = range(current, run.optim.epochs)
    plans = ((epoch, plan(epoch)) for epoch in epochs)
    memory = run.compute.read_ahead_gb
    loader = ClipLoader(
        clips,
        plans,
        size=size,
        workers=workers,
        read_ahead_gb=memory,
        replacements=Replacements(ledger, clips) if ledger else None,
    )
    if announce and (note := loader.memory_note(run.shuffle_steps)):
        announce(note)
    batches = iter(loader)
    for epoch in epochs:
        first = max(epoch * steps, done)
        own = itertools.islice(batches, (epoch + 1) * steps - first)
        yield epoch, (replace(b, step=s, offset=rank * size) for s, b in enumerate(own, first))


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches of a loader on a device; each is copied to a GPU while the one before it is used."""
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    stream, ready = torch.cuda.Stream(device), deque[Batch]()
    for batch in batches:
        with torch.cuda.stream(stream):
            moved = batch.to(device)
        copied = stream.record_event()
        yield from ready
        ready.clear()
        copied.synchronize()  # the loader's memory is filled anew after this
        for tensor in tensors(moved):
            if tensor.is_cuda:
                tensor.record_stream(torch.cuda.current_stream(device))
        ready.append(moved)
    yield from ready

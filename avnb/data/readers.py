"""Processes that read clips into a batch in shared memory."""

import multiprocessing
import shutil
import signal
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from avnb.data.batch import Batch
from avnb.data.clips import VideoClips
from avnb.data.video_frames import DecodeError
from avnb.files import serve_parent

SILENT_SECONDS = 50.0  # a reader that says nothing for so long hangs
STARTING_SECONDS = 120.0  # besides, to begin: torch may come from a slow disk
GRACE_SECONDS = 10.0  # that it has in any case, should this process have been stopped meanwhile
SHARED = Path("/dev/shm")  # noqa: S108 - where Linux keeps memory that processes share


class Reading(NamedTuple):
    """Clips of one video, read in one pass over its file, and the rows of the batch they go to."""

    epoch: int
    video: int
    clips: tuple[int, ...]
    rows: tuple[int, ...]


OnError = Callable[[Reading, DecodeError], None]


class Reader:
    """One process and what it has been asked to read."""

    def __init__(self, clips: VideoClips, store: Batch):
        context = multiprocessing.get_context("spawn")  # the caller may hold threads, or a GPU
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, clips, store), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.asked: deque[Reading] = deque()
        # When it last answered, or was asked after a rest.
        self.since = time.monotonic() + STARTING_SECONDS


def serve(pipe: Connection, clips: VideoClips, store: Batch) -> None:
    """Read what the pipe asks for, until it is closed; one thread, and no orphan.

    A cluster's signal before the end of a job, and Ctrl-C, are for the parent to handle.
    """
    serve_parent()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    torch.set_num_threads(1)
    while True:
        try:
            epoch, video, selected, rows = pipe.recv()
        except EOFError:
            return
        try:
            clips.read((epoch, video, selected), store, rows)
        except DecodeError as error:
            pipe.send((error.path, error.reason))
        else:
            pipe.send(None)


def stop(readers: Sequence[Reader]) -> None:
    """End the processes, whatever they are at."""
    for reader in readers:
        reader.process.kill()
        reader.process.join()
        reader.pipe.close()


def share(batch: Batch) -> Batch:
    """The same batch in memory that other processes can write to.

    Raises:
        MemoryError: when the machine's shared memory has no room for it.
    """
    size = sum(tensor.nbytes for tensor in tensors(batch))
    free = shutil.disk_usage(SHARED).free if SHARED.exists() else size
    if size > free:
        raise MemoryError(
            f"{size / 1e6:.0f} MB of shared memory are needed to read {len(batch)} clips ahead, "
            f"and {SHARED} has {free / 1e6:.0f} MB left: make it larger (docker run "
            "--shm-size=8g), lower `read_ahead_gb` or `batch`, or set `workers` to 0"
        )
    return batch.apply(Tensor.share_memory_)


def pin(batch: Batch) -> None:
    """Lock the memory of a batch, so that it is copied to a GPU without waiting for the copy."""
    for tensor in tensors(batch):
        if tensor.nbytes:
            result = torch.cuda.cudart().cudaHostRegister(tensor.data_ptr(), tensor.nbytes, 0)
            torch.cuda.check_error(int(result))


def unpin(batch: Batch) -> None:
    """Undo `pin`, before the memory is given back."""
    for tensor in tensors(batch):
        if tensor.nbytes:
            torch.cuda.cudart().cudaHostUnregister(tensor.data_ptr())


def tensors(batch: Batch) -> list[Tensor]:
    """All tensors of a batch."""
    found: list[Tensor] = []
    batch.apply(lambda x: found.append(x) or x)  # type: ignore[func-returns-value]
    return found


class Readers:
    """Reads into a batch, in processes; without any, at once in this one.

    Args:
        clips: what is read.
        store: the batch.
        workers: processes.
        on_error: called with what could not be read, and why; by default that is raised.
    """

    def __init__(
        self, clips: VideoClips, store: Batch, workers: int, on_error: OnError | None = None
    ):
        self.clips, self.store = clips, share(store) if workers else store
        self.on_error = on_error or self.refuse
        self.readers = [Reader(clips, self.store) for _ in range(workers)]
        self.close = weakref.finalize(self, stop, self.readers)
        if torch.cuda.is_available():
            pin(self.store)
            weakref.finalize(self, unpin, self.store)
        self.unread: set[Reading] = set()

    def ask(self, reading: Reading) -> None:
        """Have the clips read, by the reader with the least to do."""
        if not self.readers:
            try:
                self.clips.read(reading[:3], self.store, reading.rows)
            except DecodeError as error:
                self.on_error(reading, error)
            return
        reader = min(self.readers, key=lambda r: len(r.asked))
        if not reader.asked:
            reader.since = max(reader.since, time.monotonic())
        self.unread.add(reading)
        reader.asked.append(reading)
        try:
            reader.pipe.send(tuple(reading))
        except BrokenPipeError:
            self.hear(reader)

    def finish(self, readings: Iterable[Reading]) -> None:
        """Wait until these have been read, or could not be.

        Raises:
            DecodeError: when a file cannot be read, unless `on_error` takes it.
            ChildProcessError: when a reader dies or hangs; it names the file.
        """
        wanted, least = {*readings}, time.monotonic() + GRACE_SECONDS
        while wanted & self.unread:
            busy: dict[Any, Reader] = {r.pipe: r for r in self.readers if r.asked}
            due = {r: max(r.since + SILENT_SECONDS, least) for r in busy.values()}
            for pipe in wait([*busy], timeout=max(min(due.values()) - time.monotonic(), 0)):
                self.hear(busy[pipe])
                del due[busy[pipe]]
            if late := [r for r, end in due.items() if end <= time.monotonic()]:
                self.fail(late, f"said nothing for {SILENT_SECONDS:.0f} s")

    def hear(self, reader: Reader) -> None:
        """Take one answer of a reader."""
        try:
            problem = reader.pipe.recv()
        except (EOFError, ConnectionResetError):
            reader.process.join()
            self.fail([reader], f"died (exit code {reader.process.exitcode})")
        reading, reader.since = reader.asked.popleft(), time.monotonic()
        self.unread.discard(reading)
        if problem is not None:
            self.on_error(reading, DecodeError(*problem))

    def refuse(self, reading: Reading, error: DecodeError) -> NoReturn:
        """Stop all, because something could not be read."""
        self.close()
        raise error

    def fail(self, readers: Sequence[Reader], what: str) -> NoReturn:
        """Stop all; say which files some of them were at."""
        manifest = self.clips.manifest
        files = [str(manifest.path(manifest.videos[r.asked[0].video])) for r in readers]
        self.close()
        raise ChildProcessError(
            f"a process that decodes videos {what}; it was at {' or '.join(files)}. Is the file "
            "damaged, the disk gone, or the memory short? `avnb audit` finds what cannot be read"
        )

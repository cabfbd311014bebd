"""Files and processes that survive an interruption: written whole, made once, left by nobody."""

import contextlib
import fcntl
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from avnb.processes import die_with_parent

In = TypeVar("In")
Out = TypeVar("Out")
AHEAD = 8  # items handed to each worker beforehand; the rest costs no memory yet


def write_aside(path: Path, text: str) -> None:
    """Write a text file aside and rename it: it is the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time makes what belongs into `folder`; others wait and find it made."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed or the process ends
        yield


@contextlib.contextmanager
def appending(path: Path) -> Iterator[Callable[[str], None]]:
    """A function that adds a line to a text file, at once: a kill can tear the last one only."""
    with path.open("a+b", buffering=0) as file:
        if size := file.seek(0, os.SEEK_END):
            file.seek(size - 1)
            if file.read() != b"\n":
                file.write(b"\n")  # behind a torn line

        def add(line: str) -> None:
            file.write(f"{line}\n".encode())

        yield add


def serve_parent() -> None:
    """In a worker: its parent alone is interrupted from the keyboard, and it dies with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()


def in_parallel(
    work: Callable[[In], Out], items: Sequence[In], *, workers: int, title: str, done: int = 0
) -> Generator[tuple[int, Out], None, None]:
    """`work` on every item in processes, with a bar: (number of the item, result) as they come.

    `done` counts what an earlier call has finished. An exception or an interrupt cancels what
    has not begun, and no worker outlives this process.

    Raises:
        ChildProcessError: when a worker dies.
    """
    # Spawned, not forked: the caller may hold threads of torch or of a Jupyter kernel.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=serve_parent)
    bar = tqdm(total=done + len(items), initial=done, desc=title, unit="video")
    left, jobs = iter(enumerate(items)), dict[Future[Out], int]()
    try:
        while True:
            for i, item in islice(left, AHEAD * workers - len(jobs)):
                jobs[pool.submit(work, item)] = i
            if not jobs:
                break
            for job in wait(jobs, return_when=FIRST_COMPLETED).done:
                result = job.result()
                yield jobs.pop(job), result
                bar.update()
    except BrokenProcessPool as error:
        begun = "\n  ".join(str(items[i])[:120] for i in sorted(jobs.values())[:AHEAD])
        raise ChildProcessError(
            f"{title}: a worker died, killed for lack of memory or by a crash in what it read; "
            f"it was at one of the first of\n  {begun}"
        ) from error
    finally:
        bar.close()
        pool.shutdown(cancel_futures=True)

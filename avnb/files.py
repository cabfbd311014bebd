"""Files and processes that survive an interruption: written whole, made once, left by nobody."""

import contextlib
import fcntl
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from avnb.bars import tqdm
from avnb.processes import die_with_parent

In = TypeVar("In")
Out = TypeVar("Out")
ITEMS_AHEAD = 8  # handed to each worker beforehand; the rest costs no memory yet


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to instead; it replaces `path` at the end, flushed to disk, or vanishes.

    `path` is thus the old file or the whole new one, whatever interrupts the writing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with replacing(path) as partial:
        partial.write_text(text)


@contextlib.contextmanager
def locked(folder: Path, *, lock: str = ".lock", waiting: str = "") -> Iterator[None]:
    """One process at a time fills `folder`; others wait, say so, and find it complete."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / lock).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(waiting, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)  # released when it is closed or the process ends
        yield


@contextlib.contextmanager
def appending(path: Path) -> Iterator[Callable[[str], None]]:
    """A function that adds a line to a text file, at once: a kill can tear the last one only.

    What was left of a torn line is removed: nobody could read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if (whole := whole_lines(file, size)) < size:
            file.truncate(whole)

        def add(line: str) -> None:
            file.write(f"{line}\n".encode())

        yield add


def whole_lines(file: IO[bytes], size: int, step: int = 2**16) -> int:
    """How many of `size` bytes belong to whole lines."""
    while size:
        begin = max(0, size - step)
        file.seek(begin)
        found = file.read(size - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        size = begin
    return 0


def read_json(path: Path, what: str) -> Any:
    """The value in a JSON file of ours.

    Raises:
        ValueError: when it is cut or changed; it says what to do.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of the text or of JSON
        raise ValueError(
            f"{path}, {what}, is damaged ({error}): delete it, and it is made again"
        ) from error


def json_lines(path: Path) -> Iterator[Any]:
    """The values of a file that `appending` wrote, one a line; a torn line is left out."""
    if not path.exists():
        return
    with path.open(errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                yield json.loads(line)


def serve_parent() -> None:
    """In a worker of multiprocessing: only its parent handles Ctrl-C, and it dies with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    die_with_parent(parent.pid if parent and parent.pid else 0)


def in_parallel(
    work: Callable[[In], Out],
    items: Sequence[In],
    *,
    workers: int,
    title: str,
    done: int = 0,
    unit: str = "video",
) -> Generator[tuple[int, Out], None, None]:
    """`work` on every item in processes, with a bar: (index of the item, result) as they finish.

    `done` counts what an earlier call has finished. An exception or an interrupt cancels what
    has not started, and no worker outlives this process. Without workers, this process does it.

    Raises:
        ChildProcessError: when a worker dies.
    """
    if not workers:
        here = tqdm(items, title, done + len(items), initial=done, unit=unit)
        yield from ((i, work(item)) for i, item in enumerate(here))
        return
    # Spawned, not forked: the caller may hold threads of torch or of a Jupyter kernel.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=serve_parent)
    bar = tqdm(total=done + len(items), initial=done, desc=title, unit=unit)
    left, jobs = iter(enumerate(items)), dict[Future[Out], int]()
    try:
        while True:
            for i, item in islice(left, ITEMS_AHEAD * workers - len(jobs)):
                jobs[pool.submit(work, item)] = i
            if not jobs:
                break
            for job in wait(jobs, return_when=FIRST_COMPLETED).done:
                result = job.result()
                yield jobs.pop(job), result
                bar.update()
    except BrokenProcessPool as error:
        started = "\n  ".join(str(items[i])[:120] for i in sorted(jobs.values())[:ITEMS_AHEAD])
        raise ChildProcessError(
            f"{title}: a worker died, killed for lack of memory or by a crash in what it read; "
            f"it was at one of the first of\n  {started}"
        ) from error
    finally:
        bar.close()
        pool.shutdown(cancel_futures=True)


def in_order(results: Iterable[tuple[int, Out]]) -> Generator[Out, None, None]:
    """Results of `in_parallel` by index, from 0 on; one that comes early waits."""
    early, due = dict[int, Out](), 0
    for i, result in results:
        early[i] = result
        while due in early:
            yield early.pop(due)
            due += 1

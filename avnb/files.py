"""Files and processes that survive an interruption: written whole, made once, left by nobody."""

import contextlib
import fcntl
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from avnb.guard import die_with_parent

In = TypeVar("In")
Out = TypeVar("Out")


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


def in_parallel(
    work: Callable[[In], Out], items: Sequence[In], *, workers: int, title: str, done: int = 0
) -> Iterator[tuple[int, Out]]:
    """`work` on every item in processes, with a bar: (number of the item, result) as they come.

    `done` counts what an earlier call has finished. An exception or an interrupt cancels what
    has not begun, and no worker outlives this process.
    """
    # Spawned, not forked: the caller may hold threads of torch or of a Jupyter kernel.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=die_with_parent)
    bar = tqdm(total=done + len(items), initial=done, desc=title, unit="video")
    try:
        jobs = {pool.submit(work, item): i for i, item in enumerate(items)}
        for job in as_completed(jobs):
            yield jobs[job], job.result()
            bar.update()
    finally:
        bar.close()
        pool.shutdown(cancel_futures=True)

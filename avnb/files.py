"""Files and processes that survive an interruption: written whole, made once, left by nobody."""

import contextlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from avnb.processes import die_with_parent

# Progress bars: widgets in JupyterLab, text everywhere else, papermill included. Jupyter's server
# names the session to the kernels that it starts; papermill starts its own.
if "JPY_SESSION_NAME" in os.environ and "ipykernel" in sys.modules:
    from tqdm.notebook import tqdm as tqdm
else:
    from tqdm import tqdm as tqdm  # type: ignore[assignment]

In = TypeVar("In")
Out = TypeVar("Out")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to instead; it replaces `path` at the end, flushed to disk, or vanishes.

    `path` is thus the old file or the whole new one, whatever interrupts the writing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_name(f".{path.name}.partial")
    try:
        yield partial_file
        with partial_file.open("rb") as file:
            os.fsync(file.fileno())
        partial_file.replace(path)
    finally:
        partial_file.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with replacing(path) as partial_file:
        partial_file.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def locked(folder: Path, *, lock: str = ".lock", waiting: str = "") -> Iterator[None]:
    """One process at a time fills `folder`; others wait, say so, and find it complete."""
    folder.mkdir(parents=True, exist_ok=True)
    file = FileLock(folder / lock, thread_local=False)
    try:
        file.acquire(blocking=False)
    except Timeout:
        if waiting:
            print(waiting, flush=True)
        file.acquire()
    try:
        yield
    finally:
        file.release()


@contextlib.contextmanager
def appending(path: Path) -> Iterator[Callable[[str], None]]:
    """A function that adds a line to a text file, at once: a kill can tear the last one only.

    What was left of a torn line is removed: nobody could read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2**16))
        tail = file.read()
        file.truncate(size - (len(tail) - tail.rfind(b"\n") - 1))

        def add(line: str) -> None:
            file.write(f"{line}\n".encode())

        yield add


def json_lines(path: Path) -> Iterator[Any]:
    """The values of a file that `appending` wrote, one a line; a torn line is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                yield json.loads(line)


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


def serve_parent() -> None:
    """Pool initialiser: ignore Ctrl-C, which the parent handles, and exit with the parent."""
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

    `done` counts what an earlier call has finished. An exception or an interrupt cancels what has
    not started, and no worker outlives this process.

    Raises:
        ChildProcessError: when a worker dies.
    """
    if not items:
        return
    # Spawned, not forked: the caller may hold threads of torch or of a Jupyter kernel.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(items)), context, initializer=serve_parent)
    bar = tqdm(total=done + len(items), initial=done, desc=title, unit=unit)
    try:
        jobs = {pool.submit(work, item): i for i, item in enumerate(items)}
        for job in as_completed(jobs):
            yield jobs[job], job.result()
            bar.update()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"{title}: a worker died, killed for lack of memory or from outside; the same call "
            "resumes"
        ) from error
    finally:
        bar.close()
        pool.shutdown(cancel_futures=True)

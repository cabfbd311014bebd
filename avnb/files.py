"""Files and processes that survive an interruption: written whole, made once, left by nobody."""

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from filelock import FileLock

from avnb.processes import die_with_parent

# Progress bars: widgets in JupyterLab, text everywhere else, papermill included. Jupyter's server
# names the session to the kernels that it starts; papermill starts its own.
if "JPY_SESSION_NAME" in os.environ and "ipykernel" in sys.modules:
    from tqdm.notebook import tqdm as tqdm
else:
    from tqdm import tqdm as tqdm  # type: ignore[assignment]


def absolute(path: Path | str) -> Path:
    """The path from the root, without `~` and `..`; links stay, whose ends nodes may lack."""
    return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() follows links


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
def locked(folder: Path) -> Iterator[None]:
    """One process at a time fills `folder`, others wait; OSError where files cannot be locked.

    RuntimeError in a worker that runs its parent's script again, and would wait for it for ever.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError('a script that uses avnb needs `if __name__ == "__main__":`')
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(folder / ".lock", thread_local=False))
        except OSError as error:  # flock names no file
            hint = f"cannot lock files in {folder}: set AVNB_BUILD to a folder on another disk"
            raise OSError(error.errno, f"{error.strerror}; {hint}") from error
        yield


@contextlib.contextmanager
def appending(path: Path) -> Iterator[Callable[[str], Any]]:
    """A function that adds a line to a text file, at once: a kill can tear the last one only.

    What was left of a torn line is removed: nobody could read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2**16))
        torn = file.read().rpartition(b"\n")[2]
        if torn:  # else another process may have written since
            file.truncate(size - len(torn))
        yield lambda line: file.write(f"{line}\n".encode())


def json_lines(path: Path) -> Iterator[Any]:
    """The values of a file that `appending` wrote, one a line; a torn line is left out."""
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)


def serve_parent(worker: int = 0) -> None:
    """In a worker: its parent handles Ctrl-C and a cluster's signal, and it dies with it."""
    if len(tempfile.gettempdir()) > 60:  # characters; a whole path of a socket may have 107
        tempfile.tempdir = "/tmp"  # noqa: S108 - names in it are random
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    die_with_parent(parent.pid if parent and parent.pid else 0)


def in_parallel(
    work: Callable[[Any], Any], items: Sequence[Any], *, workers: int, title: str, done: int = 0
) -> Generator[Any, None, None]:
    """The results of `work` on every item in processes, as they come, with a bar.

    `done` counts what an earlier call has finished. An exception or an interrupt cancels what has
    not started, and no worker outlives this process. ChildProcessError when a worker dies.
    """
    if not items:
        return
    # Spawned, not forked: the caller may hold threads of torch or of a Jupyter kernel.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(items)), context, initializer=serve_parent)
    total = done + len(items)
    try:
        jobs = [pool.submit(work, item) for item in items]
        for job in tqdm(as_completed(jobs), title, total, initial=done, unit="video"):
            yield job.result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"{title}: a worker died, killed for lack of memory or from outside; the same call "
            "resumes"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)

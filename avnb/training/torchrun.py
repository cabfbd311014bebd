"""Start a job of several processes from a notebook, show its progress, leave nothing behind.

torchrun is started in a session of its own, its output read through a pipe: log lines go to a
file, progress lines move a plain tqdm bar. Whatever ends the launcher (an interrupt, a time-out,
a kill), the workers end too; if a worker fails, the exception carries its traceback.
"""

import collections
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from avnb import processes as guard
from avnb.progress import MARK

GRACE_SECONDS = 10.0  # between asking a job to end and ending it


class LaunchError(RuntimeError):
    """A job failed; the message ends with the failing worker's traceback or its last lines."""


def launch(
    arguments: Sequence[str],
    *,
    processes: int,
    folder: Path,
    title: str,
    stall_seconds: float = 900.0,
    module: str = "avnb",
) -> None:
    """Run `python -m MODULE ARGUMENTS` as `processes` processes of one job and wait for its end.

    Must be called from the main thread: Linux ties a child's life to the thread that made it.
    The whole output is in `folder/output.txt`.

    Raises:
        LaunchError: when a worker fails, or nothing is heard of the job for `stall_seconds`.
        ValueError: when called from another thread, or for less than one process.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ValueError("launch must be called from the main thread")
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    folder.mkdir(parents=True, exist_ok=True)
    errors, output = folder / "error.json", folder / "output.txt"
    errors.unlink(missing_ok=True)
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {
        **os.environ,
        "TORCHELASTIC_ERROR_FILE": str(errors),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
    }
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, guard.__file__, str(os.getpid()), sys.executable, *torchrun]
    with output.open("a") as log, started([*command, "-m", module, *arguments], environment) as job:
        tail = follow(job, log, title, stall_seconds)
        code = job.wait()
    if code:
        raise LaunchError(explain(title, code, errors, output, tail))


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The process; whatever happens inside the block, it and its group are gone afterwards."""
    job = subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield job
    finally:
        if job.poll() is None:
            job.terminate()  # torchrun passes it on to its workers
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.wait(GRACE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()
        if job.stdout:
            job.stdout.close()


def follow(job: subprocess.Popen[bytes], log: IO[str], title: str, stall: float) -> list[str]:
    """Read the job's output until it ends; return its last lines.

    The pipe's end is not waited for: a stray grandchild may hold it open.
    """
    tail: collections.deque[str] = collections.deque(maxlen=40)
    assert job.stdout is not None
    os.set_blocking(job.stdout.fileno(), False)
    rest, heard = b"", time.monotonic()
    with selectors.DefaultSelector() as ready, tqdm(desc=title, total=0, unit="clip") as bar:
        ready.register(job.stdout, selectors.EVENT_READ)
        while True:
            ended = job.poll() is not None  # asked before reading: nothing said earlier is lost
            chunk = (job.stdout.read() or b"") if ready.select(timeout=0.5) or ended else b""
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                heard = time.monotonic()
                show(line.decode(errors="replace"), log, bar, tail)
            if ended:
                return list(tail)
            if time.monotonic() - heard > stall:
                raise LaunchError(f"{title}: no sign of life for {stall:.0f} s; see {log.name}")


def show(line: str, log: IO[str], bar: Any, tail: collections.deque[str]) -> None:
    """A progress line moves the bar; any other line is logged."""
    before, mark, text = line.partition(MARK)
    if before or not mark:
        log.write(before + "\n")
        log.flush()
        tail.append(before)
    if mark:
        advance(bar, text)


def advance(bar: Any, text: str) -> None:
    """Move the bar to where a progress line, given without its mark, says that the job is."""
    said = json.loads(text)
    if "said" in said:
        bar.write(said["said"])
        return
    if bar.total != said["total"] or said["done"] < bar.n:  # the job's next folder
        bar.initial = 0
        bar.reset(said["total"])
        bar.initial = bar.n = said["done"]  # resumed: the rate counts from here
    bar.set_postfix_str(said["note"], refresh=False)
    bar.update(said["done"] - bar.n)


def explain(title: str, code: int, errors: Path, output: Path, tail: list[str]) -> str:
    """Why a job failed: the first failing worker's traceback, else the last lines it wrote."""
    reason = "\n".join(tail)
    if errors.exists():
        message = json.loads(errors.read_text()).get("message", {})
        if isinstance(message, dict):
            extra = message.get("extraInfo", {})
            reason = extra.get("py_callstack") or message.get("message") or reason
        else:
            reason = str(message)
    config = (
        f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed (exit status {code})"
    )
    return f"{title} {config}; the whole output is in {output}\n\n{reason.strip()}"

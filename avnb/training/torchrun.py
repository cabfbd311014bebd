"""Start a job of several processes on this machine, show its progress, leave nothing behind.

torchrun is started in a session of its own and its output read through a pipe. Whatever ends the
launcher (an interrupt, a time-out, a kill), the workers end too; if a worker fails, the exception
carries its traceback.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from avnb import processes as guard
from avnb.training.job_output import JobOutput, LaunchError

GRACE_SECONDS = 10.0  # between asking a job to end and ending it


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

    Must be called from the main thread: Linux ties a child's life to the thread that started it.
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
    # Threads that the caller has set stay: several jobs may share the machine.
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    settings = {"TORCHELASTIC_ERROR_FILE": str(errors), "PYTHONUNBUFFERED": "1"}
    environment = {**threads, **os.environ, **settings}
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, guard.__file__, str(os.getpid()), sys.executable, *torchrun]
    with (
        output.open("a") as log,
        started([*command, "-m", module, *arguments], environment) as job,
        JobOutput(title, log) as heard,
    ):
        follow(job, heard, stall_seconds)
        code = job.wait()
    if code:
        raise LaunchError(explain(title, code, errors, output, heard))


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The process; whatever happens inside the block, it and its group are gone afterwards."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    job = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)  # type: ignore[call-overload]
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
        job.stdout.close()


def follow(job: subprocess.Popen[bytes], heard: JobOutput, stall_seconds: float) -> None:
    """Read the job's output until it ends.

    The end of the pipe is not waited for: a stray grandchild may hold it open.
    """
    assert job.stdout is not None
    os.set_blocking(job.stdout.fileno(), False)
    with selectors.DefaultSelector() as ready:
        ready.register(job.stdout, selectors.EVENT_READ)
        while True:
            ended = job.poll() is not None  # asked before reading: nothing said earlier is lost
            if ready.select(timeout=0.5) or ended:
                heard.feed(job.stdout.read() or b"")
            if ended:
                return
            if heard.stalled(stall_seconds):
                log = heard.log.name if heard.log else "its output"
                raise LaunchError(
                    f"{heard.title}: no sign of life for {stall_seconds:.0f} s; see {log}"
                )


def explain(title: str, code: int, errors: Path, output: Path, heard: JobOutput) -> str:
    """Why a job failed: the first failing worker's traceback, else the last lines it wrote."""
    reason = "\n".join(heard.tail)
    if errors.exists():
        message = json.loads(errors.read_text()).get("message", {})
        if isinstance(message, dict):
            extra = message.get("extraInfo", {})
            reason = extra.get("py_callstack") or message.get("message") or reason
        else:
            reason = str(message)
    end = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed (status {code})"
    return f"{title} {end}; the whole output is in {output}\n\n{reason.strip()}"

"""The same job on a cluster: SLURM, through submitit, on one node or several.

The job belongs to SLURM, not to the notebook that submitted it: the launcher shows the queue, then
the progress, and may be interrupted; the same call later returns to the same job. What SLURM
preempts, or ends for its time, is requeued under its id and goes on from its last checkpoint.

A run's folder must lie where all nodes see it. In it, `slurm.json` names the job while there is
one, and `slurm/` holds what submitit writes: the script, and the output of every process.
"""

import dataclasses
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from tqdm import tqdm

from avnb.files import write_aside
from avnb.progress import MARK
from avnb.training import entrypoint
from avnb.training.torchrun import LaunchError, advance
from avnb.values import check_range, unknown_name

if TYPE_CHECKING:
    import submitit

# squeue's words for a job that will not run again under its id.
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
READ_EVERY_SECONDS = 0.5
SHARED_DISK_SECONDS = 15.0  # what a node wrote may take so long to be seen here
TAIL_BYTES = 2**16


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What is asked of SLURM; '' and 0 leave the choice to the cluster unless said otherwise."""

    partition: str = ""
    account: str = ""
    minutes: int = 24 * 60  # time limit of one turn; a job that reaches it is requeued
    requeues: int = 100  # how often, at most
    gpus_per_node: int = 0  # 0 trains on processors
    cpus_per_process: int = 0  # 0: one, and one for each decoding worker
    memory_gb: float = 0.0  # of a node
    setup: str = ""  # a line of shell before Python starts: "module load cuda"
    options: Mapping[str, str] = field(default_factory=dict)  # any other of sbatch: {"qos": "long"}

    def __post_init__(self) -> None:
        check_range(self, 1, 10**6, "minutes")
        check_range(self, 0, 10**6, "requeues", "gpus_per_node", "cpus_per_process", "memory_gb")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """From one line: `partition=gpu gpus_per_node=8 minutes=2880 --qos=long --exclusive`.

        Words that begin with `--` are options of sbatch, as they are.

        Raises:
            TypeError: for an unknown name; it gives the nearest.
            ValueError: for a value that is no number where one is meant, or out of range.
        """
        kinds = {k: v for k, v in typing.get_type_hints(cls).items() if v in (str, int, float)}
        values: dict[str, Any] = {}
        options: dict[str, str] = {}
        for word in shlex.split(text):
            name, _, value = word.partition("=")
            if name.startswith("--"):
                options[name.removeprefix("--")] = value
            elif name in kinds:
                values[name] = kinds[name](value)
            else:
                raise TypeError(unknown_name("SLURM value", name, kinds))
        return cls(**values, options=options)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The processes of a job and where they stand."""

    processes: int  # of the whole job, a multiple of `nodes`
    nodes: int = 1
    workers: int = 0  # decoding processes of each: CPUs are asked for them
    slurm: Slurm = field(default_factory=Slurm)

    def parameters(self, name: str) -> dict[str, Any]:
        """What submitit's SlurmExecutor is to ask for."""
        slurm = self.slurm
        cpus = slurm.cpus_per_process or 1 + self.workers
        flags = {option: value or True for option, value in slurm.options.items()}
        return {
            "job_name": name,
            "nodes": self.nodes,
            "ntasks_per_node": self.processes // self.nodes,
            "time": slurm.minutes,
            "cpus_per_task": cpus,
            "wckey": None,
            "partition": slurm.partition or None,
            "account": slurm.account or None,
            "gpus_per_node": slurm.gpus_per_node or None,
            "mem": f"{round(slurm.memory_gb * 1024)}MB" if slurm.memory_gb else None,
            "setup": [slurm.setup, f"export OMP_NUM_THREADS={cpus}"],
            # One process that fails ends the others; srun does not take sbatch's CPUs by itself.
            "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={cpus}"],
            "additional_parameters": {"requeue": True, **flags},
        }


@dataclass
class Task:
    """One process of a training job; submitit pickles it and calls it on a node."""

    folder: Path
    minutes: int  # the turn's time limit
    gpus_per_node: int

    def __call__(self) -> None:
        """Find the other processes and train."""
        import submitit

        here = submitit.JobEnvironment()
        # What an earlier turn left would be taken for this one's.
        for old in here.paths.result_pickle.parent.glob(f"{here.paths.result_pickle.name}*"):
            old.unlink()
        beside = here.num_tasks // here.num_nodes
        if self.gpus_per_node and torch.cuda.device_count() < beside:
            raise RuntimeError(
                f"node {here.hostname} was to give {self.gpus_per_node} GPUs, but PyTorch sees "
                f"{torch.cuda.device_count()}; does `nvidia-smi` work there, in this environment?"
            )
        os.environ |= {
            "RANK": str(here.global_rank),
            "WORLD_SIZE": str(here.num_tasks),
            "LOCAL_RANK": str(here.local_rank),
            "LOCAL_WORLD_SIZE": str(beside),
            "MASTER_ADDR": address(here.hostnames[0]),
            # Jobs that share a node have different numbers; ports above 32767 are handed out.
            "MASTER_PORT": str(20_000 + int(here.raw_job_id) % 10_000),
        }
        self.began, self.first = time.monotonic(), saved(self.folder)
        entrypoint.main(self.folder)

    def checkpoint(self) -> Any:
        """What to run next time; submitit asks when the time is up or the job is preempted.

        Raises:
            RuntimeError: when a whole turn was too short for a checkpoint: another would be, too.
        """
        from submitit.helpers import DelayedSubmission

        spent = (time.monotonic() - self.began) / 60
        if spent > 0.8 * self.minutes and saved(self.folder) == self.first:
            raise RuntimeError(
                f"{self.minutes} minutes were too short for one checkpoint, from which a job can "
                "go on: give `minutes` more, take more processes, or lower `save_every_steps`"
            )
        return DelayedSubmission(Task(self.folder, self.minutes, self.gpus_per_node))


def saved(folder: Path) -> int:
    """When the last checkpoint of the run in `folder` was written; 0 when there is none."""
    last = folder / "last.pt"
    return last.stat().st_mtime_ns if last.exists() else 0


def address(node: str) -> str:
    """Where a node is reached: its name, or what SLURM has for one that does not resolve."""
    try:
        socket.getaddrinfo(node, None)
    except socket.gaierror:
        found = re.search(r"\bNodeAddr=(\S+)", ask("scontrol", "show", "node", node).stdout)
        if not found:
            raise
        return found[1]
    return node


def ask(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One of SLURM's commands and what it said.

    Raises:
        LaunchError: when this machine does not have it.
    """
    program = shutil.which(name)
    if program is None:
        raise LaunchError(
            f"the launcher 'slurm' needs SLURM's command `{name}`, which is not on this machine's "
            "PATH: start from a login node of the cluster, or take the launcher 'local'"
        )
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def state(job: str) -> tuple[str, str]:
    """SLURM's word for what a job does, and why it waits; '' when SLURM has forgotten the job.

    From squeue, which works without the accounting database.
    """
    said = ask("squeue", f"--jobs={job}", "--states=all", "--noheader", "--format=%T|%r")
    if said.returncode:
        gone = "Invalid job id" in said.stderr
        return ("", "") if gone else ("UNKNOWN", said.stderr.strip())  # a controller may restart
    what, _, why = said.stdout.strip().partition("|")
    return what, "" if why == "None" else why


def going(what: str) -> bool:
    """Whether a job in this state may still run."""
    return bool(what) and what not in ENDED


def remembered(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """The job that was submitted for a run, and its values, if it is still going."""
    file = folder / "slurm.json"
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    what, _ = state(found["job"])
    if going(what):
        return found["job"], found["values"]
    print(f"job {found['job']} of this run has ended meanwhile ({what or 'SLURM forgot it'})")
    file.unlink()
    return None


def check(folder: Path, cast: Resources | None) -> None:
    """See that the run in `folder` may be trained by `cast`, or on this machine (None).

    Raises:
        LaunchError: when there is no SLURM to ask, or its job for this run goes on otherwise.
    """
    if cast:
        ask("sbatch", "--version")
    elif (folder / "slurm.json").exists() and not shutil.which("squeue"):
        raise LaunchError(
            f"{folder / 'slurm.json'} names a job of SLURM that trains this run, and `squeue` is "
            "not here to ask whether it still does: go on from the cluster, or delete that file "
            "if the job has ended"
        )
    found = remembered(folder)
    if found and found[1] != (dataclasses.asdict(cast) if cast else None):
        raise LaunchError(
            f"job {found[0]} of SLURM is training this run ({folder}) with launcher='slurm' and "
            f"{found[1]}: call with the same to return to it, or end it with `scancel {found[0]}`"
        )


def cancel(folder: Path) -> None:
    """End the job that was submitted for the run in `folder`, if it is still going."""
    if found := remembered(folder):
        ask("scancel", found[0])
        (folder / "slurm.json").unlink()
        print(f"job {found[0]} of SLURM was cancelled")


def launch(
    folders: Sequence[Path], cast: Resources, *, title: str, stall_seconds: float = 900.0
) -> None:
    """Train the runs in `folders`, which hold `job.json`, on a cluster, and wait for their ends.

    All are submitted at once, but for those that have a job, which is returned to. An interrupt
    leaves the jobs to SLURM and says how to come back and how to end them; one that runs but says
    nothing for `stall_seconds` is cancelled.

    Raises:
        LaunchError: when SLURM is not there or refuses, or when the job fails; then the message
            holds the failing process's traceback.
    """
    jobs: dict[Path, str] = {}
    try:
        for folder in map(Path.resolve, folders):
            jobs[folder] = submit_or_attach(folder, cast)
        for folder in list(jobs):
            wait(folder, jobs[folder], cast, f"{title}, {folder.name}", stall_seconds)
            del jobs[folder]
    except (KeyboardInterrupt, LaunchError):
        for number in jobs.values():
            if going(state(number)[0]):
                goes_on = f"job {number} goes on; the same call returns to it"
                print(f"{goes_on}, `scancel {number}` ends it", file=sys.stderr)
        raise


def submit_or_attach(folder: Path, cast: Resources) -> str:
    """The number of the job that trains the run in `folder`, submitted if there is none."""
    check(folder, cast)
    found = remembered(folder)
    number = found[0] if found else submit(folder, cast)
    print(f"{folder.name}: job {number} of SLURM; its output is in {folder / 'slurm'}")
    return number


def wait(folder: Path, number: str, cast: Resources, title: str, stall_seconds: float) -> None:
    """Show how a job goes until it ends; LaunchError when it fails."""
    import submitit

    job = submitit.SlurmJob[None](folder / "slurm", number, tasks=range(cast.processes))
    config = follow(job, title, stall_seconds)
    (folder / "slurm.json").unlink(missing_ok=True)
    raise_on_failure(job, config, title)


def submit(folder: Path, cast: Resources) -> str:
    """The new job's number, noted in the folder; LaunchError with sbatch's words if it refuses."""
    import submitit
    from submitit.core.utils import FailedJobError

    slurm = cast.slurm
    executor = submitit.SlurmExecutor(folder / "slurm", max_num_timeout=slurm.requeues)
    executor.update_parameters(**cast.parameters(f"avnb-{folder.name}"))
    place = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    try:
        with submitit.helpers.clean_env():  # a notebook may itself run inside a job
            os.environ.update(place)  # which cluster, though, stays
            job = executor.submit(Task(folder, slurm.minutes, slurm.gpus_per_node))
    except FailedJobError as error:
        raise LaunchError(f"sbatch refused the job: {error}") from error
    note = {"job": job.job_id, "values": dataclasses.asdict(cast)}
    write_aside(folder / "slurm.json", json.dumps(note))
    return job.job_id


def follow(job: "submitit.SlurmJob[None]", title: str, stall: float) -> str:
    """Show the queue, then the progress, until the job has ended; SLURM's word for how."""
    news = gained(job.task(0).paths.stdout)
    began = heard = time.monotonic()
    with tqdm(desc=title, total=0, unit="clip") as bar:
        while True:
            what, why = state(job.job_id)
            if what != "RUNNING":
                heard = time.monotonic()
            if what not in ("RUNNING", "COMPLETING", "COMPLETED") or not bar.total:
                bar.set_postfix_str(f"job {job.job_id} {what.lower()} {why}".strip())
            # Controllers are shared: soon after the start they are asked often, later seldom.
            pause = min(30.0, 1.0 + (time.monotonic() - began) / 20)
            heard = max(heard, listen(job, news, bar, pause if going(what) else 0))
            if not going(what):
                return what
            if time.monotonic() - heard > stall:
                ask("scancel", job.job_id)
                raise LaunchError(
                    f"{title}: no sign of life of job {job.job_id} for {stall:.0f} s, so it was "
                    f"cancelled; see {job.paths.folder}"
                )


def listen(
    job: "submitit.SlurmJob[None]", news: Iterator[list[str]], bar: Any, seconds: float
) -> float:
    """Show what the job writes, until so many seconds have passed or all its processes are done.

    Returns when the last of it was heard, by the monotonic clock; 0 for silence.
    """
    heard, end = 0.0, time.monotonic() + seconds
    while True:
        lines = next(news)
        told = [text for _, mark, text in (line.partition(MARK) for line in lines) if mark]
        for place, text in enumerate(told, start=1):
            if place == len(told) or "said" in json.loads(text):
                advance(bar, text)
        heard = time.monotonic() if lines else heard
        if time.monotonic() >= end:
            return heard
        time.sleep(READ_EVERY_SECONDS)
        if not missing(job):
            end = 0.0


def gained(path: Path) -> Iterator[list[str]]:
    """Whenever asked: the whole lines that a growing file has got, at first its last ones."""
    place, rest = -1, b""
    while True:
        chunk = b""
        if path.exists():
            with path.open("rb") as file:
                place = max(0, path.stat().st_size - TAIL_BYTES) if place < 0 else place
                file.seek(place)
                chunk = file.read()
            place += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        yield [line.decode(errors="replace") for line in lines]


def missing(job: "submitit.SlurmJob[None]") -> list[int]:
    """The processes of a job that have not written how they ended."""
    results = {k: job.task(k).paths.result_pickle for k in range(job.num_tasks)}
    return [k for k, result in results.items() if not result.exists()]


def raise_on_failure(job: "submitit.SlurmJob[None]", config: str, title: str) -> None:
    """Raise LaunchError, with the first failing process's traceback, unless all went well."""
    patience = time.monotonic() + (SHARED_DISK_SECONDS if config in ("COMPLETED", "") else 0)
    while (absent := missing(job)) and time.monotonic() < patience:
        time.sleep(READ_EVERY_SECONDS)
    there = [job.task(k) for k in range(job.num_tasks) if k not in absent]
    there.sort(key=lambda task: task.paths.result_pickle.stat().st_mtime)
    failures = [error for task in there if (error := task.exception())]
    if absent or failures:
        reason = traceback_in(str(failures[0])) if failures else last_words(job)
        raise LaunchError(
            f"{title}: job {job.job_id} of SLURM ended as {config or 'unknown'}; its whole output "
            f"is in {job.paths.folder}\n\n{reason}"
        )


def traceback_in(message: str) -> str:
    """A worker's traceback without the advice that submitit puts around it."""
    _, rule, rest = message.partition("-" * 22 + "\n")
    return rest.rpartition("\n" + rule)[0].strip() or message


def last_words(job: "submitit.SlurmJob[None]") -> str:
    """The last lines of a job that left no traceback: what its first process and srun wrote."""
    paths = job.task(0).paths
    lines = [
        line
        for file in (paths.stdout, paths.stderr)
        for line in next(gained(file))[-20:]
        if MARK not in line
    ]
    return "\n".join(lines).strip() or "it has written nothing"

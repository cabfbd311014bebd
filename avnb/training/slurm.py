"""The same job on a cluster: SLURM, through submitit, on one node or several.

The job belongs to SLURM, not to the notebook that submitted it: the launcher shows the queue, then
the progress, and may be interrupted; the same call later returns to the same job. What SLURM
preempts, or ends for its time, is requeued under its id and resumes from its last checkpoint.

A run's folder must be visible to all nodes. In it, `slurm.json` names the job while there is
one, and `slurm/` holds what submitit writes: the script, and the output of every process.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avnb.data.loader import AUTO
from avnb.files import read_json, write_text
from avnb.progress import MARK
from avnb.training.job_output import JobOutput, LaunchError
from avnb.training.resources import Resources
from avnb.training.slurm_task import Task, ask

if TYPE_CHECKING:
    import submitit

# squeue's words for a job that will not run again under its id.
ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"}
    | {"PREEMPTED", "REVOKED", "TIMEOUT"}
)
WORKERS_A_GPU = 7  # that decode, where their number is left to us
READ_EVERY_SECONDS = 0.5
SHARED_DISK_SECONDS = 15.0  # what a node wrote may take so long to be seen here
TAIL_BYTES = 2**16


def executor_parameters(resources: Resources, name: str) -> dict[str, Any]:
    """What submitit's SlurmExecutor is to ask for."""
    slurm = resources.slurm
    workers = resources.workers
    if workers == AUTO:
        workers = WORKERS_A_GPU if slurm.gpus_per_node else 0
    cpus = slurm.cpus_per_process or 1 + workers
    flags = {option: value or True for option, value in slurm.options.items()}
    return dict(
        job_name=name,
        nodes=resources.nodes,
        time=slurm.minutes,
        cpus_per_task=cpus,
        wckey=None,
        ntasks_per_node=resources.processes // resources.nodes,
        partition=slurm.partition or None,
        account=slurm.account or None,
        gpus_per_node=slurm.gpus_per_node or None,
        mem=f"{round(slurm.memory_gb * 1024)}MB" if slurm.memory_gb else None,
        setup=[slurm.setup, f"export OMP_NUM_THREADS={cpus}"],
        # One process that fails ends the others; srun does not take sbatch's CPUs by itself.
        srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={cpus}"],
        additional_parameters={"requeue": True, **flags},
    )


def state(job: str) -> tuple[str, str]:
    """SLURM's word for what a job does, and why it waits; '' when SLURM has forgotten the job.

    From squeue, which works without the accounting database.
    """
    answer = ask("squeue", f"--jobs={job}", "--states=all", "--noheader", "--format=%T|%r")
    if answer.returncode:
        gone = "Invalid job id" in answer.stderr
        return ("", "") if gone else ("UNKNOWN", answer.stderr.strip())  # it may be restarting
    word, _, why = answer.stdout.strip().partition("|")
    return word, "" if why == "None" else why


def is_alive(word: str) -> bool:
    """Whether a job in this state may still run."""
    return bool(word) and word not in ENDED


def submitted_job(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """The job that was submitted for a run, and its resources, if it is still alive."""
    file = folder / "slurm.json"
    if not file.exists():
        return None
    note = read_json(file, "the note of a job of SLURM")
    word, _ = state(note["job"])
    if is_alive(word):
        return note["job"], note["values"]
    print(f"job {note['job']} of this run has ended meanwhile ({word or 'SLURM forgot it'})")
    file.unlink()
    return None


def check(folder: Path, resources: Resources) -> None:
    """See that the run in `folder` may be trained on these resources.

    Raises:
        LaunchError: when there is no SLURM to ask, or its job for this run uses others.
    """
    file, on_cluster = folder / "slurm.json", resources.launcher == "slurm"
    if on_cluster:
        ask("sbatch", "--version")
    elif file.exists() and not shutil.which("squeue"):
        raise LaunchError(
            f"{file} names a job of SLURM that trains this run, and `squeue` is not here to ask "
            "whether it still does: continue from the cluster, or delete that file if the job has "
            "ended"
        )
    job = submitted_job(folder)
    if job and job[1] != resources.values:
        raise LaunchError(
            f"job {job[0]} of SLURM is training this run ({folder}) with launcher='slurm' and "
            f"{job[1]}: call with the same to return to it, or end it with `scancel {job[0]}`"
        )


def cancel(folder: Path) -> None:
    """End the job that was submitted for the run in `folder`, if it is still alive."""
    if job := submitted_job(folder):
        ask("scancel", job[0])
        (folder / "slurm.json").unlink()
        print(f"job {job[0]} of SLURM was cancelled")


def launch(folders: Sequence[Path], resources: Resources, *, title: str) -> None:
    """Train the runs in `folders`, which hold `job.json`, on a cluster, and wait for their ends.

    All are submitted at once, except those that have a job, which is returned to. An interrupt
    leaves the jobs to SLURM and says how to come back and how to end them; one that runs but says
    nothing for `stall_seconds` is cancelled.

    Raises:
        LaunchError: when SLURM is not there or refuses, or when the job fails; then the message
            holds the failing process's traceback.
    """
    jobs: dict[Path, str] = {}
    try:
        for folder in map(Path.resolve, folders):
            jobs[folder] = submit_or_attach(folder, resources)
        for folder in list(jobs):
            wait(folder, jobs[folder], resources, f"{title}, {folder.name}")
            del jobs[folder]
    except (KeyboardInterrupt, LaunchError):
        for number in jobs.values():
            if is_alive(state(number)[0]):
                message = f"job {number} goes on; the same call returns to it"
                print(f"{message}, `scancel {number}` ends it", file=sys.stderr)
        raise


def submit_or_attach(folder: Path, resources: Resources) -> str:
    """The number of the job that trains the run in `folder`, submitted if there is none."""
    check(folder, resources)
    job = submitted_job(folder)
    number = job[0] if job else submit(folder, resources)
    print(f"{folder.name}: job {number} of SLURM; its output is in {folder / 'slurm'}")
    return number


def submit(folder: Path, resources: Resources) -> str:
    """The new job's number, noted in the folder; LaunchError with sbatch's words if it refuses."""
    import submitit
    from submitit.core.utils import FailedJobError

    slurm = resources.slurm
    executor = submitit.SlurmExecutor(folder / "slurm", max_num_timeout=slurm.requeues)
    executor.update_parameters(**executor_parameters(resources, f"avnb-{folder.name}"))
    cluster = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    try:
        with submitit.helpers.clean_env():  # a notebook may itself run inside a job
            os.environ.update(cluster)
            job = executor.submit(Task(folder, slurm.minutes, slurm.gpus_per_node))
    except FailedJobError as error:
        raise LaunchError(f"sbatch refused the job: {error}") from error
    note = {"job": job.job_id, "values": resources.values}
    write_text(folder / "slurm.json", json.dumps(note))
    return job.job_id


def wait(folder: Path, number: str, resources: Resources, title: str) -> None:
    """Show how a job goes until it ends; LaunchError when it fails."""
    import submitit

    job = submitit.SlurmJob[None](folder / "slurm", number, tasks=range(resources.processes))
    with JobOutput(title) as heard:
        word = follow(job, heard, resources.stall_seconds)
    (folder / "slurm.json").unlink(missing_ok=True)
    raise_on_failure(job, word, title)


def follow(job: "submitit.SlurmJob[None]", heard: JobOutput, stall_seconds: float) -> str:
    """Show the queue, then the progress, until the job has ended; SLURM's word for how."""
    output, began = GrowingFile(job.task(0).paths.stdout), time.monotonic()
    while True:
        word, why = state(job.job_id)
        if word != "RUNNING":
            heard.heard = time.monotonic()
        if word not in ("RUNNING", "COMPLETING", "COMPLETED") or not heard.bar.total:
            heard.bar.set_postfix_str(f"job {job.job_id} {word.lower()} {why}".strip())
        # Controllers are shared: soon after the start they are asked often, later seldom.
        pause = min(30.0, 1.0 + (time.monotonic() - began) / 20)
        ask_again = time.monotonic() + (pause if is_alive(word) else 0)
        heard.feed(output.read())
        while time.monotonic() < ask_again and missing_results(job):
            time.sleep(READ_EVERY_SECONDS)
            heard.feed(output.read())
        if not is_alive(word):
            return word
        if heard.stalled(stall_seconds):
            ask("scancel", job.job_id)
            raise LaunchError(
                f"{heard.title}: no sign of life of job {job.job_id} for {stall_seconds:.0f} s, so "
                f"it was cancelled; see {job.paths.folder}"
            )


class GrowingFile:
    """Reads what a file has gained since the last call, at first its end."""

    def __init__(self, path: Path):
        self.path, self.position = path, -1

    def read(self) -> bytes:
        """The new bytes; none while there is no file."""
        if not self.path.exists():
            return b""
        with self.path.open("rb") as file:
            if self.position < 0:
                self.position = max(0, self.path.stat().st_size - TAIL_BYTES)
            file.seek(self.position)
            chunk = file.read()
        self.position += len(chunk)
        return chunk


def missing_results(job: "submitit.SlurmJob[None]") -> list[int]:
    """The processes of a job that have not written how they ended."""
    results = {k: job.task(k).paths.result_pickle for k in range(job.num_tasks)}
    return [k for k, result in results.items() if not result.exists()]


def raise_on_failure(job: "submitit.SlurmJob[None]", word: str, title: str) -> None:
    """Raise LaunchError, with the first failing process's traceback, unless all went well."""
    until = time.monotonic() + (SHARED_DISK_SECONDS if word in ("COMPLETED", "") else 0)
    while (missing := missing_results(job)) and time.monotonic() < until:
        time.sleep(READ_EVERY_SECONDS)
    tasks = [job.task(k) for k in range(job.num_tasks) if k not in missing]
    tasks.sort(key=lambda task: task.paths.result_pickle.stat().st_mtime)
    failures = [error for task in tasks if (error := task.exception())]
    if missing or failures:
        reason = traceback_in(str(failures[0])) if failures else last_lines(job)
        raise LaunchError(
            f"{title}: job {job.job_id} of SLURM ended as {word or 'unknown'}; its whole output is "
            f"in {job.paths.folder}\n\n{reason}"
        )


def traceback_in(message: str) -> str:
    """A worker's traceback without the advice that submitit puts around it."""
    _, rule, rest = message.partition("-" * 22 + "\n")
    return rest.rpartition("\n" + rule)[0].strip() or message


def last_lines(job: "submitit.SlurmJob[None]") -> str:
    """The last lines of a job that left no traceback: what its first process and srun wrote."""
    paths = job.task(0).paths
    texts = [
        GrowingFile(file).read().decode(errors="replace") for file in (paths.stdout, paths.stderr)
    ]
    lines = [line for text in texts for line in text.splitlines()[-20:] if MARK not in line]
    return "\n".join(lines).strip() or "it has written nothing"

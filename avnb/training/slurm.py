"""The same job on a cluster: SLURM, through submitit, on one node or several.

The job belongs to SLURM, not to the notebook that submitted it, which may be interrupted: the same
call later returns to the same job. What SLURM preempts, or ends for its time, is requeued under its
id and resumes from its last checkpoint. A run's folder must be visible to all nodes; in it,
`slurm.json` names the job while there is one, and `slurm/` holds submitit's files and all output.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from avnb.data.loader import AUTO
from avnb.files import read_json, write_text
from avnb.training.launch import LaunchError, Progress, Resources, last_lines

if TYPE_CHECKING:
    import submitit

WORKERS_A_GPU = 7  # that decode, where their number is left to us
ASK_EVERY_SECONDS = 10.0  # controllers are shared
SHARED_DISK_SECONDS = 15.0  # what a node wrote may take so long to be seen here


@dataclass
class Task:
    """One process of a job: `work(folder)` together with the others; what submitit pickles."""

    work: Callable[[Path], None]
    folder: Path
    needs_gpu: bool

    def __call__(self) -> None:
        """Find the other processes and work.

        MASTER_ADDR, where `setup` exports it, stands for a first node whose name does not resolve.
        """
        from submitit.helpers import TorchDistributedEnvironment

        here = TorchDistributedEnvironment()
        here._job_env.paths.result_pickle.unlink(missing_ok=True)  # of an earlier turn
        here.master_addr = os.environ.get("MASTER_ADDR", here.master_addr)
        here.export(set_cuda_visible_devices=False, overwrite=True)
        if self.needs_gpu and torch.cuda.device_count() < here.local_world_size:
            raise RuntimeError(
                f"PyTorch sees {torch.cuda.device_count()} GPUs of {os.uname().nodename}, which "
                f"was to give {here.local_world_size}; does `nvidia-smi` work there?"
            )
        self.work(self.folder)

    def checkpoint(self) -> Any:
        """The same again, from the last checkpoint; submitit asks when the turn is over."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def executor_parameters(resources: Resources, name: str) -> dict[str, Any]:
    """What submitit's SlurmExecutor is to ask for."""
    slurm, workers = resources.slurm, resources.workers
    if workers == AUTO:
        workers = WORKERS_A_GPU if slurm.gpus_per_node else 0
    cpus = slurm.cpus_per_process or 1 + workers
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
        setup=[f"export OMP_NUM_THREADS={cpus}", slurm.setup],
        # One process that fails ends the others; srun does not take sbatch's CPUs by itself.
        srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={cpus}"],
        additional_parameters={"requeue": True, **{k: v or True for k, v in slurm.options.items()}},
    )


def state(job: str) -> str:
    """squeue's words on a job that has not ended, as `RUNNING None`; '' on another.

    Raises:
        FileNotFoundError: away from a cluster.
    """
    command = ["squeue", "--me", "--noheader", "--format=%A|%T %r"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        return answer.stderr.strip() or "squeue fails"  # the controller may be restarting
    return dict(line.split("|", 1) for line in answer.stdout.splitlines()).get(job, "")


def submitted(folder: Path) -> "submitit.Job[None] | None":
    """The job that trains the run in `folder`, if there is one that has not ended."""
    import submitit

    if not (folder / "slurm.json").exists():
        return None
    note = read_json(folder / "slurm.json", "the note of a job of SLURM")
    if not state(note["job"]):
        (folder / "slurm.json").unlink()
        return None
    return submitit.SlurmJob(folder / "slurm", note["job"], tasks=range(note["processes"]))


def submit(
    work: Callable[[Path], None], folder: Path, resources: Resources
) -> "submitit.Job[None]":
    """The new job, noted in the folder; LaunchError with sbatch's words if it refuses."""
    import submitit
    from submitit.core.utils import FailedJobError

    slurm = resources.slurm
    executor = submitit.SlurmExecutor(folder / "slurm", max_num_timeout=slurm.requeues)
    executor.update_parameters(**executor_parameters(resources, f"avnb-{folder.name}"))
    cluster = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    try:
        with submitit.helpers.clean_env():  # a notebook may itself run inside a job
            os.environ.update(cluster)
            job = executor.submit(Task(work, folder, slurm.gpus_per_node > 0))
    except (FailedJobError, RuntimeError) as error:  # of sbatch, or without SLURM
        raise LaunchError(f"SLURM did not take the job: {error}") from error
    note = {"job": job.job_id, "processes": resources.processes}
    write_text(folder / "slurm.json", json.dumps(note))
    return job


def launch(
    work: Callable[[Path], None], folders: Sequence[Path], resources: Resources, progress: Progress
) -> None:
    """Have `work` done for each folder, in a job each, and wait for their ends.

    All are submitted at once, except those that have a job, which is returned to.

    Raises:
        LaunchError: when SLURM is not there or refuses, or when a job fails; then the message
            holds the failing process's traceback.
    """
    jobs = {f: submitted(f) or submit(work, f, resources) for f in map(Path.resolve, folders)}
    for folder, job in jobs.items():
        print(f"{folder.name}: job {job.job_id} of SLURM; its output is in {folder / 'slurm'}")
    try:
        for folder, job in jobs.items():
            wait(job, progress)
            (folder / "slurm.json").unlink(missing_ok=True)
            raise_on_failure(job, progress.title)
    except KeyboardInterrupt:
        print("the jobs go on; the same call returns to them, and scancel ends them", flush=True)
        raise


def missing_results(job: "submitit.Job[None]") -> bool:
    """Whether a process has not written how it ended."""
    return not all(job.task(k).paths.result_pickle.exists() for k in range(job.num_tasks))


def wait(job: "submitit.Job[None]", progress: Progress) -> None:
    """Show the job's state, then its progress, until it has ended."""
    output = job.task(0).paths.stdout
    while words := state(job.job_id):
        until = time.monotonic() + ASK_EVERY_SECONDS
        while time.monotonic() < until:
            waiting = "" if words.startswith("RUNNING") else f"job {job.job_id} {words}"
            progress.update(output, waiting)
            if not missing_results(job):
                return
            time.sleep(1)


def raise_on_failure(job: "submitit.Job[None]", title: str) -> None:
    """Raise LaunchError, with the first failing process's traceback, unless all went well."""
    until = time.monotonic() + SHARED_DISK_SECONDS
    while missing_results(job) and time.monotonic() < until:
        time.sleep(0.5)
    tasks = [job.task(k) for k in range(job.num_tasks)]
    ended = [task for task in tasks if task.paths.result_pickle.exists()]
    ended.sort(key=lambda task: task.paths.result_pickle.stat().st_mtime)
    reason = next((str(error) for task in ended if (error := task.exception())), "")
    if reason or len(ended) < len(tasks):
        reason = reason or "\n".join(last_lines(job.task(0).paths.stderr, 40))
        raise LaunchError(
            f"{title}: job {job.job_id} of SLURM failed; its whole output is in "
            f"{job.paths.folder}\n\n{reason}"
        )

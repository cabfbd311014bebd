"""The same job on a cluster: SLURM, through submitit, on one node or several.

The job belongs to SLURM, not to the notebook that submitted it: the same call later returns to the
same job, which is requeued under its id when preempted or out of time. A run's folder, visible to
all nodes, holds `slurm.json`, which names the job while there is one, and `slurm/` with all output.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import submitit
import torch
from submitit.core.utils import FailedJobError
from submitit.helpers import Checkpointable, TorchDistributedEnvironment, clean_env

from avnb.data.loader import AUTO
from avnb.files import write_text
from avnb.training.launch import LaunchError, Resources, last_lines

MINUTES = 24 * 60  # time limit of one turn, unless `slurm` has another
REQUEUES = 100  # at most
WORKERS_A_GPU = 7  # that decode, where their number is left to us
ASK_EVERY_SECONDS = 10.0  # controllers are shared
SHARED_DISK_SECONDS = 15.0  # what a node wrote may take so long to be seen here
Work = Callable[[Path], None]
Show = Callable[[Path, str], None]  # takes a job's output and its state


class Task(Checkpointable):
    """One process of a job; at the end of a turn, submitit has it called again in the next."""

    def __call__(self, work: Work, folder: Path, gpus: int) -> None:
        """`work(folder)` together with the others; `gpus` are those of a node.

        MASTER_ADDR, where `setup` exports it, stands for a first node whose name does not resolve.
        """
        here = TorchDistributedEnvironment()
        here._job_env.paths.result_pickle.unlink(missing_ok=True)  # of an earlier turn
        here.master_addr = os.environ.get("MASTER_ADDR", here.master_addr)
        here.export(set_cuda_visible_devices=False, overwrite=True)
        if gpus and not torch.cuda.is_available():
            raise RuntimeError(f"{os.uname().nodename} has no GPU for PyTorch, not {gpus}")
        work(folder)


def executor_parameters(resources: Resources, name: str) -> dict[str, Any]:
    """What submitit's SlurmExecutor is to ask for."""
    given: dict[str, Any] = {"nodes": 1, "setup": [], **(resources.slurm or {})}
    auto = WORKERS_A_GPU if resources.gpus_per_node else 0
    workers = auto if resources.workers == AUTO else resources.workers
    cpus = given.setdefault("cpus_per_task", 1 + workers)
    given["setup"] = [f"export OMP_NUM_THREADS={cpus}", *given["setup"]]
    given["additional_parameters"] = {"requeue": True, **given.get("additional_parameters", {})}
    # One process that fails ends the others; srun does not take sbatch's CPUs by itself.
    srun = ["--kill-on-bad-exit=1", f"--cpus-per-task={cpus}"]
    processes = resources.processes // given["nodes"]
    ours = dict(job_name=name, time=MINUTES, wckey=None, ntasks_per_node=processes, srun_args=srun)
    return {**ours, **given}


def state(job: str) -> str:
    """squeue's words on a job that has not ended, as `RUNNING None`; '' on another.

    (submitit asks sacct, which answers only where the cluster keeps accounts.)
    """
    command = ["squeue", "--me", "--noheader", "--format=%A|%T %r"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        return answer.stderr.strip() or "squeue fails"  # the controller may be restarting
    return dict(line.split("|", 1) for line in answer.stdout.splitlines()).get(job, "")


def submitted(folder: Path) -> submitit.Job[None] | None:
    """The job that trains the run in `folder`, if there is one that has not ended."""
    note = folder / "slurm.json"
    if note.exists():
        kept = json.loads(note.read_text())
        if state(kept["job"]):
            return submitit.SlurmJob(folder / "slurm", kept["job"], tasks=range(kept["processes"]))
        note.unlink()
    return None


def submit(work: Work, folder: Path, resources: Resources) -> submitit.Job[None]:
    """The new job, noted in the folder; LaunchError with sbatch's words if it refuses."""
    parameters = executor_parameters(resources, f"avnb-{folder.name}")
    cluster = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    try:
        executor = submitit.SlurmExecutor(folder / "slurm", max_num_timeout=REQUEUES)
        executor.update_parameters(**parameters)
        with clean_env():  # a notebook may itself run inside a job
            os.environ.update(cluster)
            job = executor.submit(Task(), work, folder, resources.gpus_per_node)
    except (FailedJobError, RuntimeError) as error:  # of sbatch, or without SLURM
        raise LaunchError(f"SLURM did not take the job: {error}") from error
    note = {"job": job.job_id, "processes": resources.processes}
    write_text(folder / "slurm.json", json.dumps(note))
    return job


def launch(work: Work, folders: Sequence[Path], resources: Resources, show: Show) -> None:
    """Have `work` done for each folder, in a job each, and wait for their ends.

    All are submitted at once, except those that have a job, which is returned to. LaunchError when
    SLURM refuses, or with the failing process's traceback.
    """
    jobs = {f: submitted(f) or submit(work, f, resources) for f in map(Path.absolute, folders)}
    for folder, job in jobs.items():
        print(f"{folder.name}: job {job.job_id} of SLURM; its output is in {folder / 'slurm'}")
    try:
        for folder, job in jobs.items():
            reason = wait(job, show)
            (folder / "slurm.json").unlink(missing_ok=True)
            if reason:
                failed = f"job {job.job_id} of SLURM failed; all output is in {folder / 'slurm'}"
                raise LaunchError(f"{failed}\n\n{reason}")
    except KeyboardInterrupt:
        print("the jobs go on; the same call returns to them, and scancel ends them", flush=True)
        raise


def wait(job: submitit.Job[None], show: Show) -> str:
    """Show the job's state, then its progress, until it has ended; why it failed, '' if not."""
    tasks = [job.task(k).paths for k in range(job.num_tasks)]
    words, ask_at = "?", 0.0
    while not all(task.result_pickle.exists() for task in tasks):
        if time.monotonic() > ask_at:
            if not words:
                break
            words = state(job.job_id)
            ask_at = time.monotonic() + (ASK_EVERY_SECONDS if words else SHARED_DISK_SECONDS)
        running = words.startswith("RUNNING")
        show(tasks[0].stdout, "" if running else f"job {job.job_id} {words}")
        time.sleep(1)
    show(tasks[0].stdout, "")
    ended = [k for k, task in enumerate(tasks) if task.result_pickle.exists()]
    ended.sort(key=lambda k: tasks[k].result_pickle.stat().st_mtime)
    errors = [str(error) for k in ended if (error := job.task(k).exception())]
    lost = len(ended) < len(tasks) and last_lines(tasks[0].stderr, 40)
    return errors[0] if errors else lost or ""

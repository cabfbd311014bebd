"""One process of a job: what `python -m avnb train` runs, and each task of a cluster's job."""

import importlib
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from avnb.distributed import process_group
from avnb.files import read_json

KINDS = ("pretraining", "finetuning")  # each a module with `train_process(folder, job, device)`


@record
def main(*folders: Path) -> None:
    """Do what `job.json` in each folder says, one after the other; started by torchrun, or alone.

    Several folders share one start: importing torch and forming the process group costs seconds.
    """
    with process_group() as device:
        for folder in folders:
            job = read_json(folder / "job.json", "the description of a job")
            kind = job["metadata"]["kind"]
            if kind not in KINDS:
                raise ValueError(f"{folder / 'job.json'} is a job of kind {kind!r}, not {KINDS}")
            importlib.import_module(f"avnb.training.{kind}").train_process(folder, job, device)

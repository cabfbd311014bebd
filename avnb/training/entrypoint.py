"""One process of a job: what `python -m avnb train` runs, and each task of a cluster's job."""

import importlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from avnb.distributed import process_group
from avnb.files import read_json
from avnb.profiles import SHARING, sharing

KINDS = ("pretraining", "finetuning")  # each a module with `train_process(folder, job, device)`


def own_share(folders: Sequence[Path], shares: Sequence[int]) -> Sequence[Path]:
    """This process's folders, where each trains others; from here on it is alone."""
    ends = list(itertools.accumulate(shares))
    number = int(os.environ["RANK"])
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ.update({SHARING: str(sharing()), **alone})  # but for its cores
    return folders[ends[number] - shares[number] : ends[number]]


@record
def main(*folders: Path, shares: Sequence[int] = ()) -> None:
    """Do what `job.json` in each folder says, one after the other; started by torchrun, or alone.

    Several folders share one start: importing torch and forming the process group costs seconds.

    Args:
        folders: of the runs, by default each trained by all processes of the job.
        shares: how many of them each process trains by itself, in order.
    """
    if shares:
        folders = tuple(own_share(folders, shares))
    with process_group() as device:
        for folder in folders:
            job = read_json(folder / "job.json", "the description of a job")
            kind = job["metadata"]["kind"]
            if kind not in KINDS:
                raise ValueError(f"{folder / 'job.json'} is a job of kind {kind!r}, not {KINDS}")
            importlib.import_module(f"avnb.training.{kind}").train_process(folder, job, device)

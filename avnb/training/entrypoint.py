"""One process of a job: what `python -m avnb train` runs, and each task of a cluster's job."""

import json
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from avnb.training import finetuning, trainer

KINDS = {"pretrain": trainer.pretraining, "finetune": finetuning.finetuning}


@record
def main(*folders: Path) -> None:
    """Do what `job.json` in each folder says, one after the other; started by torchrun, or alone.

    Several share one start: importing torch and finding each other costs seconds.
    """
    with trainer.process_group() as device:
        for folder in folders:
            job = json.loads((folder / "job.json").read_text())
            KINDS[job.get("kind", "pretrain")](folder, job, device)

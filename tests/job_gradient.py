"""A job of any number of processes: the gradient of each method's second step, as in training.

In double precision; and the loss of that step with networks in half precision.
"""

import json
import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from avnb import distributed
from avnb.config import Pretrain
from avnb.data.clips import VideoClips
from avnb.data.loader import training_epochs
from avnb.data.manifest import Manifest
from avnb.models.methods import METHODS, build
from avnb.training.trainer import Views, gradients, process_group, sampling_of


class Doubled(Views):
    """In double precision: what is left of a difference is not rounding."""

    def forward(self, batch):
        return super().forward(batch).apply(lambda x: x.double() if x.is_floating_point() else x)


def stepped(run, manifest, views, dtype, device):
    """The method before its second weights would move, and that step's terms."""
    _, batches = next(training_epochs(
        VideoClips(manifest, sampling_of(run), seed=0), run, 0,
        rank=distributed.rank(), processes=distributed.world_size(), workers=0,
    ))  # fmt: skip
    method = build(run, len(manifest), len(manifest.classes)).to(device, dtype)
    model = method
    if distributed.world_size() > 1:
        distributed.synchronise_batch_norm(method, device)
        model = DistributedDataParallel(method, broadcast_buffers=False)
    for _ in range(2):  # the second step sees banks that the first one moved
        method.zero_grad()
        terms = gradients(model, views.to(device), next(batches), 0.5, 0, device)
        method.after_step()
    return method, terms


def main(out: Path) -> None:
    job = json.loads((out / "job.json").read_text())
    manifest = Manifest.load(Path(job["manifest"])).split("train")
    found, half = {}, {}
    with process_group() as device:
        for name in sorted(METHODS.keys() - {"random"}):
            run = Pretrain.from_flat(**{**job["run"], "method": name})
            views = Doubled(run, job["mel_statistics"])
            method, _ = stepped(run, manifest, views, torch.double, device)
            for part, p in method.named_parameters():
                if p.grad is not None:
                    found[f"{name}.{part}"] = p.grad
            for part, b in method.named_buffers():
                if part.endswith(("rows", "running_mean", "running_var")):
                    found[f"{name}.{part}"] = b
            run = Pretrain.from_flat(**{**run.flat(), "precision": "bf16"})
            _, terms = stepped(
                run, manifest, Views(run, job["mel_statistics"]), torch.float, device
            )
            half[name] = distributed.mean_over_processes(terms["loss"])
        if distributed.rank() == 0:
            torch.save({"double": found, "half": half}, out / "gradient.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

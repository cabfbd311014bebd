"""A job of any number of processes: the gradient of each method's second training step.

It is computed in double precision, with BatchNorm in evaluation mode: on the CPU, each process has
statistics of its own.
"""

import json
import sys
from pathlib import Path

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from avnb import distributed
from avnb.config import Pretrain
from avnb.data.clips import VideoClips
from avnb.data.loader import training_epochs
from avnb.data.manifest import Manifest
from avnb.data.transform import BatchTransform
from avnb.models.methods import METHODS, build_method
from avnb.training.loop import accumulate_gradients
from avnb.training.runs import training_sampling


class DoubleTransform(BatchTransform):
    """In double precision, so that differences are not due to rounding."""

    def forward(self, batch):
        return super().forward(batch).apply(lambda x: x.double() if x.is_floating_point() else x)


def second_step(config, manifest, statistics):
    """The method with the gradient of its second step."""
    transform = DoubleTransform(config, statistics)
    _, batches = next(training_epochs(
        VideoClips(manifest, training_sampling(config), seed=0), config, 0,
        rank=distributed.rank(), processes=distributed.world_size(), workers=0,
    ))  # fmt: skip
    method = build_method(config, len(manifest), len(manifest.classes)).double()
    for part in method.modules():
        if isinstance(part, _BatchNorm):
            part.eval()
    network = method
    if distributed.world_size() > 1:
        network = DistributedDataParallel(method, broadcast_buffers=False)
    for _ in range(2):  # the banks of the second step were updated by the first one
        method.zero_grad()
        accumulate_gradients(network, transform, next(batches), 0.5, 0)
        method.after_step()
    return method


def main(out: Path) -> None:
    job = json.loads((out / "job.json").read_text())
    manifest = Manifest.load(Path(job["manifest"])).split("train")
    found = {}
    with distributed.process_group():
        for name in sorted(name for name, method in METHODS.items() if method.is_trained):
            config = Pretrain.from_flat(**{**job["config"], "method": name})
            method = second_step(config, manifest, job["mel_statistics"])
            for part, p in method.named_parameters():
                if p.grad is not None:
                    found[f"{name}.{part}"] = p.grad
            for part, b in method.named_buffers():
                if part.endswith("rows"):
                    found[f"{name}.{part}"] = b
        if distributed.rank() == 0:
            torch.save(found, out / "gradient.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

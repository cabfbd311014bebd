"""A job of any number of processes: the gradient of one batch, dealt as in training."""

import json
import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from avnb import dist
from avnb.batches import Sampling, VideoClips, training_epochs
from avnb.config import Pretrain
from avnb.methods import build
from avnb.train import Views, process_group
from avnb.videos import Manifest


def main(out: Path) -> None:
    job = json.loads((out / "job.json").read_text())
    run = Pretrain.from_flat(**job["about"]["run"])
    manifest = Manifest.load(Path(job["manifest"])).split("train")
    sampling = Sampling(
        clip=run.clip, count=run.clips_per_video, place="random", augment=run.augment
    )
    with process_group() as device:
        epochs = training_epochs(
            VideoClips(manifest, sampling, seed=0), run, 0,
            rank=dist.rank(), processes=dist.world_size(), workers=0,
        )  # fmt: skip
        _, batches = next(epochs)
        method = build(run, len(manifest)).to(device)
        for part in method.modules():  # its statistics are a process's own
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                part.eval()
        model = DistributedDataParallel(method) if dist.world_size() > 1 else method
        views = Views(run, job["about"]["bands"]).to(device)
        for _ in range(2):  # the second step sees banks that the first one moved
            batch = views(next(batches).to(device))
            method.zero_grad()
            model(batch, 0.5)["loss"].backward()
        if dist.rank() == 0:
            grads = {n: p.grad for n, p in method.named_parameters()}
            banks = {n: b for n, b in method.named_buffers() if n.endswith("rows")}
            torch.save({**grads, **banks}, out / "gradient.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

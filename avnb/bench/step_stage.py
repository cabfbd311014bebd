"""The stage of a whole training step: forward and backward pass, update, banks.

Clips are noise in memory, so decoding is not measured. The loss is that of the first step, from
the same weights and clips for every precision.
"""

import itertools
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np
import torch

from avnb.bench.rows import Row
from avnb.bench.workload import Workload
from avnb.config import Pretrain
from avnb.data.batch import Batch
from avnb.data.batch_transform import BatchTransform
from avnb.data.transforms import sample_params
from avnb.evaluation.features import device
from avnb.models.methods import build_method, find_method
from avnb.training.speed import flops_per_clip, matmul_flops, synchronise
from avnb.training.trainer import accumulate_gradients, compile_networks

VIDEOS, CLASSES = 10_000, 309
BATCHES, BLOCKS, STEPS = (16, 64, 128), 3, 5
SMALL = {"width": 8, "frame_px": 56}  # on a CPU


def noise(config: Pretrain) -> Batch:
    """One batch of a run."""
    rng = torch.Generator().manual_seed(0)
    size, side, method = config.optim.batch, config.clip.frame_px, find_method(config.method)
    shape = size, config.clip.frames, side, side, 3
    samples = config.clip.samples if method.uses_audio else 0
    frames, second_view = (
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng).permute(0, 4, 1, 2, 3)
        for _ in range(2)
    )
    params = [sample_params(config.augment, size, np.random.default_rng(k)) for k in range(2)]
    return Batch(
        frames=frames,
        params=params[0],
        second_view=second_view if method.uses_second_view else None,
        second_params=params[1] if method.uses_second_view else None,
        audio=torch.randn(size, samples, generator=rng) / 10,
        video_index=torch.arange(size),
        label=torch.arange(size) % CLASSES,
    )


class Stepper:
    """A method in training."""

    def __init__(self, config: Pretrain):
        self.batch, self.device = noise(config), device()
        self.method = build_method(config, VIDEOS, CLASSES).to(self.device).train()
        mels = config.spectrogram.mels
        statistics = ([0.0] * mels, [1.0] * mels)
        self.transform = BatchTransform(config, statistics).to(self.device)
        if config.compute.compile_encoders:
            compile_networks(self.method, self.transform, self.device)
        self.adam = torch.optim.Adam(self.method.parameters(), lr=1e-4, fused=True)

    def step(self) -> torch.Tensor:
        """One step; its loss, for which nothing has waited."""
        self.adam.zero_grad(set_to_none=True)
        self.method.embeddings.clear()
        batch = self.batch.to(self.device)
        terms = accumulate_gradients(self.method, self.transform, batch, 0.5, 0)
        self.adam.step()
        self.method.after_step()
        return terms["loss"]

    def seconds(self, steps: int, blocks: int) -> float:
        """Seconds a step, the median of several blocks; the device is waited for after each."""
        spent = []
        for _ in range(blocks):
            synchronise(self.device)
            start = time.perf_counter()
            for _ in range(steps):
                self.step()
            synchronise(self.device)
            spent.append((time.perf_counter() - start) / steps)
        return median(spent)


def set_precision(precision: str) -> None:
    """Allow TensorFloat-32, or not; other precisions are values of a run."""
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "fp32"


def measured(config: Pretrain, work: Workload) -> dict[str, Any]:
    """What a step takes; the first two are not counted, since kernels are chosen there."""
    steps, blocks = (1, 2) if work.quick else (STEPS, BLOCKS)
    if work.gpu:
        torch.cuda.reset_peak_memory_stats()
    stepper = Stepper(config)
    loss = float(stepper.step())
    stepper.step()
    seconds = stepper.seconds(steps, blocks)
    peak = torch.cuda.max_memory_allocated() / 2**30 if work.gpu else float("nan")
    size = config.optim.batch
    found = {"ms": 1e3 * seconds, "clips_per_second": size / seconds, "first_loss": loss}
    return found | ({"peak_gib": peak} if work.gpu else {})


def step_rows(method: str, work: Workload) -> Iterator[Row]:
    """Steps of one method: precisions, with and without compilation, three sizes of a batch.

    On a GPU at the thesis's size, otherwise at a small one. The limit is the rate of a product
    of large matrices at the same precision.
    """
    values = {"method": method, **({} if work.gpu or work.quick else SMALL)}
    batches = BATCHES if work.gpu and not work.quick else (8,)
    precisions = ("bf16", "tf32", "fp32") if work.gpu else ("fp32",)
    one = Stepper(work.config(**values, batch=1, shards=1))
    flops = flops_per_clip(one.method, one.transform(one.batch.to(one.device)))
    kinds = itertools.product((False, True) if work.gpu else (False,), precisions, batches)
    for compiled, precision, size in kinds:
        set_precision(precision)
        config = work.config(
            **values,
            batch=size,
            shards=1,
            compile_encoders=compiled,
            precision="bf16" if precision == "bf16" else "fp32",
        )
        rate = matmul_flops(device(), torch.bfloat16 if precision == "bf16" else torch.float32)
        row: dict[str, Any] = {"way": precision + (", compiled" if compiled else ""), "batch": size}
        row |= {"precision": precision, "compiled": compiled, "gflop_per_clip": flops / 1e9}
        note = ""
        try:
            row |= measured(config, work)
            achieved = flops * size / (1e-3 * row["ms"])
            row |= {"tflops": achieved / 1e12, "share_of_matmul": achieved / rate}
        except torch.cuda.OutOfMemoryError:
            note = "out of memory"
        px = config.clip.frame_px
        yield Row(
            stage=f"step-{method}",
            what=f"B {size}, {px} px, width {config.width}",
            values=row,
            limit=f"matmul at {rate / 1e12:.3g} TFLOP/s",
            limit_ms=1e3 * flops * size / rate,
            note=note,
        )

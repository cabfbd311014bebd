"""What a training step costs on this device: seconds, clips per second, memory, loss.

    python tests/bench/training_step.py rows.jsonl                  # thesis size, all methods
    python tests/bench/training_step.py rows.jsonl --width 4 --frame-px 32 --batches 8

Clips are noise in memory, so decoding is not measured. The loss is that of the first step, from
the same weights and clips for every precision.
"""

import argparse
import json
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from avnb.config import Pretrain
from avnb.data.batch import Batch
from avnb.data.batch_transform import BatchTransform
from avnb.evaluation.features import device
from avnb.models.methods import METHODS, build_method, find_method
from avnb.training.trainer import accumulate_gradients

VIDEOS, CLASSES = 10_000, 309


def noise(config: Pretrain) -> Batch:
    """One batch of a run."""
    rng = torch.Generator().manual_seed(0)
    size, side, method = config.optim.batch, config.clip.frame_px, find_method(config.method)
    shape = size, 3, config.clip.frames, side, side
    samples = config.clip.samples if method.uses_audio else 0
    frames, second_view = (
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng) for _ in range(2)
    )
    return Batch(
        frames=frames, second_view=second_view if method.uses_second_view else None,
        audio=torch.randn(size, samples, generator=rng) / 10,
        video_index=torch.arange(size), label=torch.arange(size) % CLASSES,
    )  # fmt: skip


class Stepper:
    """A method in training, and what its steps took."""

    def __init__(self, config: Pretrain, batch: Batch):
        self.config, self.batch, self.device = config, batch, device()
        self.method = build_method(config, VIDEOS, CLASSES).to(self.device).train()
        if config.compute.compile_encoders:
            self.method.video_encoder.compile()
            self.method.audio_encoder.compile()
        mels = config.spectrogram.mels
        statistics = ([0.0] * mels, [1.0] * mels)
        self.transform = BatchTransform(config, statistics).to(self.device)
        self.adam = torch.optim.Adam(self.method.parameters(), lr=1e-4)
        self.seconds: list[float] = []
        self.loss = float("nan")

    def step(self) -> None:
        start = perf_counter()
        self.adam.zero_grad(set_to_none=True)
        self.method.embeddings.clear()
        terms = accumulate_gradients(
            self.method, self.transform, self.batch.to(self.device), 0.5, 0
        )
        self.adam.step()
        self.method.after_step()
        loss = terms["loss"].item()  # waits for the device
        if not self.seconds:
            self.loss = loss
        self.seconds.append(perf_counter() - start)

    def row(self, peak: int) -> dict[str, object]:
        """Without the first two steps: kernels are chosen and compiled there."""
        config, each = self.config, median(self.seconds[2:])
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"
        return {
            "device": name, "torch": torch.__version__, "method": config.method,
            "batch": config.optim.batch, "precision": config.compute.precision,
            "compiled": config.compute.compile_encoders, "step_seconds": each,
            "clips_per_second": config.optim.batch / each, "peak_gib": peak / 2**30,
            "first_loss": self.loss, "steps": len(self.seconds) - 2,
        }  # fmt: skip


def measured(config: Pretrain, batch: Batch, steps: int) -> dict[str, object]:
    """The row of one kind of step; memory that it cannot have is a row as well."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        stepper = Stepper(config, batch)
        for _ in range(steps + 2):
            stepper.step()
    except torch.cuda.OutOfMemoryError:
        kind = {"method": config.method, "batch": config.optim.batch}
        return {**kind, "precision": config.compute.precision, "error": "out of memory"}
    return stepper.row(torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)


def main() -> None:
    trained = sorted(name for name, method in METHODS.items() if method.is_trained)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="rows are appended to this file")
    parser.add_argument("--methods", nargs="+", default=trained)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--compiled", action="store_true", help="with torch.compile, too")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--frame-px", type=int, default=224)
    parser.add_argument("--steps", type=int, default=10, help="measured ones")
    given = parser.parse_args()
    kinds = product(
        given.methods, given.batches, given.precisions, [False, True][: 1 + given.compiled]
    )
    for method, batch, precision, compiled in kinds:
        config = Pretrain.from_flat(
            method=method, batch=batch, shards=1, width=given.width, frame_px=given.frame_px,
            precision=precision, compile_encoders=compiled,
        )  # fmt: skip
        row = measured(config, noise(config), given.steps)
        print(json.dumps(row), flush=True)
        with given.out.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()

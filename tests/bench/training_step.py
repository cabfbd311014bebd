"""What a training step costs on this device: seconds, clips per second, memory, loss.

    python tests/bench/training_step.py rows.jsonl                  # thesis size, all methods
    python tests/bench/training_step.py rows.jsonl --width 4 --frame-px 32 --batches 8

Clips are noise that lies in memory already, so decoding is not in the numbers. The loss is that
of the first step, from the same weights and clips for every precision.
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
from avnb.evaluation.features import device
from avnb.models.methods import METHODS, build
from avnb.training.trainer import Views, gradients

VIDEOS, CLASSES = 10_000, 309


def noise(run: Pretrain) -> Batch:
    """One batch of a run."""
    rng = torch.Generator().manual_seed(0)
    size, side = run.optim.batch, run.clip.frame_px
    shape = size, 3, run.clip.frames, side, side
    frames, second_view = (
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng) for _ in range(2)
    )
    return Batch(
        frames=frames, second_view=second_view if run.method == "vicreg_v" else None,
        audio=torch.randn(size, run.clip.samples if run.uses_audio else 0, generator=rng) / 10,
        video=torch.arange(size), label=torch.arange(size) % CLASSES,
    )  # fmt: skip


class Stepper:
    """A method in training, and what its steps took."""

    def __init__(self, run: Pretrain, batch: Batch):
        self.run, self.batch, self.device = run, batch, device()
        self.method = build(run, VIDEOS, CLASSES).to(self.device).train()
        if run.compute.compile_encoders:
            self.method.video_encoder.compile()
            self.method.audio_encoder.compile()
        mels = run.spectrogram.mels
        self.views = Views(run, ([0.0] * mels, [1.0] * mels)).to(self.device)
        self.adam = torch.optim.Adam(self.method.parameters(), lr=1e-4)
        self.seconds: list[float] = []
        self.loss = float("nan")

    def step(self) -> None:
        start = perf_counter()
        self.adam.zero_grad(set_to_none=True)
        self.method.embedded.clear()
        terms = gradients(self.method, self.views, self.batch, 0.5, 0, self.device)
        self.adam.step()
        self.method.after_step()
        loss = terms["loss"].item()  # waits for the device
        if not self.seconds:
            self.loss = loss
        self.seconds.append(perf_counter() - start)

    def row(self, peak: int) -> dict[str, object]:
        """Without the first two steps: kernels are chosen and compiled there."""
        run, each = self.run, median(self.seconds[2:])
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"
        return {
            "device": name, "torch": torch.__version__, "method": run.method,
            "batch": run.optim.batch, "precision": run.compute.precision,
            "compiled": run.compute.compile_encoders, "step_seconds": each,
            "clips_per_second": run.optim.batch / each, "peak_gib": peak / 2**30,
            "first_loss": self.loss, "steps": len(self.seconds) - 2,
        }  # fmt: skip


def measured(run: Pretrain, batch: Batch, steps: int) -> dict[str, object]:
    """The row of one kind of step; memory that it cannot have is a row as well."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        stepper = Stepper(run, batch)
        for _ in range(steps + 2):
            stepper.step()
    except torch.cuda.OutOfMemoryError:
        kind = {"method": run.method, "batch": run.optim.batch}
        return {**kind, "precision": run.compute.precision, "error": "out of memory"}
    return stepper.row(torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="rows are appended to this file")
    parser.add_argument("--methods", nargs="+", default=sorted(METHODS.keys() - {"random"}))
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
        run = Pretrain.from_flat(
            method=method, batch=batch, shards=1, width=given.width, frame_px=given.frame_px,
            precision=precision, compile_encoders=compiled,
        )  # fmt: skip
        row = measured(run, noise(run), given.steps)
        print(json.dumps(row), flush=True)
        with given.out.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()

"""How fast a run is, and how much of the device's arithmetic that uses; a row an epoch."""

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avnb import distributed
from avnb.data.batch import Batch
from avnb.files import appending
from avnb.models.methods.base import TrainableModule

MATRIX = {"cuda": 8192, "cpu": 512}  # side of the square matrices whose product is the limit
PRODUCTS = 5
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second in the product of large square matrices: the limit.

    Like convolutions, which take TensorFloat-32 for float32 on a GPU unless that is switched off.
    """
    side, before = MATRIX[device.type], torch.get_float32_matmul_precision()
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    if device.type == "cuda":
        rounded = torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("high" if rounded else "highest")
    for _ in range(PRODUCTS):
        synchronise(device)
        start = time.perf_counter()
        torch.mm(a, b)
        synchronise(device)
        best = min(best, time.perf_counter() - start)
    torch.set_float32_matmul_precision(before)
    return 2 * side**3 / best


def training_flops(network: nn.Module, x: Tensor) -> int:
    """Floating-point operations to train on `x`: those of convolutions and linear layers.

    A layer multiplies its weights with its input, with the gradient of its output for the weights'
    gradient, and again for the input's, if that has one. (`torch.utils.flop_counter` counts any
    network, and takes two seconds to be imported in each process.)
    """
    total = 0

    def count(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        products = output.numel() * layer.weight.numel() // len(layer.weight)
        total += 2 * products * (2 + inputs[0].requires_grad)

    layers = [layer for layer in network.modules() if isinstance(layer, LAYERS)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    training = network.training
    network.eval()  # batch statistics stay as they are
    network.forward(x)  # not what it may have been compiled to, which calls no hooks
    network.train(training)
    for hook in hooks:
        hook.remove()
    return total


def flops_per_clip(model: Any, batch: Batch) -> int:
    """Operations of the encoders to train on one clip of a transformed batch, without the heads."""
    views = 1 if batch.second_view is None else 2
    total = views * training_flops(model.video_encoder, batch.frames[:1])
    audio = getattr(model, "audio_encoder", None)
    if audio is not None and batch.audio.shape[1]:
        total += training_flops(audio, batch.audio[:1])
    return total


class SpeedLog:
    """Writes `speed.jsonl`: of each epoch, or the part that this process trained of it.

    A row holds clips a second over all processes, the share of the time in which this process
    waited for clips, and its operations a second beside those of a product of matrices at the
    run's precision.
    """

    def __init__(self, path: Path, model: TrainableModule, transform: nn.Module):
        self.path, self.model, self.transform = path, model, transform
        self.flops = self.limit = 0.0
        self.start()

    def start(self) -> None:
        """Begin to count."""
        self.clips, self.waited, self.began = 0, 0.0, time.perf_counter()

    def watched(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; what it takes to get them is counted as waiting."""
        self.start()
        rest = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(rest, None)
            if batch is None:
                return
            self.waited += time.perf_counter() - asked
            if not self.flops:
                self.measure(batch)
            self.clips += len(batch)
            yield batch

    def measure(self, batch: Batch) -> None:
        """Count the operations of a clip, and measure the limit."""
        lower = self.model.config.compute.precision == "bf16"
        self.flops = float(flops_per_clip(self.model, self.transform(batch[:1])))
        dtype = torch.bfloat16 if lower else torch.float32
        self.limit = matmul_flops(batch.label.device, dtype)
        self.start()

    def end_epoch(self, epoch: int) -> None:
        """Append a row; the first process does."""
        if distributed.rank() or not self.clips:
            return
        seconds = time.perf_counter() - self.began
        achieved = self.flops * self.clips / seconds
        row = {
            "epoch": epoch,
            "clips_per_second": self.clips * distributed.world_size() / seconds,
            "waiting_share": self.waited / seconds,
            "tflops": achieved / 1e12,
            "matmul_tflops": self.limit / 1e12,
            "matmul_share": achieved / self.limit,
        }
        with appending(self.path) as add:
            add(json.dumps(row))

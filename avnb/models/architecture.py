"""Layer-by-layer description of an encoder: output shapes, kernels, parameters and MACs."""

import copy
import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from avnb.models.encoders import AudioEncoder, VideoEncoder


@dataclass(frozen=True)
class Layer:
    """A row of thesis Table 4.1 or 4.2, with the cost of the layer.

    Axes are time, height and width for video, mel bands and spectrogram frames for audio.
    """

    name: str  # as in the thesis
    shape: tuple[int, ...]  # output of one clip: channels, then the axes
    kernel: tuple[int, ...]  # largest along each axis
    stride: tuple[int, ...]
    parameters: int
    macs: int  # multiply-accumulate operations for one clip


def layers(encoder: VideoEncoder | AudioEncoder, shape: tuple[int, ...]) -> list[Layer]:
    """Layers of the encoder, in order, for inputs of `shape` (channels, then the axes).

    Runs on the meta device, which computes shapes only, so any input size takes milliseconds. The
    last layer is the global max pooling.
    """
    meta = copy.deepcopy(encoder).to("meta").eval()
    pattern = re.compile(r"stem|pool|stages\.\d\.\d")
    modules = {name: m for name, m in meta.named_modules() if pattern.fullmatch(name)}
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    for module in modules.values():
        module.register_forward_hook(lambda m, _, y: shapes.__setitem__(m, tuple(y.shape[1:])))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        meta(torch.empty(1, *shape, device="meta"))
    flops, root = counter.get_flop_counts(), type(encoder).__name__
    table = []
    for name, module in modules.items():
        parameters = sum(p.numel() for p in module.parameters())
        macs = sum(flops.get(f"{root}.{name}", {}).values()) // 2  # one MAC is two FLOPs
        table.append(Layer(thesis_name(name), shapes[module], *extent(module), parameters, macs))
    channels, *axes = table[-1].shape
    ones = (1,) * len(axes)
    return [*table, Layer("max-pool", (channels, *ones), tuple(axes), ones, 0, 0)]


def thesis_name(name: str) -> str:
    """Name of a module in the thesis's tables, such as `block3.1` for `stages.1.0`."""
    if name.startswith("stages."):
        stage, block = map(int, name.split(".")[1:])
        return f"block{stage + 2}.{block + 1}"
    return {"stem": "conv1", "pool": "max-pool"}[name]


def extent(module: nn.Module) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Largest kernel and largest stride along each axis of the convolutions and pools inside."""
    kinds = (nn.Conv2d, nn.Conv3d, nn.MaxPool3d)
    windows: list[Any] = [m for m in module.modules() if isinstance(m, kinds)]
    kernels, strides = zip(*((m.kernel_size, m.stride) for m in windows), strict=True)
    return tuple(map(max, *kernels, kernels[0])), tuple(map(max, *strides, strides[0]))


def pair_weights(pair: nn.Sequential) -> tuple[int, int]:
    """Weights of a (2+1)D convolution, and of the full 3-D convolution it replaces."""
    space, _, _, time = pair
    assert isinstance(space, nn.Conv3d) and isinstance(time, nn.Conv3d)
    volume = math.prod(space.kernel_size) * math.prod(time.kernel_size)
    full = space.in_channels * time.out_channels * volume
    return space.weight.numel() + time.weight.numel(), full

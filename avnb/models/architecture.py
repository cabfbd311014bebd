"""What an encoder is made of, layer by layer."""

import copy
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from avnb.models.encoders import AudioEncoder, VideoEncoder


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A line of thesis Table 4.1 or 4.2, with what the layer costs.

    Axes after the channels are time, height, width of a video, or mel bands, frames of a sound.
    """

    name: str  # the thesis's
    shape: tuple[int, ...]  # channels and axes of the output for one clip
    kernel: tuple[int, ...]  # largest along each axis
    stride: tuple[int, ...]
    parameters: int
    macs: int  # multiplications that are added up, for one clip


def layers(encoder: VideoEncoder | AudioEncoder, shape: tuple[int, ...]) -> list[Layer]:
    """The encoder's layers for inputs of `shape` (channels and axes), in order.

    Only shapes are computed, so any size costs milliseconds. The last layer is the maximum over
    all that remains.
    """
    ghost = copy.deepcopy(encoder).to("meta").eval()
    parts = {
        name: part
        for name, part in ghost.named_modules()
        if re.fullmatch(r"stem|pool|stages\.\d\.\d", name)
    }
    seen: dict[nn.Module, tuple[int, ...]] = {}
    for part in parts.values():
        part.register_forward_hook(lambda m, _, out: seen.__setitem__(m, tuple(out.shape[1:])))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ghost(torch.empty(1, *shape, device="meta"))
    counted, root = counter.get_flop_counts(), type(encoder).__name__
    found = []
    for name, part in parts.items():
        kernel, stride = extent(part.modules())
        found.append(
            Layer(
                name=thesis_name(name),
                shape=seen[part],
                kernel=kernel,
                stride=stride,
                parameters=sum(p.numel() for p in part.parameters()),
                macs=sum(counted.get(f"{root}.{name}", {}).values())
                // 2,  # it counts additions too
            )
        )
    channels, *rest = found[-1].shape
    ones = (1,) * len(rest)
    last = Layer(
        name="max-pool",
        shape=(channels, *ones),
        kernel=tuple(rest),
        stride=ones,
        parameters=0,
        macs=0,
    )
    return [*found, last]


def thesis_name(name: str) -> str:
    """`stages.1.0` -> `block3.1`."""
    if name.startswith("stages."):
        stage, block = map(int, name.split(".")[1:])
        return f"block{stage + 2}.{block + 1}"
    return {"stem": "conv1", "pool": "max-pool"}[name]


def extent(parts: Iterable[nn.Module]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Largest kernel and largest stride along each axis among convolutions and pools."""
    windows: list[Any] = [m for m in parts if isinstance(m, (nn.Conv2d, nn.Conv3d, nn.MaxPool3d))]
    kernel = tuple(map(max, *[m.kernel_size for m in windows * 2]))  # `max` wants two at least
    return kernel, tuple(map(max, *[m.stride for m in windows * 2]))


def pair_weights(pair: nn.Sequential) -> tuple[int, int]:
    """Weights of a (2+1)D convolution, and of one kernel over time and space in its place."""
    space, _, _, time = pair
    assert isinstance(space, nn.Conv3d) and isinstance(time, nn.Conv3d)
    size = math.prod(space.kernel_size) * math.prod(time.kernel_size)
    return (
        space.weight.numel() + time.weight.numel(),
        space.in_channels * time.out_channels * size,
    )

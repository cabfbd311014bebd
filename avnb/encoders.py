"""The two encoders and the heads of pre-training (thesis 4.1.2).

Shapes: B clips, T frames of H x W pixels, M mel bands x t spectrogram frames, w the width
(64 in the thesis). Both encoders give [B, 8w] features.
"""

import copy
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def initialise(module: nn.Module) -> None:
    """Weights whose ReLU outputs keep their scale, no biases (He et al. 2015, arXiv:1502.01852).

    torch's own default shrinks signals until biases outweigh them: embeddings of different
    clips then begin nearly parallel, and an untrained encoder gives features close to zero.
    """
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def space_then_time(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    """A (2+1)D convolution: 1x3x3 in space, normalise, then 3x1x1 in time.

    The channels between are the output's, as in AVID, not the wider ones of Tran et al. 2018,
    arXiv:1711.11248.
    """
    return nn.Sequential(
        nn.Conv3d(c_in, c_out, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
        nn.BatchNorm3d(c_out),
        nn.ReLU(inplace=True),
        nn.Conv3d(c_out, c_out, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
    )


class Block(nn.Module):
    """Residual pair of (2+1)D convolutions; the sum is normalised, not the branch (AVID)."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.first, self.norm1 = space_then_time(c_in, c_out, stride), nn.BatchNorm3d(c_out)
        self.second, self.norm2 = space_then_time(c_out, c_out), nn.BatchNorm3d(c_out)
        same = c_in == c_out and stride == 1
        self.skip = nn.Identity() if same else nn.Conv3d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, T, H, W] -> [B, c_out, T / stride, H / stride, W / stride]."""
        y = self.second(self.norm1(self.first(x)).relu())
        return self.norm2(y + self.skip(x)).relu()


class VideoEncoder(nn.Module):
    """R(2+1)D-18 of thesis Table 4.1: 15 379 136 parameters at width 64.

    Morgado et al. 2021, arXiv:2004.12943.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        w = width
        self.stem = nn.Sequential(
            nn.Conv3d(3, w, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(w),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.stages = nn.ModuleList(
            nn.Sequential(Block(c_in, c_out, stride), Block(c_out, c_out))
            for c_in, c_out, stride in (
                (w, w, 1),
                (w, 2 * w, 2),
                (2 * w, 4 * w, 2),
                (4 * w, 8 * w, 2),
            )
        )
        self.features = 8 * w
        initialise(self)

    def forward(self, frames: Tensor) -> Tensor:
        """frames [B, 3, T, H, W], normalised -> [B, 8w], the maximum over time and space."""
        # Faster on a CPU: `python tests/bench/encoder_layout.py` says by how much.
        x = frames.contiguous(memory_format=torch.channels_last_3d)
        x = self.pool(self.stem(x))  # [B, w, T, H/4, W/4]
        for stage in self.stages:
            x = stage(x)
        return x.amax(dim=(2, 3, 4))  # [B, 8w]


def convolution(c_in: int, c_out: int, stride: int, kernel: int = 3) -> nn.Sequential:
    """A 2-D convolution, normalised."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(inplace=True),
    )


class AudioEncoder(nn.Module):
    """Nine plain convolutions of thesis Table 4.2, after AVID's audio network."""

    def __init__(self, width: int = 64):
        super().__init__()
        w = width
        self.stem = convolution(1, w, 2, kernel=7)
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(c_in, c_out, stride), convolution(c_out, c_out, 1))
            for c_in, c_out, stride in (
                (w, w, 2),
                (w, 2 * w, 2),
                (2 * w, 4 * w, 2),
                (4 * w, 8 * w, 1),
            )
        )
        self.features = 8 * w
        initialise(self)

    def forward(self, sound: Tensor) -> Tensor:
        """sound [B, 1, M, t], standardised log-mel -> [B, 8w], the maximum over both axes."""
        x = self.stem(sound)  # [B, w, M/2, t/2]
        for stage in self.stages:
            x = stage(x)
        return x.amax(dim=(2, 3))  # [B, 8w]


class Projector(nn.Sequential):
    """Three linear layers from features to the embedding, ReLU between them and none at the end.

    The thesis says that a ReLU follows each layer; the released code has none on the output,
    and neither has this: an embedding without negative entries could not point everywhere.
    """

    def __init__(self, features: int, dim: int):
        super().__init__(
            nn.Linear(features, features),
            nn.ReLU(inplace=True),
            nn.Linear(features, features),
            nn.ReLU(inplace=True),
            nn.Linear(features, dim),
        )
        initialise(self)


class Expander(nn.Sequential):
    """Three linear layers from features to a wide embedding, BatchNorm and ReLU between them.

    Where BatchNorm follows there is no bias: it would take it out again.
    """

    def __init__(self, features: int, dim: int):
        super().__init__(
            nn.Linear(features, dim, bias=False),
            nn.BatchNorm1d(dim),
            nn.ReLU(inplace=True),
            nn.Linear(dim, dim, bias=False),
            nn.BatchNorm1d(dim),
            nn.ReLU(inplace=True),
            nn.Linear(dim, dim),
        )
        initialise(self)


# ---- what an encoder is made of -----------------------------------------------------------------


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
        found.append(Layer(
            name=thesis_name(name), shape=seen[part], kernel=kernel, stride=stride,
            parameters=sum(p.numel() for p in part.parameters()),
            macs=sum(counted.get(f"{root}.{name}", {}).values()) // 2,  # it counts additions too
        ))  # fmt: skip
    channels, *rest = found[-1].shape
    ones = (1,) * len(rest)
    last = Layer(
        name="max-pool", shape=(channels, *ones), kernel=tuple(rest), stride=ones,
        parameters=0, macs=0,
    )  # fmt: skip
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

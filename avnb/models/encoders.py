"""The two encoders of pre-training (thesis 4.1.2) and the heads on their features.

Shapes: B clips, T frames of H x W pixels, M mel bands x t spectrogram frames, w the width
(64 in the thesis). Both encoders return [B, 8w] features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def initialise(module: nn.Module) -> None:
    """Draw weights so that ReLU layers preserve the scale of their inputs, and zero the biases.

    He et al. 2015, arXiv:1502.01852.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def scale_residuals(encoder: nn.Module, scale: float) -> None:
    """Multiply the last convolution of every residual branch of a `VideoEncoder`.

    At initialisation, the features of a deep network with batch normalisation hardly reflect how
    alike two clips are; with branches near zero it begins shallow. Goyal et al. 2017,
    arXiv:1706.02677, begin with zero.
    """
    for block in encoder.modules():
        if isinstance(block, Block):
            block.second[-1].get_parameter("weight").mul_(scale)


def space_then_time(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    """(2+1)D convolution: 1x3x3 over space, batch normalisation, ReLU, 3x1x1 over time.

    The intermediate channels are `c_out`, as in AVID, not the wider ones of Tran et al. 2018,
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


class FrameStackConv3d(nn.Conv3d):
    """A convolution over 3 frames of few channels, for which the kernels for 3-D are slow.

    Each frame is joined by its two neighbours as further channels of a 2-D convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, c_out, T, H', W'], channels last in memory."""
        b, c, t, h, w = x.shape
        x = F.pad(x.permute(0, 2, 3, 4, 1), (0, 0, 0, 0, 0, 0, 1, 1))  # [B, T + 2, H, W, C]
        x = torch.cat([x[:, :-2], x[:, 1:-1], x[:, 2:]], dim=4)  # [B, T, H, W, 3 C]
        weight = self.weight.transpose(1, 2).flatten(1, 2)  # [c_out, 3 C, kH, kW]
        stacks = x.reshape(b * t, h, w, 3 * c).permute(0, 3, 1, 2)
        y = F.conv2d(stacks, weight, stride=self.stride[1:], padding=self.padding[1:])
        return y.unflatten(0, (b, t)).transpose(1, 2)


class VideoEncoder(nn.Module):
    """R(2+1)D-18 of thesis Table 4.1, with 15 379 136 parameters at width 64.

    Morgado et al. 2021, arXiv:2004.12943.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        w = width
        self.stem = nn.Sequential(
            FrameStackConv3d(3, w, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(w),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        stages = ((w, w, 1), (w, 2 * w, 2), (2 * w, 4 * w, 2), (4 * w, 8 * w, 2))
        self.stages = nn.ModuleList(
            nn.Sequential(Block(c_in, c_out, stride), Block(c_out, c_out))
            for c_in, c_out, stride in stages
        )
        self.features = 8 * w
        initialise(self)

    def feature_map(self, frames: Tensor) -> Tensor:
        """Normalised frames [B, 3, T, H, W] -> [B, 8w, T/8, H/32, W/32], each rounded up."""
        # The convolutions of a CPU are faster in this layout.
        x = frames.contiguous(memory_format=torch.channels_last_3d)
        x = self.pool(self.stem(x))  # [B, w, T, H/4, W/4]
        for stage in self.stages:
            x = stage(x)
        return x

    def forward(self, frames: Tensor) -> Tensor:
        """Normalised frames [B, 3, T, H, W] -> [B, 8w], max-pooled over time and space."""
        return self.feature_map(frames).amax(dim=(2, 3, 4))


def convolution(c_in: int, c_out: int, stride: int, kernel: int = 3) -> nn.Sequential:
    """2-D convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(inplace=True),
    )


class AudioEncoder(nn.Module):
    """The nine-layer convolutional network of thesis Table 4.2, after AVID's audio encoder."""

    def __init__(self, width: int = 64):
        super().__init__()
        w = width
        self.stem = convolution(1, w, 2, kernel=7)
        stages = ((w, w, 2), (w, 2 * w, 2), (2 * w, 4 * w, 2), (4 * w, 8 * w, 1))
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(c_in, c_out, stride), convolution(c_out, c_out, 1))
            for c_in, c_out, stride in stages
        )
        self.features = 8 * w
        initialise(self)

    def forward(self, audio: Tensor) -> Tensor:
        """Standardised log-mel [B, 1, M, t] -> [B, 8w], max-pooled over frequency and time."""
        # As for video; one channel has no layout, so it is set after the first layer.
        x = self.stem(audio).contiguous(memory_format=torch.channels_last)  # [B, w, M/2, t/2]
        for stage in self.stages:
            x = stage(x)
        return x.amax(dim=(2, 3))  # [B, 8w]


def head_layers(features: int, sizes: tuple[int, int, int], norms: int) -> list[nn.Module]:
    """Linear layers of these sizes with ReLU between them, and BatchNorm after the first `norms`.

    It replaces a layer's bias, which it would subtract again, and has no affine map at the end.
    """
    layers: list[nn.Module] = []
    for i, (size_in, size) in enumerate(zip((features, *sizes), sizes, strict=False)):
        layers.append(nn.Linear(size_in, size, bias=i >= norms))
        layers += [nn.BatchNorm1d(size, affine=i < 2)] if i < norms else []
        layers.append(nn.ReLU(inplace=True))
    return layers[:-1]


class Projector(nn.Sequential):
    """Three linear layers from features to the embedding.

    The thesis puts a ReLU after every layer. Like the released code, this leaves the output
    linear: an embedding without negative entries cannot reach every direction. With `batch_norm`
    embeddings are centred from the first step (SimCLR's head, Chen et al. 2020, arXiv:2002.05709);
    without it they start nearly parallel, and only long runs separate them.
    """

    def __init__(self, features: int, dim: int, *, batch_norm: bool = False):
        super().__init__(*head_layers(features, (features, features, dim), 3 * batch_norm))


class Expander(nn.Sequential):
    """Three linear layers from features to a wide embedding, with BatchNorm between them."""

    def __init__(self, features: int, dim: int):
        super().__init__(*head_layers(features, (dim, dim, dim), 2))

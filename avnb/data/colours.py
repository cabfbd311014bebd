"""Random changes of colours, batched: brightness, contrast, saturation and hue.

The adjustments change x [n, 3, t, S, S] in [0, 1] in place: n clips of t frames of S x S pixels.
Their factors are [n]. Values are those of torchvision.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)


def greyscale(x: Tensor) -> Tensor:
    """Luma [n, 1, t, S, S] of [n, 3, t, S, S]."""
    r, g, b = x.split(1, dim=1)
    return (r * LUMA[0]).add_(g, alpha=LUMA[1]).add_(b, alpha=LUMA[2])


def blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Move `x` away from `other` (factor > 1) or towards it, inside [0, 1]."""
    f = factor[:, None, None, None, None]
    return x.mul_(f).add_(other * (1 - f)).clamp_(0, 1)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Move colours away from black."""
    return x.mul_(factor[:, None, None, None, None]).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Move colours away from the mean luma of their frame."""
    return blend(x, greyscale(x.mean(dim=(3, 4), keepdim=True)), factor)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Move colours away from their own luma."""
    return blend(x, greyscale(x), factor)


def adjust_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue by `turns` in [-1/2, 1/2] of the colour circle, through HSV.

    V is the largest channel, C what it exceeds the smallest by, and h the hue in sixths of the
    circle, from red at 0, turned but not brought back to [-3, 3]:

        R = V - C clamp(2 - ||h| - 3|, 0, 1)
        G = V - C clamp(||h + 1| - 3| - 1, 0, 1)
        B = V - C clamp(||h - 1| - 3| - 1, 0, 1)

    C h is computed instead of h, so that nothing is divided by the C = 0 of greys.
    """
    r, g, b = x.unbind(1)
    difference, high, low = g - b, torch.maximum(g, b), torch.minimum(g, b)
    value, least = torch.maximum(high, r), torch.minimum(low, r)
    # Before it is turned, C |h| is |g - b|, and more where red is not the largest channel.
    hue = high.sub_(low).add_(value).sub_(r).add_(low, alpha=2).sub_(least, alpha=2)
    hue.copysign_(difference)
    chroma = torch.sub(value, least, out=low)
    hue.addcmul_(chroma, 6 * turns[:, None, None, None])
    torch.abs(hue, out=r)
    r.sub_(chroma, alpha=3).abs_().add_(value).sub_(chroma, alpha=2).clamp_(least, value)
    most = torch.add(value, chroma, out=difference)
    for channel, sign in ((g, 1), (b, -1)):
        torch.add(hue, chroma, alpha=sign, out=channel).abs_().sub_(chroma, alpha=3).abs_()
        torch.sub(most, channel, out=channel).clamp_(least, value)
    return x


ADJUSTMENTS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def jitter(x: Tensor, factors: Tensor, order: Sequence[int]) -> Tensor:
    """Adjust the colours of clips [n, 3, t, S, S] in place, by factors [n, 4] in one order."""
    for kind in order:
        ADJUSTMENTS[kind](x, factors[:, kind])
    return x


def jitter_each(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """The same for clips that differ in their order [n, 4], without a branch on it.

    Every adjustment is computed at each place, so this pays where it is compiled to a few kernels.
    """
    for place in range(4):
        kind, before = order[:, place, None, None, None, None], x
        for i, adjust in enumerate(ADJUSTMENTS):
            x = torch.where(kind == i, adjust(before.clone(), factors[:, i]), x)
    return x

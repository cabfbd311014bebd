"""Augmentation: what is drawn for a clip, its crop, and the change of its colours.

The augmentation of a clip is drawn beforehand (`sample_params`), one row a clip, so the same
parameters give the same result on the CPU and on a GPU, whatever the batch or the processes.

Shapes: B or n clips, T or t frames of S x S pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from avnb.config import Augment


def map_tensors(function: Callable[..., Tensor], *items: Any) -> Any:
    """`function` of the tensors in each field of dataclasses; other values are the first one's."""
    first = items[0]
    if isinstance(first, Tensor):
        return function(*items)
    if not hasattr(first, "__dataclass_fields__"):
        return first
    values = {f.name: [getattr(item, f.name) for item in items] for f in fields(first)}
    return type(first)(**{name: map_tensors(function, *row) for name, row in values.items()})


@dataclass(frozen=True, kw_only=True)
class AugmentParams:
    """The augmentation drawn for each of B clips."""

    flip: Tensor  # [B] bool
    factors: Tensor  # [B, 4] brightness, contrast, saturation (factors), hue (turns)
    order: Tensor  # [B, 4] which of the four comes first, second ...; stays on the CPU
    gain: Tensor  # [B] peak of the waveform
    masks: Tensor  # [B, 2, 2] frequency and time: begin and length of a mask, as fractions


def sample_params(augment: Augment, clips: int, rng: np.random.Generator) -> AugmentParams:
    """Draw the augmentation of `clips` clips; their crops are drawn apart."""

    def around_one(reach: float) -> np.ndarray:
        return rng.uniform(max(0.0, 1 - reach), 1 + reach, clips)

    factors = [around_one(augment.brightness), around_one(augment.contrast)]
    factors += [around_one(augment.saturation), rng.uniform(-augment.hue, augment.hue, clips)]
    length = rng.uniform(0, augment.mask_max_fraction, (clips, 2))
    masks = np.stack([rng.uniform(0, 1 - length), length], axis=-1)
    return AugmentParams(
        flip=torch.from_numpy(rng.random(clips) < augment.flip_prob),
        factors=torch.from_numpy(np.stack(factors, axis=1)).float(),
        order=torch.from_numpy(rng.permuted(np.tile(np.arange(4), (clips, 1)), axis=1)),
        gain=torch.from_numpy(rng.uniform(augment.gain_min, 1, clips)).float(),
        masks=torch.from_numpy(masks).float(),
    )


def resize(frames: Tensor, px: int, interpolation: str = "bilinear") -> Tensor:
    """uint8 [N, 3, H, W] -> [N, 3, px, px]; bilinear with antialiasing, nearest as PIL's."""
    if frames.shape[-2:] == (px, px):
        return frames
    if interpolation == "nearest":
        return F.interpolate(frames, (px, px), mode="nearest-exact")
    return F.interpolate(frames, (px, px), mode="bilinear", antialias=True)


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Resize a frame to a square of `resize_px` if given, cut `box` out, resize it to `px`."""

    box: tuple[int, int, int, int]  # top, left, height, width
    px: int
    resize_px: int = 0  # 0: the frame keeps its size
    mirrored: bool = False  # left and right are swapped at the end
    interpolation: str = "bilinear"  # of `resize_px`

    def __call__(self, images: Sequence[np.ndarray]) -> Tensor:
        """T frames [H, W, 3] uint8 -> [3, T, px, px]."""
        top, left, height, width = self.box
        if not self.resize_px:
            images = [image[top : top + height, left : left + width] for image in images]
        part = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        if self.resize_px:
            part = resize(part, self.resize_px, self.interpolation)
            part = part[..., top : top + height, left : left + width]
        part = resize(part, self.px)
        return (part.flip(-1) if self.mirrored else part).transpose(0, 1)


def random_resized_crop(
    height: int, width: int, px: int, augment: Augment, rng: np.random.Generator
) -> Crop:
    """A crop of random area, aspect and place; the largest central one if ten draws do not fit.

    The area is uniform in [crop_area_min, 1] of the frame and the aspect log-uniform, as in
    Szegedy et al. 2015, arXiv:1409.4842.
    """
    reach = np.log(augment.crop_aspect_max)
    for _ in range(10):
        area = height * width * rng.uniform(augment.crop_area_min, 1)
        aspect = np.exp(rng.uniform(-reach, reach))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return Crop(box=(int(top), int(left), h, w), px=px)
    w = round(min(width, height * augment.crop_aspect_max))
    h = round(min(height, width * augment.crop_aspect_max))
    return Crop(box=((height - h) // 2, (width - w) // 2, h, w), px=px)


def square_crop(
    resize_px: int, px: int, rng: np.random.Generator | None, across: float = 0.5
) -> Crop:
    """A px x px square of the resized frame, placed at random.

    When `rng` is None it lies in the middle of the height, and `across` of the way to the right.
    """
    if resize_px < px:
        raise ValueError(f"resize_px must be at least frame_px, got {resize_px} and {px}")
    room = resize_px - px
    middle = room // 2, int(room * across)
    top, left = middle if rng is None else rng.integers(room + 1, size=2)
    return Crop(box=(int(top), int(left), px, px), px=px, resize_px=resize_px)


def greyscale(x: Tensor) -> Tensor:
    """Luma [n, 1, t, S, S] of [n, 3, t, S, S]."""
    r, g, b = x.split(1, dim=1)
    return (r * 0.2989).add_(g, alpha=0.587).add_(b, alpha=0.114)


def blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Move `x` away from `other` (factor > 1) or towards it, inside [0, 1]."""
    f = factor[:, None, None, None, None]
    return x.mul_(f).add_(other * (1 - f)).clamp_(0, 1)


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


ADJUSTMENTS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    lambda x, factor: x.mul_(factor[:, None, None, None, None]).clamp_(0, 1),  # brightness
    lambda x, factor: blend(x, greyscale(x.mean(dim=(3, 4), keepdim=True)), factor),  # contrast
    lambda x, factor: blend(x, greyscale(x), factor),  # saturation
    adjust_hue,
)


def jitter(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Adjust the colours of clips [n, 3, t, S, S] in place, by factors [n, 4] in one order [4]."""
    for kind in order.tolist():
        ADJUSTMENTS[kind](x, factors[:, kind])
    return x

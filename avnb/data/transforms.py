"""Transforms of frames: crops clip by clip, augmentation drawn beforehand, normalisation.

The augmentation of a clip is drawn beforehand (`sample_params`), one row a clip, so the same
parameters give the same result on the CPU and on a GPU, whatever the batch or the processes.

Shapes: B clips, T frames of S x S pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avnb.config import Augment
from avnb.data.colours import jitter, jitter_each

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Masks of an axis, at most; those of the released code cover 3 of 128 bands or 5 of 125 columns.
MASKS = {"one": 1, "released": 32}
SHORT_MASKS = (3 / 128, 5 / 125)
PART_VALUES = 150_000  # of float32, 0.6 MB, that a CPU augments at a time
T = TypeVar("T")


def map_tensors(function: Callable[..., Tensor], *items: T) -> T:
    """`function` of the tensors in each field of dataclasses; other values are the first one's."""
    first: Any = items[0]
    if isinstance(first, Tensor):
        return function(*items)  # type: ignore[return-value]
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
    masks: Tensor  # [B, 2, K, 2] frequency and time: begin and length of K masks, as fractions

    def __getitem__(self, rows: slice | list[int]) -> "AugmentParams":
        return map_tensors(lambda x: x[rows], self)

    @classmethod
    def empty(cls, augment: Augment, clips: int) -> "AugmentParams":
        """Room for the augmentation of so many clips."""
        return cls(
            flip=torch.empty(clips, dtype=torch.bool),
            factors=torch.empty(clips, 4),
            order=torch.empty(clips, 4, dtype=torch.long),
            gain=torch.empty(clips),
            masks=torch.empty(clips, 2, MASKS[augment.masks], 2),
        )


def sample_params(augment: Augment, clips: int, rng: np.random.Generator) -> AugmentParams:
    """Draw the augmentation of `clips` clips; their crops are drawn apart."""

    def around_one(reach: float) -> np.ndarray:
        return rng.uniform(max(0.0, 1 - reach), 1 + reach, clips)

    factors = [around_one(augment.brightness), around_one(augment.contrast)]
    factors += [around_one(augment.saturation), rng.uniform(-augment.hue, augment.hue, clips)]
    masks = draw_masks(augment, clips, rng)
    return AugmentParams(
        flip=torch.from_numpy(rng.random(clips) < augment.flip_prob),
        factors=torch.from_numpy(np.stack(factors, axis=1)).float(),
        order=torch.from_numpy(rng.permuted(np.tile(np.arange(4), (clips, 1)), axis=1)),
        gain=torch.from_numpy(rng.uniform(augment.gain_min, 1, clips)).float(),
        masks=torch.from_numpy(masks).float(),
    )


def draw_masks(augment: Augment, clips: int, rng: np.random.Generator) -> np.ndarray:
    """[B, 2, K, 2] begin and length of the masks of each axis.

    One of up to `mask_max_fraction`; or, as in the released code, short ones of random length that
    together cover up to a random part of that.
    """
    most, count = augment.mask_max_fraction, MASKS[augment.masks]
    if augment.masks == "one":
        length = rng.uniform(0, most, (clips, 2, 1))
    else:
        covered = rng.uniform(0, most, (clips, 2, 1))
        drawn = rng.uniform(0, SHORT_MASKS, (clips, count, 2)).transpose(0, 2, 1)
        before = np.cumsum(drawn, axis=2) - drawn
        length = np.clip(covered - before, 0, drawn)
    return np.stack([rng.uniform(0, 1 - length), length], axis=-1)


# ---- crops, clip by clip: videos differ in size -----------------------------------------------


def resize(frames: Tensor, px: int, interpolation: str = "bilinear") -> Tensor:
    """uint8 [N, 3, H, W] -> [N, 3, px, px].

    Bilinear is with antialiasing, as torchvision's; nearest takes single pixels, as PIL's.
    """
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

    def cut(self, image: np.ndarray) -> np.ndarray:
        """The part of [H, W, 3] that is seen."""
        if self.resize_px:
            return image
        top, left, height, width = self.box
        return image[top : top + height, left : left + width]

    def fit(self, part: Tensor) -> Tensor:
        """What `cut` gives, uint8 [N, 3, h, w] -> [N, 3, px, px]."""
        if self.resize_px:
            top, left, height, width = self.box
            part = resize(part, self.resize_px, self.interpolation)
            part = part[..., top : top + height, left : left + width]
        part = resize(part, self.px)
        return part.flip(-1) if self.mirrored else part


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


def square_crop(resize_px: int, px: int, rng: np.random.Generator | None) -> Crop:
    """A px x px square of the resized frame, placed at random, or centred when `rng` is None."""
    if resize_px < px:
        raise ValueError(f"resize_px must be at least frame_px, got {resize_px} and {px}")
    room = resize_px - px
    top, left = (room // 2, room // 2) if rng is None else rng.integers(room + 1, size=2)
    return Crop(box=(int(top), int(left), px, px), px=px, resize_px=resize_px)


# ---- frames, batched --------------------------------------------------------------------------

Part = tuple[slice | Tensor, slice, list[int]]  # rows of clips, frames of each, one order


def parts(frames: Tensor, order: Tensor) -> Iterator[Part]:
    """Divide [B, 3, T, S, S] into parts with one order each, given as [B, 4] on the CPU.

    On the CPU frames of one clip, few enough to stay in its cache; elsewhere all clips of an order.
    """
    if frames.is_cpu:
        few = max(1, PART_VALUES // frames[0, :, 0].numel())
        for i, kinds in enumerate(order.tolist()):
            for begin in range(0, frames.shape[2], few):
                yield slice(i, i + 1), slice(begin, begin + few), kinds
        return
    rows: dict[tuple[int, ...], list[int]] = {}
    for i, kinds in enumerate(order.tolist()):
        rows.setdefault(tuple(kinds), []).append(i)
    together = torch.tensor([i for group in rows.values() for i in group])
    groups = together.to(frames.device, non_blocking=True).split([*map(len, rows.values())])
    for kinds, group in zip(rows, groups, strict=True):
        yield group, slice(None), list(kinds)


class VideoTransform(nn.Module):
    """uint8 frames -> float, augmented if parameters are given, normalised as for ImageNet."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None, None])
        self.compiled: Callable[..., Tensor] | None = None

    def forward(self, frames: Tensor, params: AugmentParams | None = None) -> Tensor:
        """frames [B, 3, T, S, S] uint8 -> [B, 3, T, S, S] float32, in the same memory format."""
        if params is None:
            return self.normalise(frames.float().div_(255))
        if self.compiled is not None:
            order = params.order.to(frames.device, non_blocking=True)
            return self.compiled(frames, params.flip, params.factors, order)
        done = torch.empty_like(frames, dtype=torch.float)
        for clips, times, kinds in parts(frames, params.order):
            x = frames[clips, :, times].to(torch.float, memory_format=torch.contiguous_format)
            x = mirrored(x.div_(255), params.flip[clips])
            done[clips, :, times] = self.normalise(jitter(x, params.factors[clips], kinds))
        return done

    def normalise(self, x: Tensor) -> Tensor:
        """x [n, 3, t, S, S] in [0, 1], in place."""
        return x.sub_(self.mean).div_(self.std)

    def all_at_once(self, frames: Tensor, flip: Tensor, factors: Tensor, order: Tensor) -> Tensor:
        """The same without a branch, to be compiled; here `order` is on the frames' device."""
        x = mirrored(frames, flip).float() / 255
        return self.normalise(jitter_each(x, factors, order))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Fuse the augmentation to a few passes over the batch; arguments as of torch.compile."""
        self.compiled = torch.compile(self.all_at_once, *args, **kwargs)


def mirrored(x: Tensor, flip: Tensor) -> Tensor:
    """x [n, 3, t, S, S], left and right swapped in the clips that `flip` [n] names."""
    return torch.where(flip[:, None, None, None, None], x.flip(-1), x)

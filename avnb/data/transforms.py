"""How to look: uint8 frames and raw sound -> what the encoders take, batched, on any device.

What is random about a clip is drawn beforehand (`draw`, one row a clip), so the same draws give
the same views on the CPU and on a GPU, whatever the batch or the number of processes.

Shapes: B clips, T frames of S x S pixels, N sound samples, M mel bands, t spectrogram frames.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
import torchaudio
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tvf

from avnb.config import Augment, Clip, Spectrogram

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class AugmentParams:
    """What was drawn for each of B clips."""

    flip: Tensor  # [B] bool
    factors: Tensor  # [B, 4] brightness, contrast, saturation (factors), hue (turns)
    order: Tensor  # [B, 4] which of the four comes first, second ...; stays on the CPU
    gain: Tensor  # [B] the sound's peak
    masks: Tensor  # [B, 2, 2] frequency and time: begin and length, as shares

    def __getitem__(self, rows: slice | Tensor | int) -> "AugmentParams":
        return AugmentParams(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def apply(self, change: Callable[[Tensor], Tensor]) -> "AugmentParams":
        """The same draws with every tensor changed."""
        return AugmentParams(**{f.name: change(getattr(self, f.name)) for f in fields(self)})

    @classmethod
    def stack(cls, many: list["AugmentParams"]) -> "AugmentParams":
        """Rows of several, one after the other."""
        return cls(**{f.name: torch.cat([getattr(d, f.name) for d in many]) for f in fields(cls)})


def draw(augment: Augment, clips: int, rng: np.random.Generator) -> AugmentParams:
    """Draw what is random about the look and the sound of `clips` clips."""

    def around_one(reach: float) -> np.ndarray:
        return rng.uniform(max(0.0, 1 - reach), 1 + reach, clips)

    factors = [around_one(augment.brightness), around_one(augment.contrast)]
    factors += [around_one(augment.saturation), rng.uniform(-augment.hue, augment.hue, clips)]
    length = rng.uniform(0, augment.mask_max_fraction, (clips, 2))
    begin = rng.uniform(0, 1 - length)
    return AugmentParams(
        flip=torch.from_numpy(rng.random(clips) < augment.flip_prob),
        factors=torch.from_numpy(np.stack(factors, axis=1)).float(),
        order=torch.from_numpy(rng.permuted(np.tile(np.arange(4), (clips, 1)), axis=1)),
        gain=torch.from_numpy(rng.uniform(augment.gain_min, 1, clips)).float(),
        masks=torch.from_numpy(np.stack([begin, length], axis=-1)).float(),
    )


# ---- crops, clip by clip: videos differ in size -----------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Resize a frame to a square of `resize_px` if given, cut `box` out, resize it to `px`.

    Left and right are exchanged at the end where it is `mirrored`.
    """

    box: tuple[int, int, int, int]  # top, left, height, width
    px: int
    resize_px: int = 0  # 0: the frame keeps its size
    mirrored: bool = False

    def __call__(self, frames: Tensor) -> Tensor:
        """uint8 [..., 3, H, W] -> uint8 [..., 3, px, px], bilinear with antialiasing."""
        if self.resize_px:
            frames = tvf.resize(frames, [self.resize_px, self.resize_px], antialias=True)
        top, left, height, width = self.box
        cut = tvf.resized_crop(frames, top, left, height, width, [self.px, self.px])
        return cut.flip(-1) if self.mirrored else cut


def random_resized_crop(
    height: int, width: int, px: int, augment: Augment, rng: np.random.Generator
) -> Crop:
    """A crop of random area and aspect somewhere in the frame; the largest that fits if none does.

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
    """A px x px square of the resized frame: somewhere, or its centre when `rng` is None."""
    if resize_px < px:
        raise ValueError(f"resize_px must be at least frame_px, got {resize_px} and {px}")
    room = resize_px - px
    top, left = (room // 2, room // 2) if rng is None else rng.integers(room + 1, size=2)
    return Crop(box=(int(top), int(left), px, px), px=px, resize_px=resize_px)


# ---- pictures, batched ------------------------------------------------------------------------

GREY = (0.2989, 0.587, 0.114)


def grey(x: Tensor) -> Tensor:
    """Luma [B, 1, T, S, S] of [B, 3, T, S, S]."""
    r, g, b = x.split(1, dim=1)
    return GREY[0] * r + GREY[1] * g + GREY[2] * b


def blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Move `x` away from `other` (factor > 1) or towards it, inside [0, 1]."""
    f = factor[:, None, None, None, None]
    return (f * x + (1 - f) * other).clamp(0, 1)


def adjust_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the colour circle of [B, 3, T, S, S] by `turns` [B], through HSV."""
    value, least = x.amax(1), x.amin(1)
    chroma = value - least
    r, g, b = x.unbind(1)
    safe = chroma.clamp_min(1e-8)
    hue = torch.where(
        value == r, (g - b) / safe, torch.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe)
    )
    hue = hue + 6 * turns[:, None, None, None]
    # One channel of HSV -> RGB: value - chroma * clamp(min(k, 4 - k), 0, 1), k = (n + hue) mod 6.
    k = torch.stack([(n + hue) % 6 for n in (5, 3, 1)], dim=1)
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def jitter(x: Tensor, params: AugmentParams) -> Tensor:
    """Brightness, contrast, saturation, hue of [B, 3, T, S, S] in [0, 1], in each clip's order."""
    for place in range(4):
        for kind in range(4):
            rows = (params.order[:, place] == kind).nonzero()[:, 0]
            if len(rows) == 0:
                continue
            rows = rows.to(x.device, non_blocking=True)
            some, factor = x[rows], params.factors[rows, kind]
            if kind == 0:
                some = blend(some, torch.zeros_like(some), factor)
            elif kind == 1:
                some = blend(some, grey(some).mean(dim=(1, 3, 4), keepdim=True), factor)
            elif kind == 2:
                some = blend(some, grey(some), factor)
            else:
                some = adjust_hue(some, factor)
            x[rows] = some
    return x


class VideoTransform(nn.Module):
    """uint8 [B, 3, T, S, S] -> float, augmented if draws are given, ImageNet-normalised."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None, None])

    def forward(self, frames: Tensor, params: AugmentParams | None = None) -> Tensor:
        """frames [B, 3, T, S, S] uint8 -> [B, 3, T, S, S] float32."""
        x = frames.float() / 255
        if params is not None:
            x = torch.where(params.flip[:, None, None, None, None], x.flip(-1), x)
            x = jitter(x, params)
        return (x - self.mean) / self.std


# ---- sound, batched ---------------------------------------------------------------------------


class AudioTransform(nn.Module):
    """Waveform [B, N] -> standardised log-mel spectrogram [B, 1, M, t].

    log10 of the mel *magnitude* (Slaney filters of equal area, floor 1e-5), standardised per mel
    band with statistics of the training set. With 128 bands of 257 bins some of the lowest
    filters are empty at 16 kHz; they stay at the floor.
    """

    band_mean: Tensor
    band_std: Tensor

    def __init__(
        self, clip: Clip, form: Spectrogram, mel_statistics: tuple[list[float], list[float]]
    ):
        super().__init__()
        self.form = form
        self.mel = torchaudio.transforms.MelSpectrogram(
            clip.audio_hz,
            form.fft_samples,
            form.window_samples,
            form.hop_samples,
            n_mels=form.mels,
            power=1.0,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("band_mean", torch.tensor(mel_statistics[0])[:, None])
        self.register_buffer("band_std", torch.tensor(mel_statistics[1])[:, None])

    def log_mel(self, wave: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """[B, N] -> [B, M, t], not standardised; the peak set to `gain`, silence left silent.

        `gain` is in units of the form's own peak.
        """
        peak = wave.abs().amax(dim=1, keepdim=True)
        wave = torch.where(peak > 0, wave / peak.clamp_min(1e-12), wave)
        wave = wave * self.form.peak * (gain[:, None] if isinstance(gain, Tensor) else gain)
        mel = self.mel(wave)[..., : self.form.frames(wave.shape[1])]
        return mel.clamp_min(self.form.floor).log10()

    def forward(self, wave: Tensor, params: AugmentParams | None = None) -> Tensor:
        """wave [B, N] -> [B, 1, M, t]; masked places hold 0, each band's mean."""
        x = self.log_mel(wave, 1.0 if params is None else params.gain)
        x = (x - self.band_mean) / self.band_std
        if params is not None:
            for axis, size in ((0, x.shape[1]), (1, x.shape[2])):
                x = x.masked_fill(axis_mask(params.masks[:, axis], size).unsqueeze(2 - axis), 0.0)
        return x[:, None]


def axis_mask(mask: Tensor, size: int) -> Tensor:
    """[B, size] bool from begin and length [B, 2] given as shares of `size`."""
    begin = (mask[:, :1] * size).round()
    length = (mask[:, 1:] * size).floor()
    at = torch.arange(size, device=mask.device)
    return (at >= begin) & (at < begin + length)

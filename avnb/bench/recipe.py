"""The 2022 recipe: one clip at a time, written anew from what the thesis's text says (4.1.3).

A clip costs two open files: its frames are sought, decoded and turned into PIL images, its audio
is sought, decoded and resampled. Frames are cropped, mirrored and coloured one by one; each
spectrogram makes its window and its mel filters again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torchaudio.functional as taf
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as tvf

from avnb.config import Clip, Spectrogram
from avnb.data.transforms import IMAGENET_MEAN, IMAGENET_STD, AugmentParams, Crop

Adjust = Callable[[Image.Image, float], Image.Image]
ADJUSTMENTS: tuple[Adjust, ...] = (
    tvf.adjust_brightness,
    tvf.adjust_contrast,
    tvf.adjust_saturation,
    tvf.adjust_hue,
)


@dataclass(frozen=True, kw_only=True)
class DrawnClip:
    """What was drawn for one clip; the same as ours, so that both can be compared."""

    start: float  # of the frames, seconds from the beginning of the file
    audio_start: float  # of its audio
    crop: Crop
    params: AugmentParams  # of this clip alone, B = 1


def frames_from(container: Any, stream: Any, start: float) -> Iterator[Any]:
    """The decoded frames of a stream, from the place to which FFmpeg seeks for `start`."""
    stream.codec_context.thread_count = 1
    container.seek(int(start / stream.time_base), stream=stream)
    yield from container.decode(stream)


def read_images(path: Path, start: float, clip: Clip) -> list[Image.Image]:
    """The frames shown during a clip, as PIL images."""
    times, shown = start + np.arange(clip.frames) / clip.video_fps, None
    images: list[Image.Image] = []
    with av.open(str(path)) as container:
        for frame in frames_from(container, container.streams.video[0], start):
            while shown and len(images) < len(times) and times[len(images)] < frame.time - 1e-4:
                images.append(shown.to_image())
            if len(images) == len(times):
                return images
            shown = frame
    while shown and len(images) < len(times):  # the last frame stays until the end
        images.append(shown.to_image())
    return images


def read_wave(path: Path, start: float, clip: Clip) -> np.ndarray:
    """The audio of a clip, mono [samples] float32; silent where no frame reached by seeking is."""
    wave, frames = np.zeros(clip.samples, np.float32), []
    with av.open(str(path)) as container:
        for frame in frames_from(container, container.streams.audio[0], start):
            frames.append(frame)
            if frame.time > start + clip.audio_seconds:
                break
    resampler = av.AudioResampler(format="flt", layout="mono", rate=clip.audio_hz)
    chunks = [chunk for frame in (*frames, None) for chunk in resampler.resample(frame)]
    heard = np.concatenate([chunk.to_ndarray()[0] for chunk in chunks])
    late = round((frames[0].time - start) * clip.audio_hz)  # FFmpeg 9 may seek a frame too far
    skip, at = max(-late, 0), max(late, 0)
    heard = heard[skip : skip + clip.samples - at]
    wave[at : at + len(heard)] = heard
    return wave


def crop_images(images: list[Image.Image], crop: Crop) -> list[Image.Image]:
    """Every frame resized as a whole if the crop says so, cut and resized, with antialiasing."""
    if crop.resize_px:
        images = [tvf.resize(image, [crop.resize_px, crop.resize_px]) for image in images]
    return [tvf.resized_crop(image, *crop.box, [crop.px, crop.px]) for image in images]


def pixels(images: list[Image.Image]) -> Tensor:
    """The frames of a clip, [T, H, W, 3] uint8."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images]))


def augment_images(images: list[Image.Image], params: AugmentParams) -> list[Image.Image]:
    """Every frame mirrored and coloured alike, in the clip's own order of adjustments."""
    augmented = []
    for image in images:
        one = tvf.hflip(image) if params.flip[0] else image
        for kind in params.order[0].tolist():
            one = ADJUSTMENTS[kind](one, float(params.factors[0, kind]))
        augmented.append(one)
    return augmented


def normalised(images: list[Image.Image]) -> Tensor:
    """The network's input, [3, T, S, S] float32."""
    frames = [tvf.normalize(tvf.to_tensor(i), IMAGENET_MEAN, IMAGENET_STD) for i in images]
    return torch.stack(frames, dim=1)


def log_mel(wave: np.ndarray, gain: float, clip: Clip, form: Spectrogram) -> Tensor:
    """The spectrogram of one clip, [M, t], with a window and filters made for it alone."""
    x = torch.from_numpy(wave)
    x = x / x.abs().max().clamp_min(1e-12) * gain
    magnitude = taf.spectrogram(
        x,
        0,
        torch.hann_window(form.window_samples),
        form.fft_samples,
        form.hop_samples,
        form.window_samples,
        power=1.0,
        normalized=False,
    )
    filters = taf.melscale_fbanks(
        len(magnitude), 0.0, clip.audio_hz / 2, form.mels, clip.audio_hz, "slaney", "slaney"
    )
    mel = (filters.T @ magnitude)[:, : form.frames(len(wave))]
    return mel.clamp_min(form.floor).log10()


def masked(mel: Tensor, params: AugmentParams) -> Tensor:
    """A spectrogram [M, t] with one stripe of each axis replaced by its mean."""
    mel = mel.clone()
    for axis, (begin, length) in enumerate(params.masks[0, :, 0].tolist()):
        size = mel.shape[axis]
        mel.narrow(axis, round(begin * size), int(length * size)).fill_(mel.mean())
    return mel


def cut(path: Path, drawn: DrawnClip, clip: Clip) -> tuple[list[Image.Image], np.ndarray]:
    """Frames and audio of a clip as the file has them: decoded and cropped."""
    images = crop_images(read_images(path, drawn.start, clip), drawn.crop)
    return images, read_wave(path, drawn.audio_start, clip)


def load(path: Path, drawn: DrawnClip, clip: Clip, form: Spectrogram) -> tuple[Tensor, Tensor]:
    """A clip as the networks take it: frames [3, T, S, S] and spectrogram [M, t]."""
    images, wave = cut(path, drawn, clip)
    frames = normalised(augment_images(images, drawn.params))
    mel = log_mel(wave, float(drawn.params.gain[0]), clip, form)
    return frames, masked(mel, drawn.params)

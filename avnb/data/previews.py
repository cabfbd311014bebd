"""Videos as people look at and listen to them: a frame, a spectrogram, a small file that plays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from PIL import Image

from avnb.config import digest
from avnb.data.decoding import read_frames, read_soundtrack
from avnb.data.manifest import Manifest, Video
from avnb.data.synthetic.world import Form, encode
from avnb.files import replacing

SECONDS, FPS, HEIGHT, HZ = 3.0, 15, 120, 24_000  # of a small file, at most
WINDOW, BANDS, FLOOR = 0.032, 128, 1e-5  # seconds; mel bands; of magnitudes
X264 = {"crf": "30", "preset": "veryfast", "g": "30"}
SMALL = Form("mp4", "libx264", X264, "aac")


@dataclass(frozen=True)
class Shown:
    """A video of a manifest, to be looked at."""

    manifest: Manifest
    row: int

    @property
    def video(self) -> Video:
        """Its entry in the manifest."""
        return self.manifest.videos[self.row]

    @property
    def path(self) -> Path:
        """Its own file, also where a cache is read otherwise."""
        return self.manifest.original(self.video)

    def frame(self) -> np.ndarray:
        """The frame [H, W, 3] in the middle."""
        return self.frames(np.array([self.video.seconds / 2]))[0]

    def frames(self, times: np.ndarray) -> list[np.ndarray]:
        """The frames [H, W, 3] at times in seconds."""
        return read_frames(self.path, times, seconds=self.video.seconds, start=self.video.start)

    def sound(self, hz: int = HZ) -> np.ndarray | None:
        """The audio [samples] float32, mono; None where there is none."""
        v = self.video
        if not v.audio_hz:
            return None
        return read_soundtrack(self.path, hz, seconds=v.seconds, start=v.start)


@dataclass(frozen=True)
class MelSpectrogram:
    """Levels [bands, columns] in dB below the loudest, with the axes they belong to."""

    levels: np.ndarray
    seconds: np.ndarray  # [columns], centres of the windows
    hertz: np.ndarray  # [bands], centres of the bands


def mel_spectrogram(sound: np.ndarray, hz: int = HZ) -> MelSpectrogram:
    """The log-mel spectrogram of mono audio [samples], drawn as it is heard: not standardised."""
    window, hop = round(WINDOW * hz), round(WINDOW * hz / 2)
    options = {"n_mels": BANDS, "norm": "slaney", "mel_scale": "slaney", "power": 1.0}
    mel = torchaudio.transforms.MelSpectrogram(hz, 2 * window, window, hop, **options)
    wave = torch.from_numpy(np.pad(sound, (0, max(0, 2 * window - len(sound)))))
    level = 20 * mel(wave).clamp_min(FLOOR).log10()
    centres = mel_centres(BANDS, hz / 2)
    times = np.arange(level.shape[1]) * hop / hz
    return MelSpectrogram((level - level.max()).numpy(), times, centres)


def mel_centres(bands: int, top: float) -> np.ndarray:
    """Centres of Slaney's mel bands from 0 to `top` hertz, [bands]: linear, above 1 kHz log."""
    step = math.log(6.4) / 27

    def mel(hertz: float) -> float:
        return hertz * 3 / 200 if hertz < 1000 else 15 + math.log(hertz / 1000) / step

    m = np.linspace(0, mel(top), bands + 2)[1:-1]
    return np.where(m < 15, m * 200 / 3, 1000 * np.exp(step * (m - 15)))


def small_file(shown: Shown, folder: Path) -> Path:
    """A small mp4 of the video's middle that every browser plays; made once in `folder`.

    Raises:
        DecodeError: when the video can no longer be read.
    """
    video, stat = shown.video, shown.path.stat()
    key = [str(shown.path), stat.st_size, stat.st_mtime_ns, SECONDS, FPS, HEIGHT, HZ]
    out = folder / f"{digest(key)}.mp4"
    if out.exists():
        return out  # and its poster, which is written first
    length = min(SECONDS, video.seconds)
    begin = (video.seconds - length) / 2
    times = begin + np.arange(max(1, int(length * FPS))) / FPS
    images = [scaled(image) for image in shown.frames(times)]
    sound = shown.sound()
    if sound is not None:
        sound = sound[round(begin * HZ) :][: round(length * HZ)]
    return write_small(out, images, sound)


def write_small(out: Path, images: Sequence[np.ndarray], sound: np.ndarray | None) -> Path:
    """Write a small mp4, and beside it, as .jpg, the frame to show before it plays; its path."""
    with replacing(out.with_suffix(".jpg")) as aside:
        Image.fromarray(images[len(images) // 2]).save(aside, "JPEG", quality=70)
    with replacing(out) as aside:
        encode(aside, images, FPS, sound, HZ, SMALL)
    return out


def scaled(image: np.ndarray) -> np.ndarray:
    """A frame [H, W, 3] with sides that are even, and at most HEIGHT high."""
    height, width, _ = image.shape
    factor = min(1.0, HEIGHT / height)
    sides = [max(2, round(side * factor / 2) * 2) for side in (height, width)]
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    small = F.interpolate(x, sides, mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).round().byte().numpy()

"""Videos to measure on: textured scenes with a moving camera, encoded as people encode.

How long a frame takes to decode depends on its motion vectors and residuals, so the scenes have
texture at all scales, things that move against it, a camera that never rests, and noise.

Arrays: a frame is [1.5 H, W] uint8, the planes of YUV 4:2:0; audio is [2, samples] float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avnb.data import media
from avnb.data.manifest import Manifest, Video
from avnb.files import locked, replacing, tqdm

AUDIO_HZ = 44_100
NOISE_FIELDS = 8  # drawn once a video, then shown at random shifts
Plane = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of file."""

    width: int  # both even: two pixels share a colour
    height: int
    key_frames: int  # a key frame every so many frames
    seconds: float = 10.0

    def __str__(self) -> str:
        return f"{self.width}x{self.height} g{self.key_frames}"


KINDS = tuple(
    Kind(width=width, height=height, key_frames=key_frames)
    for width, height in ((340, 256), (640, 360), (1280, 720))
    for key_frames in (250, 30)
)
QUICK_KINDS = tuple(Kind(width=128, height=96, key_frames=k, seconds=3) for k in (50, 10))


def texture(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Blotches at all scales, the larger the stronger, as in photographs; [H, W] in [16, 235]."""
    image, size = np.zeros((height, width), np.float32), 2
    while size < max(height, width):
        rows, columns = -(-height // size) + 1, -(-width // size) + 1
        grid = rng.normal(0, size**0.6, (rows, columns)).astype(np.float32)
        image += smooth(smooth(grid, size, height).T, size, width).T
        size *= 2
    low, high = np.percentile(image, (1, 99))
    return np.clip(16 + 219 * (image - low) / (high - low), 16, 235).astype(np.uint8)


def smooth(grid: np.ndarray, size: int, length: int) -> np.ndarray:
    """Linear interpolation of the rows, `size` new ones for each, cut to `length`."""
    at = np.arange(length) / size
    row = at.astype(int)
    part = (at - row)[:, None].astype(np.float32)
    return grid[row] * (1 - part) + grid[row + 1] * part


def walk(frames: int, reach: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth path that stays within [0, reach], [frames] float."""
    t, path = np.arange(frames) / 25, np.zeros(frames)
    for hz, size in ((0.07, 1.0), (0.3, 0.25), (1.1, 0.03)):
        path += size * np.sin(2 * np.pi * (hz * rng.uniform(0.7, 1.4) * t + rng.random()))
    return (path + 1.3) / 2.6 * reach


def luma(kind: Kind, frames: int, rng: np.random.Generator) -> Iterator[Plane]:
    """The light of each frame, [H, W] uint8: a background in half-pixel steps, four things on it.

    The background is kept at twice the size; every other of its pixels makes a frame.
    """
    h, w = kind.height, kind.width
    room = h // 2
    background = texture(2 * (h + room), 2 * (w + room), rng)
    camera = [walk(frames, 2 * room - 1, rng).astype(int) for _ in range(2)]
    yy, xx = np.mgrid[-1 : 1 : h // 3 * 1j, -1 : 1 : w // 4 * 1j]
    disc = yy**2 + xx**2 < 1
    things = []
    for _ in range(4):
        path = walk(frames, h - h // 3, rng), walk(frames, w - w // 4, rng)
        things.append((texture(h // 3, w // 4, rng), *(axis.astype(int) for axis in path)))
    noise = rng.normal(0, 2.0, (NOISE_FIELDS, h, w)).round().astype(np.int16)
    for i in range(frames):
        top, left = camera[0][i], camera[1][i]
        plane = background[top : top + 2 * h : 2, left : left + 2 * w : 2].astype(np.int16)
        for pattern, down, right in things:
            part = plane[down[i] : down[i] + len(disc), right[i] : right[i] + disc.shape[1]]
            part[disc] = pattern[disc]
        plane += np.roll(noise[i % NOISE_FIELDS], rng.integers(h), axis=0)
        yield np.clip(plane, 16, 235).astype(np.uint8)


def scene(kind: Kind, frames: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The frames of a video, [1.5 H, W] uint8."""
    h, w = kind.height // 2, kind.width // 2
    colours = [texture(h + h // 2, w + h // 2, rng) // 2 + 64 for _ in range(2)]
    paths = [walk(frames, h // 2 - 1, rng).astype(int) for _ in range(2)]
    for i, plane in enumerate(luma(kind, frames, rng)):
        top, left = paths[0][i], paths[1][i]
        parts = [c[top : top + h, left : left + w].reshape(-1, kind.width) for c in colours]
        yield np.concatenate([plane, *parts])


def soundtrack(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Gliding tones with a beat over coloured noise, [2, samples] float32 in [-1, 1]."""
    samples = round(seconds * AUDIO_HZ)
    t, mix = np.arange(samples) / AUDIO_HZ, np.zeros((2, samples))
    for _ in range(6):
        hz = rng.uniform(80, 4000) * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(0.1, 1) * t))
        beat = np.exp(-rng.uniform(2, 9) * ((t + rng.random()) % rng.uniform(0.2, 0.8)))
        tone = np.sin(2 * np.pi * np.cumsum(hz) / AUDIO_HZ) * beat
        mix += tone * rng.uniform(0.05, 0.2, (2, 1))
    noise = rng.normal(0, 0.05, (2, samples))
    return np.tanh(mix + noise + np.roll(noise, 3, axis=1)).astype(np.float32)


def make(path: Path, kind: Kind, seed: int) -> None:
    """Encode one video: H.264 at the usual quality with B-frames, AAC stereo."""
    rng = np.random.default_rng([seed, kind.width, kind.height])
    fps = int(rng.choice((25, 30)))
    with replacing(path) as partial, av.open(str(partial), "w", format="mp4") as out:
        video = out.add_stream("libx264", rate=fps)
        video.width, video.height, video.pix_fmt = kind.width, kind.height, "yuv420p"
        every = str(kind.key_frames)  # and nowhere else, as where a scene changes
        video.options = {
            "preset": "medium",
            "crf": "23",
            "g": every,
            "keyint_min": every,
            "sc_threshold": "0",
        }
        video.codec_context.thread_count = 1  # the same file on any machine
        audio = out.add_stream("aac", rate=AUDIO_HZ)
        audio.layout = "stereo"
        wave = av.AudioFrame.from_ndarray(soundtrack(kind.seconds, rng), "fltp", "stereo")
        wave.sample_rate, wave.pts, wave.time_base = AUDIO_HZ, 0, Fraction(1, AUDIO_HZ)
        out.mux([*audio.encode(wave), *audio.encode()])
        for planes in scene(kind, round(kind.seconds * fps), rng):
            out.mux(video.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        out.mux(video.encode())


def open_videos(folder: Path, kind: Kind, count: int, *, seed: int = 0) -> Manifest:
    """The manifest of `count` videos of a kind; those that are not in `folder` are made first."""
    names = [f"{str(kind).replace(' ', '-')}-{seed + i}.mp4" for i in range(count)]
    with locked(folder):
        missing = [i for i, name in enumerate(names) if not (folder / name).exists()]
        for i in tqdm(missing, desc=f"videos {kind}", unit="video", disable=not missing):
            make(folder / names[i], kind, seed + i)
    videos = []
    for name in names:
        content = vars(media.inspect(folder / name))
        videos.append(Video(id=name, path=name, label="scene", split="train", **content))
    return Manifest(
        name=str(kind),
        folder=folder,
        where=folder / str(kind).replace(" ", "-"),
        classes=("scene",),
        videos=tuple(videos),
        listed=count,
    )

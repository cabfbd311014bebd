"""Where to cut: pure functions of seconds and a generator; no file is touched here."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def random_starts(
    seconds: float, clip_seconds: float, count: int, rng: np.random.Generator
) -> Array:
    """[count] starts drawn uniformly from where the whole clip fits; 0 when it fits nowhere."""
    return rng.uniform(0, max(seconds - clip_seconds, 0.0), count)


def uniform_starts(seconds: float, clip_seconds: float, count: int) -> Array:
    """[count] starts at equal steps, the first clip at the beginning and the last at the end."""
    return np.linspace(0, max(seconds - clip_seconds, 0.0), count)


def sound_starts(
    picture_starts: Array,
    seconds: float,
    sound_seconds: float,
    max_offset_seconds: float,
    rng: np.random.Generator,
) -> Array:
    """[C] starts of sound within +- max_offset of the pictures', moved to where they fit."""
    offsets = rng.uniform(-max_offset_seconds, max_offset_seconds, len(picture_starts))
    return np.clip(picture_starts + offsets, 0, max(seconds - sound_seconds, 0.0))


def frame_times(starts: Array, frames: int, fps: float, seconds: float) -> Array:
    """[C, frames] times; a video too short for the clip is seen over again."""
    return np.mod(starts[:, None] + np.arange(frames) / fps, max(seconds, 1e-3))

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
    """[C] starts of sound, uniform where they lie within +- max_offset and the sound fits.

    Pictures that start after seconds - sound_seconds + max_offset leave no such place; `room`
    keeps them from it.
    """
    last = max(seconds - sound_seconds, 0.0)
    low = np.clip(picture_starts - max_offset_seconds, 0, last)
    high = np.clip(picture_starts + max_offset_seconds, 0, last)
    return rng.uniform(low, high)


def partner_starts(
    starts: Array,
    seconds: float,
    clip_seconds: float,
    apart_seconds: tuple[float, float],
    rng: np.random.Generator,
) -> Array:
    """[C] starts of a second clip, d in [least, most] seconds after the first.

    Behind the video's end it goes on at its beginning. The two do not overlap wherever the video
    leaves room for that; where it does not, d is taken modulo what there is.
    """
    d = rng.uniform(*apart_seconds, len(starts))
    last = max(seconds - clip_seconds, 0.0)
    behind = np.maximum(last - starts - clip_seconds, 0.0)  # where it may start after the first
    before = np.maximum(starts - clip_seconds, 0.0)  # and before it
    apart = behind + before > 0
    step = np.mod(np.maximum(d - clip_seconds, 0.0), np.where(apart, behind + before, 1.0))
    clear = np.where(step < behind, starts + clip_seconds + step, step - behind)
    return np.where(apart, clear, np.mod(starts + d, last) if last else 0.0)


def room(picture_seconds: float, sound_seconds: float, max_offset_seconds: float) -> float:
    """Seconds that a clip takes from the start of its picture, so that its sound fits as well."""
    return max(picture_seconds, sound_seconds - max_offset_seconds)


def frame_times(starts: Array, frames: int, fps: float, seconds: float) -> Array:
    """[C, frames] times; a video too short for the clip is seen over again."""
    return np.mod(starts[:, None] + np.arange(frames) / fps, max(seconds, 1e-3))

"""Where to cut: pure functions of seconds and a generator; no file is touched here."""

import numpy as np


def random_starts(
    seconds: float, clip_seconds: float, count: int, rng: np.random.Generator
) -> np.ndarray:
    """[count] starts drawn uniformly from where the whole clip fits; 0 when it fits nowhere."""
    return rng.uniform(0, max(seconds - clip_seconds, 0.0), count)


def uniform_starts(seconds: float, clip_seconds: float, count: int) -> np.ndarray:
    """[count] starts at equal steps, the first clip at the beginning and the last at the end."""
    return np.linspace(0, max(seconds - clip_seconds, 0.0), count)


def audio_starts(
    video_starts: np.ndarray,
    seconds: float,
    audio_seconds: float,
    max_offset_seconds: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """[C] starts of sound, uniform where they lie within +- max_offset and the sound fits.

    FrameSelector that start after seconds - audio_seconds + max_offset leave no such place; `room`
    keeps them from it.
    """
    last = max(seconds - audio_seconds, 0.0)
    low = np.clip(video_starts - max_offset_seconds, 0, last)
    high = np.clip(video_starts + max_offset_seconds, 0, last)
    return rng.uniform(low, high)


def second_view_starts(
    starts: np.ndarray,
    seconds: float,
    clip_seconds: float,
    second_view_seconds: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """[C] starts of a second clip, d in [least, most] seconds after the first.

    Behind the video's end it goes on at its beginning. The two do not overlap wherever the video
    leaves room for that; where it does not, d is taken modulo what there is.
    """
    d = rng.uniform(*second_view_seconds, len(starts))
    last = max(seconds - clip_seconds, 0.0)
    behind = np.maximum(last - starts - clip_seconds, 0.0)  # where it may start after the first
    before = np.maximum(starts - clip_seconds, 0.0)  # and before it
    apart = behind + before > 0
    step = np.mod(np.maximum(d - clip_seconds, 0.0), np.where(apart, behind + before, 1.0))
    clear = np.where(step < behind, starts + clip_seconds + step, step - behind)
    return np.where(apart, clear, np.mod(starts + d, last) if last else 0.0)


def room(video_seconds: float, audio_seconds: float, max_offset_seconds: float) -> float:
    """Seconds that a clip takes from the start of its picture, so that its sound fits as well."""
    return max(video_seconds, audio_seconds - max_offset_seconds)


def frame_times(starts: np.ndarray, frames: int, fps: float, seconds: float) -> np.ndarray:
    """[C, frames] times; a video too short for the clip is seen over again."""
    return np.mod(starts[:, None] + np.arange(frames) / fps, max(seconds, 1e-3))

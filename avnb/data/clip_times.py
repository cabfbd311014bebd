"""Start times of clips: pure functions of seconds and a generator, no file is read."""

import numpy as np

from avnb.config import Clip


def random_starts(
    seconds: float, clip_seconds: float, count: int, rng: np.random.Generator
) -> np.ndarray:
    """[count] starts, uniform where the whole clip fits; 0 when it fits nowhere."""
    return rng.uniform(0, max(seconds - clip_seconds, 0.0), count)


def uniform_starts(seconds: float, clip_seconds: float, count: int) -> np.ndarray:
    """[count] evenly spaced starts, of the first clip at the beginning, the last at the end."""
    return np.linspace(0, max(seconds - clip_seconds, 0.0), count)


def audio_starts(
    video_starts: np.ndarray, seconds: float, clip: Clip, rng: np.random.Generator
) -> np.ndarray:
    """[C] starts of the audio, uniform within +- max_offset of the frames and where it fits.

    Frames that start after seconds - audio_seconds + max_offset leave no such place; starts drawn
    for clips of `required_seconds` never do.
    """
    last = max(seconds - clip.audio_seconds, 0.0)
    low = np.clip(video_starts - clip.max_offset_seconds, 0, last)
    high = np.clip(video_starts + clip.max_offset_seconds, 0, last)
    return rng.uniform(low, high)


def second_view_starts(
    starts: np.ndarray,
    seconds: float,
    clip_seconds: float,
    distance: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """[C] starts of a second clip, a distance d after the first.

    Past the video's end it continues at the beginning. The two do not overlap wherever the video
    leaves room for that; where it does not, d is taken modulo the room.
    """
    d = rng.uniform(*distance, len(starts))
    last = max(seconds - clip_seconds, 0.0)
    after = np.maximum(last - starts - clip_seconds, 0.0)  # room behind the first clip
    before = np.maximum(starts - clip_seconds, 0.0)
    apart = after + before > 0
    step = np.mod(np.maximum(d - clip_seconds, 0.0), np.where(apart, after + before, 1.0))
    separate = np.where(step < after, starts + clip_seconds + step, step - after)
    return np.where(apart, separate, np.mod(starts + d, last) if last else 0.0)


def required_seconds(clip: Clip) -> float:
    """Seconds of video that a clip needs from its first frame, so that its audio fits as well."""
    return max(clip.video_seconds, clip.audio_seconds - clip.max_offset_seconds)


def frame_times(starts: np.ndarray, clip: Clip, seconds: float) -> np.ndarray:
    """[C, T] times of the frames; a video too short for the clip repeats."""
    return np.mod(starts[:, None] + np.arange(clip.frames) / clip.video_fps, max(seconds, 1e-3))

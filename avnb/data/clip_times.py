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


def audio_start_range(
    video_starts: np.ndarray, seconds: float, clip: Clip
) -> tuple[np.ndarray, np.ndarray]:
    """[C] earliest and [C] latest starts of the audio: where it fits, and near the frames.

    Near is, as in the thesis, a start within +- max_offset of that of the frames. In the released
    code the frames start from max_offset before the audio to max_offset before its end.

    Frames that start after seconds - audio_seconds + max_offset leave no such place; starts drawn
    for clips of `required_seconds` never do.
    """
    last, late = max(seconds - clip.audio_seconds, 0.0), clip.max_offset_seconds
    early = late if clip.audio_window == "around" else max(clip.audio_seconds - late, 0.0)
    return np.clip(video_starts - early, 0, last), np.clip(video_starts + late, 0, last)


def audio_starts(
    video_starts: np.ndarray, seconds: float, clip: Clip, rng: np.random.Generator
) -> np.ndarray:
    """[C] starts of the audio, uniform over `audio_start_range`."""
    return rng.uniform(*audio_start_range(video_starts, seconds, clip))


def second_view_starts(
    starts: np.ndarray,
    seconds: float,
    clip_seconds: float,
    distance: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """[C] starts of a second clip, a distance after the first.

    Past the video's end it goes on at the beginning. Distances that would bring the clip nearer
    than the lower bound that way are not drawn. Where no distance is left, the second clip is as
    far away as the video allows.
    """
    (least, most), last = distance, max(seconds - clip_seconds, 0.0)
    left = last - starts  # distances up to this stay in the video, longer ones wrap
    behind = np.clip(left - least, 0.0, most - least)
    wrap = np.maximum(left, least)
    wrapped = np.clip(min(most, last - least) - wrap, 0.0, None)
    place = rng.uniform(0.0, 1.0, len(starts)) * (behind + wrapped)
    second = starts + np.where(place < behind, least + place, wrap + place - behind)
    second = np.where(second > last, second - last, second)
    farthest = np.where(starts > left, 0.0, last)
    return np.where(behind + wrapped > 0, second, farthest)


def required_seconds(clip: Clip) -> float:
    """Seconds of video that a clip needs from its first frame, so that its audio fits as well."""
    return max(clip.video_seconds, clip.audio_seconds - clip.max_offset_seconds)


def frame_times(starts: np.ndarray, clip: Clip, seconds: float) -> np.ndarray:
    """[C, T] times of the frames; a video too short for the clip repeats."""
    return np.mod(starts[:, None] + np.arange(clip.frames) / clip.video_fps, max(seconds, 1e-3))

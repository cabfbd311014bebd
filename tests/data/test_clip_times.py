from pathlib import Path

import numpy as np
import pytest

from avnb.config import Clip
from avnb.data import clips as clip_times
from avnb.data.clips import Sampling, VideoClips, frame_numbers
from avnb.data.manifest import Manifest, Video

CLIP = Clip(video_seconds=1, audio_seconds=2, max_offset_seconds=0.5)


def rng():
    return np.random.default_rng(0)


def starts(seconds, place, count, clip=CLIP):
    """First starts of the clips of a video, with audio where `clip` needs more time for it."""
    sampling = Sampling(clip=clip, count=count, place=place, resize_px=256)
    empty = Manifest(name="", folder=Path(), where=Path(), classes=(), videos=(), listed=0, form="")
    return VideoClips(empty, sampling, seed=0).starts(seconds, rng())[0][:, 0]


def test_random_starts_cover_all_places_where_frames_and_audio_fit():
    found = starts(10, "random", 20_000)
    assert 0 <= found.min() < 0.01 and 8.49 < found.max() <= 8.5
    assert found.mean() == pytest.approx(4.25, abs=0.1)


def test_uniform_starts_go_from_the_beginning_to_the_end():
    short = Clip(video_seconds=0.5, audio_seconds=0.5)
    np.testing.assert_allclose(starts(5.5, "uniform", 6, short), [0, 1, 2, 3, 4, 5])


def test_a_clip_longer_than_the_video_starts_at_its_beginning():
    assert starts(0.3, "random", 3).tolist() == starts(0.3, "uniform", 3).tolist() == [0, 0, 0]


def test_audio_starts_near_the_frames_and_fits():
    starts = rng().uniform(0, 8.5, 5000)
    audio = clip_times.audio_starts(starts, 10, CLIP, np.random.default_rng(1))
    assert audio.min() >= 0 and audio.max() <= 8
    gap = audio - starts
    assert abs(gap).max() <= 0.5
    inside = gap[(starts > 0.5) & (starts < 7.5)]
    assert abs(inside.mean()) < 0.02 and inside.std() > 0.25


def video_of(seconds, fps):
    frames = round(seconds * fps)
    known = dict(frames=frames, fps=fps, width=8, height=8, audio=True, seconds=frames / fps)
    source = dict(source_fps=fps, source_width=8, source_height=8, source_hz=16_000)
    where = dict(id="a", path="a.mp4", label="x", split="train", file="a.mp4", content="")
    return Video(**known, **source, **where)


def test_frames_are_those_on_show_and_a_short_video_repeats():
    quarter, second = Clip(video_seconds=0.25, video_fps=16), Clip(video_fps=4)
    ten = video_of(10, 16.0)
    assert frame_numbers(np.array([2.0]), quarter, ten).tolist() == [[32, 33, 34, 35]]
    assert frame_numbers(np.array([2.04]), quarter, ten).tolist() == [[32, 33, 34, 35]]
    # A frame that begins this little after a time still counts as shown.
    assert frame_numbers(np.array([2.0625 - 5e-5]), quarter, ten)[0, 0] == 33
    assert frame_numbers(np.array([2.0625 - 2e-4]), quarter, ten)[0, 0] == 32
    assert frame_numbers(np.array([0.0]), second, video_of(0.5, 25.0)).tolist() == [[0, 6, 0, 6]]
    last = frame_numbers(np.array([9.75, 9.9]), quarter, ten)
    assert last.tolist() == [[156, 157, 158, 159], [158, 159, 0, 1]]


def test_a_second_clip_never_overlaps_the_first_where_there_is_room():
    rng = np.random.default_rng(0)
    for seconds in (0.7, 1.5, 2.0, 2.5, 3.0, 4.0, 10.0, 30.0):
        last = max(seconds - 1, 0)
        starts = rng.uniform(0, last, 500)
        second_view = clip_times.second_view_starts(starts, seconds, 1.0, (2.0, 8.0), rng)
        assert (second_view >= 0).all() and (second_view <= last).all()
        room = (starts >= 1) | (starts + 1 <= last)
        apart = np.abs(second_view - starts)
        assert (apart[room] >= 1 - 1e-9).all()
        if seconds >= 3:
            assert room.all()
        if seconds >= 6:  # wherever the first lies, one side has room for a distance of 2
            assert apart.min() >= 2 - 1e-9


def test_a_second_clip_lies_d_behind_the_first_or_wraps():
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 29, 5000)
    d = clip_times.second_view_starts(starts, 30.0, 1.0, (2.0, 8.0), rng) - starts
    ahead = d[d > 0]
    assert ahead.min() >= 2 and ahead.max() <= 8
    assert ahead.mean() == pytest.approx(5, abs=0.2)
    assert (starts[d < 0] + 8 > 29).all()  # only those near the end go on at the beginning


def test_three_crops_lie_side_by_side_at_every_moment():
    short = Clip(video_seconds=0.5, audio_seconds=0.5, frame_px=32)
    sampling = Sampling(clip=short, count=6, crops=3, place="uniform", resize_px=42)
    known = dict(name="", folder=Path(), where=Path(), classes=("x",), listed=1, form="")
    clips = VideoClips(Manifest(videos=(video_of(5.5, 8.0),), **known), sampling, seed=0)
    drawn = clips.draw(0, 0)
    assert drawn.starts[:, 0].tolist() == [0, 0, 0, 5, 5, 5]
    boxes = [crop.box for crop in drawn.crops[0]]
    assert boxes == 2 * [(5, 0, 32, 32), (5, 5, 32, 32), (5, 10, 32, 32)]

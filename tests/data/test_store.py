"""Files of the store: random access equals reading in order, in players as in ours."""

import av
import numpy as np
import pytest

from avnb.data import store
from avnb.data.store import HZ, RAW, Form, StoreError, stored_video
from tests.data.films import count, film, look, stored, strength, tones

FORMS = {"h264": Form(crf=10), "raw": RAW}


@pytest.fixture(scope="module", params=FORMS)
def video(request, tmp_path_factory):
    """Five seconds at 10 frames a second with two tones, stored."""
    folder = tmp_path_factory.mktemp("video")
    waves = np.concatenate([tones([400], 2.5), tones([900], 2.5)], axis=1)
    path = film(folder / "a.mp4", times=np.arange(50) / 10, audio=(waves, HZ, "mono", "aac"))
    return *stored(path, FORMS[request.param]), FORMS[request.param]


def test_any_frames_are_those_that_reading_in_order_gives(video):
    found, path, form = video
    with av.open(str(path)) as file:
        inorder = [f.to_ndarray(format="rgb24") for f in file.decode(file.streams.video[0])]
    assert len(inorder) == found.frames == (80 if form.codec == "h264" else 50)
    rng = np.random.default_rng(0)
    for numbers in ([0], [49], [3, 1, 1, 40], rng.integers(0, 50, 9), range(20, 36)):
        got = store.read_frames(path, np.asarray(numbers))
        assert all(np.array_equal(a, inorder[n]) for a, n in zip(got, numbers, strict=True))


def test_any_samples_are_those_that_reading_in_order_gives(video):
    _, path, _ = video
    with av.open(str(path)) as file:
        parts = [f.to_ndarray()[0] for f in file.decode(file.streams.audio[0])]
    inorder = np.concatenate(parts).astype(np.float32)
    inorder /= 32_767 if parts[0].dtype == np.int16 else 1
    assert len(inorder) == 5 * HZ
    for first, length in ((0, 10), (4095, 3), (17_000, 32_000), (79_990, 50), (-20, 40)):
        got = store.read_audio(path, first, length)
        padded = np.pad(inorder, (100, 100))[first + 100 :][:length]
        np.testing.assert_allclose(got, padded, atol=1e-7)
    audio = store.read_audio(path, 0, 5 * HZ)
    assert strength(audio[: 2 * HZ], 400) == pytest.approx(0.5, rel=0.05)
    assert strength(audio[3 * HZ :], 900) == pytest.approx(0.5, rel=0.05)


def test_frames_and_samples_begin_with_the_video(tmp_path):
    for form in FORMS.values():
        found, frames = look(film(tmp_path / "a.mp4"), [0.0, 0.55, 0.95], form)
        assert [count(f) for f in frames] == [0, 5, 9]
        assert found.fps == (16 if form.codec == "h264" else 10)


def test_h264_has_a_key_frame_every_8_and_no_b_frames(tmp_path):
    _, path = stored(film(tmp_path / "a.mp4", times=np.arange(50) / 10), FORMS["h264"])
    with av.open(str(path)) as file:
        packets = [p for p in file.demux(file.streams.video[0]) if p.size]
    assert [i for i, p in enumerate(packets) if p.is_keyframe] == list(range(0, 80, 8))
    assert all(p.pts == p.dts for p in packets)


def test_what_is_written_is_what_is_read(tmp_path):
    rng = np.random.default_rng(0)
    frames = [np.full((48, 64, 3), 10 * i, np.uint8) for i in range(12)]
    samples = rng.uniform(-1, 1, 12_000).astype(np.float32)
    store.write(tmp_path / "a.mp4", frames, 16.0, samples, Form(crf=1).codecs)
    got = store.read_frames(tmp_path / "a.mp4", np.arange(12))
    assert np.abs(got[:, 20, 20, 0].astype(int) - 10 * np.arange(12)).max() <= 3
    audio = store.read_audio(tmp_path / "a.mp4", 0, 12_000)
    assert np.abs(audio - samples).max() <= 0.5 / 32_767 + 1e-6


def test_a_file_that_is_cut_missing_or_of_another_rate_is_told(video, tmp_path):
    _, path, _ = video
    (tmp_path / "cut.mp4").write_bytes(path.read_bytes()[:900])
    for wrong in (tmp_path / "cut.mp4", tmp_path / "none.mp4"):
        with pytest.raises(StoreError, match="delete that file, and it is prepared again"):
            store.read_frames(wrong, np.array([0]))
    with pytest.raises(StoreError, match="has no frame 999"):
        store.read_frames(path, np.array([999]))
    with stored_video(path) as file, pytest.raises(StoreError, match="16000 Hz, not of 8000"):
        file.audio(0, 10, 8000)

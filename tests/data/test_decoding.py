"""Real files, made here, read back."""

import pickle
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avnb.data import decoding
from avnb.data.decoding import read
from avnb.data.media import inspect
from avnb.data.video_frames import DecodeError

HZ = 16_000


def numbered(path, *, frames=60, fps=20, audio_hz=22_050):
    """A video whose frame i is grey level 4 i, and whose sound clicks once every half second."""
    seconds = frames / fps
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=fps)
        video.width = video.height = 64
        video.pix_fmt, video.options = "yuv420p", {"crf": "1", "g": "10"}
        audio = out.add_stream("aac", rate=audio_hz) if audio_hz else None
        if audio:
            audio.layout = "mono"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(
                np.full((64, 64, 3), 4 * i, np.uint8), format="rgb24"
            )
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if audio:
            wave = np.zeros((1, int(seconds * audio_hz)), np.float32)
            for click in np.arange(0, seconds, 0.5):
                begin = int(click * audio_hz)
                wave[0, begin : begin + 300] = 0.8 * np.sin(
                    np.arange(wave[0, begin : begin + 300].size)
                )
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = audio_hz, 0, Fraction(1, audio_hz)
            out.mux(audio.encode(frame))
            out.mux(audio.encode())
    return path


def repeated(source, path, times):
    """The video stream of a file many times over, which takes seconds to decode."""
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size]
        copy, step = out.add_stream_from_template(stream), int(3 / stream.time_base)
        stamps = [(p.pts, p.dts) for p in packets]
        for i in range(times):
            for packet, (pts, dts) in zip(packets, stamps, strict=True):
                packet.pts, packet.dts, packet.stream = pts + i * step, dts + i * step, copy
                out.mux(packet)
    return path


def levels(path, times, **options):
    seen = {}
    audio = read(
        path, np.asarray(times, float), lambda i, p: seen.__setitem__(i, p.mean()), **options
    )
    return [round(seen[i] / 4) for i in range(len(times))], audio


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return numbered(tmp_path_factory.mktemp("video") / "a.mp4")


def test_the_frame_on_show_at_each_time_comes_back_in_any_order(video):
    times = [2.0, 0.0, 0.049, 0.05, 1.274, 1.275, 2.99, 0.0]
    frames, audio = levels(video, times, seconds=3)
    assert frames == [40, 0, 0, 1, 25, 25, 59, 0]
    assert audio is None


def test_a_container_is_opened_once_for_all_clips(video, monkeypatch):
    calls, real = [], av.open
    monkeypatch.setattr(decoding.av, "open", lambda *a, **kw: calls.append(a) or real(*a, **kw))
    levels(video, np.linspace(0, 2.9, 40), seconds=3, audio_starts=np.array([0.0, 1]), samples=HZ)
    assert len(calls) == 2  # each span of audio has a decoder of its own


def test_a_late_clip_is_sought_and_exact(tmp_path):
    path = numbered(tmp_path / "long.mp4", frames=63, fps=5)
    frames, audio = levels(
        path, [11.0, 11.9], seconds=12.6, audio_starts=np.array([11.0]), samples=HZ
    )
    assert frames == [55, 59]
    clicks = np.flatnonzero(abs(audio[0]) > 0.2) / HZ
    assert abs(clicks.min()) < 0.02 and ((clicks < 0.05) | (abs(clicks - 0.5) < 0.05)).all()


@pytest.mark.parametrize("audio_hz", [16_000, 44_100, 48_000])
def test_a_late_clip_sounds_the_same_alone_as_beside_an_early_one(tmp_path, audio_hz):
    path = numbered(tmp_path / "long.mp4", frames=63, fps=5, audio_hz=audio_hz)
    wanted = [0.3, 5.41, 6.91]
    config = {"seconds": 12.6, "samples": 2 * HZ}
    frames, audio = levels(path, wanted, audio_starts=np.array(wanted), **config)
    late, heard = levels(path, wanted[1:], audio_starts=np.array(wanted[1:]), **config)
    last, end = levels(path, wanted[2:], audio_starts=np.array(wanted[2:]), **config)
    assert frames == [1, *late] and late[1:] == last
    assert abs(audio).max() > 0.2
    assert np.array_equal(audio[1:], heard) and np.array_equal(heard[1:], end)


def test_sound_is_mono_at_the_wanted_rate_and_in_time(video):
    _, audio = levels(video, [0], seconds=3, audio_starts=np.array([0.25, 1.75]), samples=HZ)
    assert audio.shape == (2, HZ) and audio.dtype == np.float32
    for piece in audio:
        loud = np.flatnonzero(abs(piece) > 0.2) / HZ
        assert abs(loud[loud < 0.5].min() - 0.25) < 0.02  # clicks are at 0.5, 1.0 ... of the video
        assert abs(loud[loud > 0.5].min() - 0.75) < 0.02


def test_a_short_video_is_heard_over_again(tmp_path):
    path = numbered(tmp_path / "short.mp4", frames=10)
    _, audio = levels(path, [0], seconds=0.5, audio_starts=np.array([0.0]), samples=HZ)
    np.testing.assert_allclose(audio[0, : HZ // 2], audio[0, HZ // 2 :])
    assert abs(audio).max() > 0.2


def test_no_audio_stream_gives_zeros(tmp_path):
    path = numbered(tmp_path / "silent.mp4", audio_hz=0)
    _, audio = levels(path, [0], seconds=3, audio_starts=np.zeros(2), samples=100)
    assert audio.shape == (2, 100) and not audio.any()
    assert inspect(path).audio_hz == 0


def test_inspect_says_what_is_there(video):
    found = inspect(video)
    assert (found.width, found.height, found.fps, found.audio_hz) == (64, 64, 20, 22_050)
    assert found.seconds == pytest.approx(3, abs=0.01)


def damaged(video, tmp_path, change):
    path = tmp_path / "bad.mp4"
    path.write_bytes(change(video.read_bytes()))
    return path


@pytest.mark.parametrize(
    "change",
    [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"<html>gone</html>", lambda b: b[:100]],
    ids=["empty", "half", "a web page", "a header"],
)
def test_what_cannot_be_read_is_named_with_its_reason(video, tmp_path, change):
    path = damaged(video, tmp_path, change)
    for attempt in (lambda: inspect(path), lambda: levels(path, [0], seconds=3)):
        with pytest.raises(DecodeError, match=r"bad\.mp4: ."):
            attempt()


def test_an_error_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(DecodeError(Path("a/b.mp4"), "is gone")))
    assert (str(error), error.path, error.reason) == (
        "a/b.mp4: is gone",
        Path("a/b.mp4"),
        "is gone",
    )


def test_a_stream_cut_off_behind_a_whole_index_is_found(tmp_path):
    """The index stands first (as on the web), the second half of the pictures is missing."""
    path = tmp_path / "web.mp4"
    source = numbered(tmp_path / "a.mp4", frames=60)
    with (
        av.open(str(source)) as old,
        av.open(str(path), "w", options={"movflags": "faststart"}) as new,
    ):
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.55)])
    with pytest.raises(DecodeError, match=r"web\.mp4"):
        inspect(path)


def test_avi_with_b_frames_counts_time_from_its_first_frame(tmp_path):
    path = tmp_path / "b.avi"
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        video.pix_fmt, video.options = "yuv420p", {"bf": "2", "qscale": "1"}
        for i in range(60):
            picture = np.full((64, 64, 3), 4 * i, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(video.encode())
    found = inspect(path)
    assert found.seconds == pytest.approx(60 / 25, abs=0.001)
    frames, _ = levels(path, [0, 0.4, 0.401, 2.0], seconds=found.seconds, start=found.start)
    assert frames == [0, 10, 10, 50]


def test_sound_that_pauses_or_begins_late_stays_in_time(tmp_path):
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as out:
        video, stream = out.add_stream("libx264", rate=20), out.add_stream("pcm_s16le", rate=HZ)
        video.width = video.height = 64
        video.pix_fmt, stream.layout = "yuv420p", "mono"
        for _ in range(80):
            picture = np.full((64, 64, 3), 100, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(video.encode())
        for at in (1.0, 2.5):  # half a second of noise each, silence is not stored
            noise = np.random.default_rng(0).integers(-9000, 9000, (1, HZ // 2), dtype=np.int16)
            frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = HZ, int(at * HZ), Fraction(1, HZ)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    _, audio = levels(path, [0], seconds=4, audio_starts=np.array([0.0]), samples=4 * HZ)
    loud = abs(audio[0]).reshape(40, -1).mean(axis=1) > 0.01  # tenths of a second
    assert np.flatnonzero(loud).tolist() == [*range(10, 15), *range(25, 30)]


def test_a_file_with_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as out:
        audio = out.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 16_000), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 16_000
        out.mux(audio.encode(frame))
        out.mux(audio.encode())
    with pytest.raises(DecodeError, match="holds no video stream"):
        inspect(path)


# ---- damaged packets ----------------------------------------------------------------------------


def with_noise(source, path, which):
    """A copy of a file in which some packets of the video stream hold noise."""
    with av.open(str(source)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
        places = [(packets[i].pos, packets[i].size) for i in which]
    content = bytearray(source.read_bytes())
    for at, size in places:
        content[at + 4 : at + size] = np.random.default_rng(0).bytes(size - 4)
        content[at : at + 4] = (2**31 - 1).to_bytes(4, "big")  # the length of its first unit
    path.write_bytes(content)
    return path


def test_a_damaged_packet_is_counted_and_the_rest_is_read(video, tmp_path):
    bad = with_noise(video, tmp_path / "bad.mp4", [33])
    whole, found = inspect(video), inspect(bad)
    assert whole.damaged == 0 < found.damaged < 0.02
    assert found.seconds == pytest.approx(whole.seconds, abs=0.06)
    times = [0.1, 1.0, 2.1, 2.6, 2.9]
    seen, audio = levels(bad, times, seconds=3.0, audio_starts=np.zeros(1), samples=48_000)
    good, same = levels(video, times, seconds=3.0, audio_starts=np.zeros(1), samples=48_000)
    assert seen == good and np.array_equal(audio, same)


def test_what_a_jump_does_not_reach_is_read_from_the_beginning(video, tmp_path):
    """The key frame at 2 s is damaged, so that decoding cannot begin there."""
    bad = with_noise(video, tmp_path / "bad.mp4", [40])
    seen, _ = levels(bad, [0.2, 2.2], seconds=3.0)
    assert seen[0] == 4 and abs(seen[1] - 44) <= 6  # what is shown is near


def test_noise_alone_is_an_error_with_its_reason(video, tmp_path):
    bad = with_noise(video, tmp_path / "bad.mp4", range(60))
    with pytest.raises(DecodeError, match=r"bad\.mp4"):
        levels(bad, [0.2], seconds=3.0)

"""Source videos of every kind: each is read once, in order, and either stored or rejected."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition

from avnb.data import store
from avnb.data.source import DecodeError
from avnb.data.store import HZ, Form
from tests.data.films import (
    AVI,
    TEN,
    count,
    film,
    hear,
    look,
    numbered_image,
    stored,
    strength,
    tones,
    write_audio,
)

FAST = Form(codec="raw", fps=100.0, px=0)  # shows variable rates
WRAP = str(2**33 / 90_000 - 0.5)  # half a second before the clock of a TV stream starts anew
KINDS = {
    "a third of a second.mp4": {"times": TEN[:3]},
    "one frame.mp4": {"times": TEN[:1]},
    "ten bits.mp4": {"pixels": "yuv420p10le"},
    "full chroma.mp4": {"pixels": "yuv444p"},
    "full range.mkv": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "one a second.mp4": {"times": np.arange(5), "rate": 1},
    "variable rate.mp4": {"times": [0, 0.1, 0.15, 0.5, 0.52, 1.5, 1.6]},
    "variable rate.mkv": {"times": [0, 0.04, 0.08, 0.9, 1.0, 1.02]},
    "late frames.mp4": {"times": 1.5 + TEN, "audio": (tones([440], 3), HZ, "mono", "aac")},
    "late frames.mkv": {"times": 1.5 + TEN},
    "no duration.mkv": {"muxer": {"live": "1"}},
    "in fragments.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "shown before decoded.mov": {"muxer": {"movflags": "negative_cts_offsets"}},
    "broadcast.ts": {},
    "clock starts anew.ts": {"muxer": {"output_ts_offset": WRAP}},
    "slow.webm": {"codec": "libvpx-vp9", "times": np.arange(8) * 10, "rate": 1, "options": {}},
    "old.mpg": {"codec": "mpeg2video", "times": np.arange(25) / 25, "rate": 25},
    "flash.flv": {"codec": "flv1", **{k: v for k, v in AVI.items() if k == "rate"}},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_shown_in_its_time(tmp_path, name):
    options = KINDS[name]
    path = film(tmp_path / name, **options)
    begins = np.asarray(options.get("times", TEN), float)
    begins = begins - begins[0]
    _, frames = look(path, [*begins + 1e-3, *begins[1:] - 2e-3], FAST)
    numbers = list(range(len(begins)))
    assert [count(f) for f in frames] == numbers + numbers[:-1]
    assert {f.shape for f in frames} == {(48, 64, 3)}
    red = frames[0][3, 3].astype(int)
    assert abs(red - (250, 30, 30)).max() < 14


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_frame_i_of_an_avi_is_shown_at_i_over_its_rate(tmp_path, codec, b_frames):
    """AVI holds no presentation times, and FFmpeg's guesses swap neighbours."""
    path = film(
        tmp_path / "a.avi",
        codec=codec,
        rate=10,
        times=np.arange(24) / 10,
        options={"bf": b_frames},
        audio=(tones([0, 0], 2.4), HZ, "stereo", "pcm_s16le"),
    )
    found, frames = look(path, np.arange(24) / 10)
    assert [count(f) for f in frames] == list(range(24))
    assert (found.fps, found.frames, found.source_fps) == (10, 24, 10)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_frames_are_shown_in_order_where_times_were_copied_from_an_avi(tmp_path, name):
    """They are those of decoding."""
    plain = film(tmp_path / "plain.avi", times=np.arange(24) / 10)
    with av.open(str(plain)) as old, av.open(str(tmp_path / name), "w") as out:
        copy = out.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream, packet.pts = copy, packet.dts
                out.mux(packet)
    found, frames = look(tmp_path / name, np.arange(24) / 10)
    assert [count(f) for f in frames] == list(range(24))
    assert (found.frames, found.source_fps) == (24, 10)


def test_a_frame_that_cannot_be_decoded_moves_no_other(tmp_path):
    path = film(tmp_path / "a.avi", codec="mjpeg", pixels="yuvj420p", times=np.arange(40) / 10)
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    path.write_bytes(path.read_bytes().replace(packets[20], bytes(len(packets[20]))))
    _, frames = look(path, np.arange(40) / 10)
    assert [count(f) for f in frames] == [i % 28 for i in [*range(20), 19, *range(21, 40)]]


def test_packed_b_frames_are_shown_in_order(tmp_path):
    """As DivX and Xvid put them into AVI: two pictures in a packet, the next one is empty."""
    plain = film(tmp_path / "plain.avi", codec="mpeg4", times=TEN, options={"bf": "1", "g": "99"})
    picture = b"\x00\x00\x01\xb6"  # its start; two bits say whether it is I, P or B
    with av.open(str(plain)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    packets[0] = packets[0].replace(picture, b"\x00\x00\x01\xb2DivX503b1393p" + picture)
    kinds = "".join("IPB"[p[p.index(picture) + 4] >> 6] for p in packets)
    assert kinds[2::2] == "BBBB"
    packets[1:9:2] = [a + b for a, b in zip(packets[1:9:2], packets[2:9:2], strict=True)]
    packets[2:9:2] = [picture + b"\x50\x80"] * 4
    with av.open(str(tmp_path / "a.avi"), "w") as out:
        video = out.add_stream("mpeg4", rate=10, width=64, height=48)
        for i, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = video, i, i, Fraction(1, 10)
            out.mux(packet)
    _, frames = look(tmp_path / "a.avi", TEN)
    assert [count(f) for f in frames] == list(range(10))


# (x, y) goes to (a x + c y, b x + d y): a, b, 0, c, d, 0; and where the red corner is then seen
TURNS = {
    "quarter right": ((0, 1, 0, -1, 0, 0), (0, -1)),
    "upside down": ((-1, 0, 0, 0, -1, 0), (-1, -1)),
    "quarter left": ((0, -1, 0, 1, 0, 0), (-1, 0)),
    "mirrored": ((-1, 0, 0, 0, 1, 0), (0, -1)),
    "mirrored quarter": ((0, 1, 0, 1, 0, 0), (0, 0)),
}


@pytest.mark.parametrize("name", TURNS)
def test_a_turned_video_is_stored_upright(tmp_path, name):
    matrix, corner = TURNS[name]
    found, (frame,) = look(film(tmp_path / "a.mp4", matrix=matrix), [0.55])
    size = (64, 48) if matrix[0] else (48, 64)
    assert (found.width, found.height) == size == frame.shape[1::-1]
    corners = {(y, x): frame[y, x, 0] > 200 for y in (0, -1) for x in (0, -1)}
    assert [place for place, red in corners.items() if red] == [corner]


def test_frames_get_square_pixels_and_are_never_enlarged(tmp_path):
    found, _ = stored(film(tmp_path / "a.mkv", aspect=Fraction(1, 2)))
    assert (found.width, found.height) == (32, 48)


def test_the_shorter_side_is_shrunk_to_its_most_and_odd_sides_become_even(tmp_path):
    path = film(tmp_path / "a.mp4", size=(200, 120))
    found, frames = look(path, TEN, Form(px=60, crf=10))
    assert (found.width, found.height, found.source_width) == (100, 60, 100 * 2)
    assert count(frames[0]) == 0
    odd = film(tmp_path / "odd.mp4", size=(51, 37), pixels="yuv444p")
    found, frames = look(odd, TEN)
    assert (found.width, found.height) == (52, 36)
    assert [count(f) for f in frames] == list(range(10))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_last_frame_stays_while_there_is_sound(tmp_path, name):
    audio = (tones([440], 3.0), HZ, "mono", "flac")
    found, frames = look(film(tmp_path / name, times=TEN[:1], audio=audio), [0, 2.9])
    assert found.frames / found.fps == pytest.approx(3.0, abs=0.11)
    assert [count(f) for f in frames] == [0, 0]


def test_a_size_that_changes_on_the_way_is_seen_in_the_first_one(tmp_path):
    small = film(tmp_path / "small.ts")
    large = film(tmp_path / "large.ts", size=(96, 80), muxer={"output_ts_offset": "1.2"})
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    _, frames = look(tmp_path / "both.ts", [0.05, 0.95, 1.05, 1.95])
    assert [count(f) for f in frames] == [0, 9, 0, 9]
    assert {f.shape for f in frames} == {(48, 64, 3)}


@pytest.mark.parametrize(
    "name, layout, hz, codec",
    [
        ("a.mp4", "mono", 8_000, "aac"),
        ("a.avi", "mono", 8_000, "libmp3lame"),
        ("a.mkv", "mono", 11_025, "pcm_s16le"),
        ("a.mp4", "stereo", 48_000, "aac"),
        ("a.mp4", "5.1", 48_000, "ac3"),
        ("a.mkv", "4.0", 44_100, "flac"),
    ],
)
def test_sound_of_any_rate_and_layout_keeps_its_pitch(tmp_path, name, layout, hz, codec):
    channels = av.AudioLayout(layout).nb_channels
    waves = tones([1000] * channels, 1.0, hz)
    path = film(tmp_path / name, audio=(waves, hz, layout, codec), codec="mpeg4")
    assert stored(path)[0].source_hz == hz
    audio = hear(path)[HZ // 4 : -HZ // 4]
    spectrum = abs(np.fft.rfft(audio))
    assert np.argmax(spectrum) * HZ / len(audio) == pytest.approx(1000, abs=2)
    assert strength(audio, 1000) == pytest.approx(abs(audio).max(), rel=0.1)  # nothing else


def test_sound_before_late_frames_is_left_out(tmp_path):
    waves = np.concatenate([tones([400], 1.5), tones([900], 1.5)], axis=1)
    audio = (waves, HZ, "mono", "pcm_s16le")
    heard = hear(film(tmp_path / "a.mkv", times=1.5 + TEN, audio=audio))[:HZ]
    assert strength(heard, 900) == pytest.approx(0.5, rel=0.05)
    assert strength(heard, 400) < 0.01


def test_sound_that_pauses_or_begins_late_stays_in_time(tmp_path):
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as out:
        video, stream = out.add_stream("libx264", rate=20), out.add_stream("pcm_s16le", rate=HZ)
        video.width, video.height, video.pix_fmt, stream.layout = 64, 48, "yuv420p", "mono"
        for _ in range(80):
            frame = av.VideoFrame.from_ndarray(numbered_image(3), format="rgb24")
            out.mux(video.encode(frame))
        out.mux(video.encode())
        for at in (1.0, 2.5):  # half a second of noise each, silence is not stored
            noise = np.random.default_rng(0).integers(-9000, 9000, (1, HZ // 2), dtype=np.int16)
            piece = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = HZ, int(at * HZ), Fraction(1, HZ)
            out.mux(stream.encode(piece))
        out.mux(stream.encode())
    loud = abs(hear(path)).reshape(40, -1).mean(axis=1) > 0.01  # tenths of a second
    assert np.flatnonzero(loud).tolist() == [*range(10, 15), *range(25, 30)]


def test_samples_that_are_no_sound_are_silenced(tmp_path):
    waves = tones([440], 1.0)
    waves[0, 100:110], waves[0, 200] = np.nan, 1e30
    path = film(tmp_path / "a.mkv", audio=(waves, HZ, "mono", "pcm_f32le"))
    found, target = stored(path)
    assert found.audio and found.sound_lost == "0.1% of its samples are no sound"
    audio = store.read_audio(target, 0, HZ)
    assert not audio[100:110].any() and abs(audio).max() <= 0.5


@pytest.mark.parametrize("codec", ["aac", "ac3"])  # which leaves ten millionths
def test_digital_silence_is_no_sound(tmp_path, codec):
    waves, hz = tones([0], 1.0, 48_000), 48_000
    silent, _ = stored(film(tmp_path / "a.mp4", audio=(waves, hz, "mono", codec)))
    none, target = stored(film(tmp_path / "b.mp4"))
    assert (silent.audio, silent.source_hz) == (False, hz)
    assert (none.audio, none.source_hz) == (False, 0)
    assert not store.read_audio(target, 0, 100).any()


SPOILT = {  # of the first, which no FFmpeg knows, PyAV hides the stream
    "pcm_s16le": (b"A_PCM/INT/LIT", b"no decoder!!!", ""),
    "ac3": (b"\x0b\x77", b"\0\0", "97.0% of its sound's packets cannot be decoded"),
}


@pytest.mark.parametrize("codec", SPOILT)
def test_sound_that_cannot_be_decoded_costs_no_video(tmp_path, codec):
    path = film(tmp_path / "a.mkv", audio=(tones([440], 1.0, 48_000), 48_000, "mono", codec))
    *changed, reason = SPOILT[codec]
    path.write_bytes(path.read_bytes().replace(*changed))
    found, _ = stored(path)
    assert (found.frames, found.audio, found.source_hz) == (10, False, 0)
    assert found.sound_lost == reason


def test_the_default_track_is_heard(tmp_path):
    path = tmp_path / "a.mkv"
    film(tmp_path / "plain.mkv")
    with av.open(str(tmp_path / "plain.mkv")) as old, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(old.streams.video[0])
        tracks = [out.add_stream("pcm_s16le", rate=HZ, layout="mono") for _ in range(2)]
        tracks[1].disposition = Disposition.default
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
        for track, hertz in zip(tracks, (400, 900), strict=True):
            write_audio(out, track, tones([hertz], 1.0), HZ, "mono")
    assert strength(hear(path), 900) == pytest.approx(0.5, rel=0.05)


def unreadable(folder):
    """Make one file of each kind; name -> what its reason must say."""
    plain = film(folder / "plain.mp4").read_bytes()
    avi = film(folder / "plain.avi", **AVI).read_bytes()
    (folder / "nothing.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This video is no longer available.\n" * 40)
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile plain.mp4\n")
    (folder / "a folder.mp4").mkdir()
    (folder / "zeros.mp4").write_bytes(bytes(100_000))
    (folder / "cut.mp4").write_bytes(plain[: len(plain) // 2])
    (folder / "no decoder.avi").write_bytes(avi.replace(b"FMP4", b"ZZZZ"))
    audio_alone(folder / "sound alone.m4a", cover=False)
    audio_alone(folder / "music with a cover.m4a", cover=True)
    film(folder / "hours.mkv", times=[0, 0.1, 9000.0])
    (folder / "secret.mp4").symlink_to(folder / "went away.mp4")
    return {
        "nothing.mp4": "Invalid data",
        "text.mp4": "Invalid data",
        "list.mp4": "Invalid argument",
        "zeros.mp4": "Invalid data",
        "a folder.mp4": "is no regular file",
        "cut.mp4": "Invalid data",
        "no decoder.avi": "no decoder",
        "sound alone.m4a": "no video stream",
        "music with a cover.m4a": "no video stream",
        "hours.mkv": "is due at 9000 s",
        "secret.mp4": "No such file",
    }


def audio_alone(path, *, cover):
    with av.open(str(path), "w", format="mp4") as out:
        if cover:
            image = out.add_stream("mjpeg", rate=1)
            image.width, image.height, image.pix_fmt = 64, 48, "yuvj420p"
            image.disposition = Disposition.attached_pic
        audio = out.add_stream("aac", rate=HZ, layout="mono")
        if cover:
            frame = av.VideoFrame.from_ndarray(numbered_image(0), format="rgb24")
            out.mux(image.encode(frame.reformat(format="yuvj420p")))
            out.mux(image.encode())
        write_audio(out, audio, tones([440], 1.0), HZ, "mono")


def test_every_file_that_cannot_be_read_gives_its_reason(tmp_path):
    for name, reason in unreadable(tmp_path).items():
        with pytest.raises(DecodeError, match=reason):
            stored(tmp_path / name)


@pytest.mark.parametrize("movflags", ["", "faststart", "frag_keyframe+empty_moov"])
def test_an_mp4_cut_off_anywhere_is_read_or_says_why_not(tmp_path, movflags):
    times = np.arange(24) / 10
    path = film(tmp_path / "whole.mp4", times=times, muxer=movflags and {"movflags": movflags})
    whole, lengths = path.read_bytes(), []
    for share in (0.01, 0.2, 0.5, 0.7, 0.8, 0.95, 0.999):
        (tmp_path / "cut.mp4").write_bytes(whole[: int(share * len(whole))])
        try:
            found, frames = look(tmp_path / "cut.mp4", [0.01])
        except DecodeError as error:
            assert str(error)
            continue
        lengths.append(found.frames / found.fps)
        assert count(frames[0]) == 0
    assert lengths == sorted(lengths)
    if movflags == "faststart":  # it announces its length, so a large loss is found
        assert all(seconds >= 0.75 * 2.4 for seconds in lengths)


def test_damage_in_the_middle_is_an_error_and_no_crash(tmp_path):
    whole = bytearray(film(tmp_path / "a.avi", **AVI).read_bytes())
    rng = np.random.default_rng(0)
    begin, read = whole.index(b"movi"), 0
    for _ in range(20):
        bad = whole.copy()
        for at in rng.integers(begin, len(bad), 60):
            bad[at] = rng.integers(256)
        (tmp_path / "bad.avi").write_bytes(bad)
        try:
            read += stored(tmp_path / "bad.avi")[0].frames > 0
        except DecodeError as error:
            assert str(error)
    assert read < 20


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_title_in_no_known_encoding_hides_no_video(tmp_path, name):
    path = film(tmp_path / name)
    plain = path.read_bytes()
    assert b"Lavf" in plain  # FFmpeg's own tag
    path.write_bytes(plain.replace(b"Lavf", b"\xe0\xff\xc3("))
    found, frames = look(path, TEN + 0.05)
    assert [count(frame) for frame in frames] == list(range(10)) and found.fps == 10

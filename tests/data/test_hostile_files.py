"""Videos of every kind: each is read correctly, or stands in the ledger with its reason."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition

from avnb.data import limits
from avnb.data.audit import audit, inspect_file
from avnb.data.datasets import Listing
from avnb.data.decoding import read
from avnb.data.manifest import Entry
from avnb.data.media import inspect
from avnb.data.video_frames import DecodeError

HZ = 16_000  # of what comes back
MILLI = Fraction(1, 1000)
DARK, STEP = 20, 8  # grey level of frame 0, and of each next one above it
TEN = np.arange(10) / 10


def numbered_image(number, width=64, height=48):
    """Frame `number`: its grey level counts, a red patch marks the upper left corner."""
    pixels = np.full((height, width, 3), DARK + STEP * number, np.uint8)
    pixels[: height // 3, : width // 3] = (250, 30, 30)
    return pixels


def tones(hertz, seconds, hz):
    """[channels, samples]: each channel a sine of half the full amplitude; 0 Hz is silence."""
    t = np.arange(int(seconds * hz)) / hz
    return np.stack([0.5 * np.sin(2 * np.pi * f * t) for f in hertz]).astype(np.float32)


def film(
    path,
    *,
    times=TEN,
    size=(64, 48),
    codec="libx264",
    pixels="yuv420p",
    rate=10,
    matrix=None,
    muxer=None,
    audio=None,
    last_seconds=None,
):
    """Write the frames at the given seconds; `audio` is (waves, hz, layout, codec)."""
    with av.open(str(path), "w", options=muxer or {}) as out:
        video = out.add_stream(codec, rate=rate)
        (video.width, video.height), video.pix_fmt = size, pixels
        video.options = {"crf": "3", "g": "5", "bf": "2"} if codec == "libx264" else {"qscale": "1"}
        if codec != "mpeg4":
            video.codec_context.time_base = MILLI
        if matrix:
            video.set_display_matrix([65536 * n for n in matrix] + [0, 0, 1 << 30])
        stream = None
        if audio:
            waves, hz, layout, name = audio
            stream = out.add_stream(name, rate=hz, layout=layout)
        packets = []
        for i, at in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered_image(i, *size), format="rgb24")
            frame.pts, frame.time_base = round(float(at) * 1000), MILLI
            packets += video.encode(frame)
        packets += video.encode()
        if last_seconds:
            last = max(packets, key=lambda p: p.pts)
            last.duration = round(last_seconds / last.time_base)
        out.mux(packets)
        if stream is not None:
            write_audio(out, stream, waves, hz, layout)
    return path


def write_audio(out, audio, waves, hz, layout):
    frame = av.AudioFrame.from_ndarray(waves, format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = hz, 0, Fraction(1, hz)
    kind = av.AudioResampler(format=audio.codec_context.format.name, layout=layout, rate=hz)
    for piece in [*kind.resample(frame), *kind.resample(None)]:
        out.mux(audio.encode(piece))
    out.mux(audio.encode())


def look(path, times):
    """What `inspect` says, and the frames [H, W, 3] on show at the times."""
    found, seen = inspect(path), {}
    wanted = np.asarray(times, float)
    read(path, wanted, seen.__setitem__, seconds=found.seconds, start=found.start)
    return found, [seen[i] for i in range(len(wanted))]


def count(frame):
    """The number of the frame, from its brightness away from the red corner."""
    return round((frame[-8:, -8:].mean() - DARK) / STEP)


def hear(path, seconds):
    """The audio from the first frame on, [samples]."""
    found = inspect(path)
    audio = read(
        path,
        np.zeros(1),
        lambda *_: None,
        seconds=found.seconds,
        start=found.start,
        audio_starts=np.zeros(1),
        samples=round(seconds * HZ),
        hz=HZ,
    )
    return audio[0]


def strength(audio, hertz):
    """Amplitude of a sine in a sound."""
    t = np.arange(len(audio)) / HZ
    return 2 * abs(np.mean(audio * np.exp(-2j * np.pi * hertz * t)))


# ---- frames -----------------------------------------------------------------------------------

AVI = {"codec": "mpeg4", "rate": 10}
WRAP = str(2**33 / 90_000 - 0.5)  # half a second before the clock of a TV stream starts anew
KINDS = {
    "a third of a second.mp4": {"times": TEN[:3]},
    "one frame.mp4": {"times": TEN[:1]},
    "odd size.mp4": {"size": (51, 37), "pixels": "yuv444p"},
    "odd size.avi": {"size": (51, 37), **AVI},
    "ten bits.mp4": {"pixels": "yuv420p10le"},
    "full chroma.mp4": {"pixels": "yuv444p"},
    "full range.mkv": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "one a second.mp4": {"times": np.arange(5), "rate": 1},
    "variable rate.mp4": {"times": [0, 0.1, 0.15, 0.5, 0.52, 1.5, 1.6]},
    "variable rate.mkv": {"times": [0, 0.04, 0.08, 0.9, 1.0, 1.01]},
    "late frames.mp4": {"times": 1.5 + TEN, "audio": (tones([440], 3, HZ), HZ, "mono", "aac")},
    "late frames.mkv": {"times": 1.5 + TEN},
    "no duration.mkv": {"muxer": {"live": "1"}},
    "in fragments.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "broadcast.ts": {},
    "clock starts anew.ts": {"muxer": {"output_ts_offset": WRAP}},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_shown_in_its_time(tmp_path, name):
    options = KINDS[name]
    path = film(tmp_path / name, **options)
    begins = np.asarray(options.get("times", TEN), float)
    begins = begins - begins[0]
    found, frames = look(path, [*begins + 1e-3, *begins[1:] - 2e-3])
    numbers = list(range(len(begins)))
    assert [count(f) for f in frames] == numbers + numbers[:-1]
    width, height = options.get("size", (64, 48))
    assert {f.shape for f in frames} == {(height, width, 3)}
    assert (found.width, found.height) == (width, height)
    assert begins[-1] < found.seconds <= begins[-1] + 1 / options.get("rate", 10) + 0.005
    red = frames[0][3, 3].astype(int)
    assert abs(red - (250, 30, 30)).max() < 12


def test_times_before_zero_count_from_the_first_frame(tmp_path):
    path = film(tmp_path / "a.ts", **KINDS["clock starts anew.ts"])
    assert inspect(path).start < 0


# (x, y) goes to (a x + c y, b x + d y): a, b, 0, c, d, 0; and where the red corner is then seen
TURNS = {
    "quarter right": ((0, 1, 0, -1, 0, 0), (0, -1)),
    "upside down": ((-1, 0, 0, 0, -1, 0), (-1, -1)),
    "quarter left": ((0, -1, 0, 1, 0, 0), (-1, 0)),
    "mirrored": ((-1, 0, 0, 0, 1, 0), (0, -1)),
    "mirrored upside down": ((1, 0, 0, 0, -1, 0), (-1, 0)),
    "mirrored quarter": ((0, 1, 0, 1, 0, 0), (0, 0)),
}


@pytest.mark.parametrize("name", TURNS)
def test_a_turned_video_is_seen_upright_and_its_size_is_the_upright_one(tmp_path, name):
    matrix, corner = TURNS[name]
    found, (frame,) = look(film(tmp_path / "a.mp4", matrix=matrix), [0.55])
    size = (64, 48) if matrix[0] else (48, 64)
    assert (found.width, found.height) == size == frame.shape[1::-1]
    corners = {(y, x): frame[y, x, 0] > 200 for y in (0, -1) for x in (0, -1)}
    assert [place for place, red in corners.items() if red] == [corner]


def test_a_still_end_belongs_to_the_video(tmp_path):
    """A slide show may end with one frame of many seconds."""
    for name in ("a.mp4", "a.mkv"):
        found, frames = look(film(tmp_path / name, last_seconds=4.0), [0.85, 0.95, 4.5])
        assert found.seconds == pytest.approx(4.9, abs=0.01)
        assert [count(f) for f in frames] == [8, 9, 9]


def test_a_size_that_changes_on_the_way_is_seen_in_the_first_one(tmp_path):
    small = film(tmp_path / "small.ts")
    large = film(tmp_path / "large.ts", size=(96, 80), muxer={"output_ts_offset": "1.2"})
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    found, frames = look(tmp_path / "both.ts", [0.05, 0.95, 1.05, 1.95])
    assert [count(f) for f in frames] == [0, 9, 0, 9]
    assert {f.shape for f in frames} == {(48, 64, 3)} == {(found.height, found.width, 3)}


# ---- audio ------------------------------------------------------------------------------------


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
    audio = hear(path, 1.0)[HZ // 4 : -HZ // 4]
    assert inspect(path).audio_hz == hz
    spectrum = abs(np.fft.rfft(audio))
    assert np.argmax(spectrum) * HZ / len(audio) == pytest.approx(1000, abs=2)
    assert strength(audio, 1000) == pytest.approx(abs(audio).max(), rel=0.1)  # nothing else


def test_surround_sound_is_mixed_in_the_usual_shares(tmp_path):
    """Left and right 3 dB and the rear 6 dB below the centre; no channel is lost but the bass."""
    hertz = {"FL": 500, "FR": 700, "FC": 900, "LFE": 60, "BL": 1100, "BR": 1300}
    waves = tones(hertz.values(), 1.0, HZ)
    path = film(tmp_path / "a.mkv", audio=(waves, HZ, "5.1", "pcm_s16le"))
    heard = {name: strength(hear(path, 1.0), f) for name, f in hertz.items()}
    shares = {name: amplitude / heard["FC"] for name, amplitude in heard.items()}
    wanted = {"FL": 0.707, "FR": 0.707, "FC": 1, "LFE": 0, "BL": 0.5, "BR": 0.5}
    assert shares == pytest.approx(wanted, abs=0.02)
    assert 0.1 < heard["FC"] < 0.6


def test_sound_before_late_frames_is_left_out(tmp_path):
    waves = np.concatenate([tones([400], 1.5, HZ), tones([900], 1.5, HZ)], axis=1)
    path = film(tmp_path / "a.mkv", times=1.5 + TEN, audio=(waves, HZ, "mono", "pcm_s16le"))
    audio = hear(path, 1.0)
    assert strength(audio, 900) == pytest.approx(0.5, rel=0.05)
    assert strength(audio, 400) < 0.01


# ---- what cannot be read ----------------------------------------------------------------------


def unreadable(folder):
    """Make one file of each kind; name -> what its reason must say."""
    plain = film(folder / "plain.mp4").read_bytes()
    avi = film(folder / "plain.avi", **AVI).read_bytes()
    (folder / "nothing.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This video is no longer available.\n" * 40)
    (folder / "a folder.mp4").mkdir()
    (folder / "zeros.mp4").write_bytes(bytes(100_000))
    (folder / "cut.mp4").write_bytes(plain[: len(plain) // 2])
    (folder / "no decoder.avi").write_bytes(avi.replace(b"FMP4", b"ZZZZ"))
    header_alone(folder / "no frames.avi")
    film(folder / "no clock.h264")
    audio_alone(folder / "sound alone.m4a", cover=False)
    audio_alone(folder / "music with a cover.m4a", cover=True)
    (folder / "secret.mp4").symlink_to(folder / "went away.mp4")
    return {
        "nothing.mp4": "Invalid data",
        "text.mp4": "Invalid data",
        "zeros.mp4": "Invalid data",
        "a folder.mp4": "is a folder, not a file",
        "cut.mp4": "Invalid data",
        "no decoder.avi": "no decoder",
        "no frames.avi": "no frame",
        "no clock.h264": "no time stamps",
        "sound alone.m4a": "no video stream",
        "music with a cover.m4a": "no video stream",
        "secret.mp4": "No such file",
    }


def header_alone(path):
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        out.start_encoding()


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
        write_audio(out, audio, tones([440], 1.0, HZ), HZ, "mono")


def test_the_ledger_gives_the_reason_of_every_file_that_cannot_be_read(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    reasons = unreadable(folder)
    film(folder / "turned.mp4", matrix=(0, 1, 0, -1, 0, 0))
    names = [*reasons, "plain.mp4", "turned.mp4"]
    entries = tuple(Entry(id=n, path=n, label="any", split="train") for n in names)
    listed = Listing(name="any", folder=folder, classes=("any",), entries=entries)
    manifest, ledger = audit(listed, tmp_path / "out")
    sizes = [(v.path, v.width, v.height) for v in manifest.videos]
    assert sizes == [("plain.mp4", 64, 48), ("turned.mp4", 48, 64)]
    assert [row.path for row in ledger] == list(reasons)
    for row in ledger:
        assert reasons[row.path] in row.reason, row


def indexed_first(path):
    return film(path, times=np.arange(24) / 10, muxer={"movflags": "faststart"})


def in_fragments(path):
    movflags = {"movflags": "frag_keyframe+empty_moov"}
    return film(path, times=np.arange(24) / 10, muxer=movflags)


@pytest.mark.parametrize("make", [film, indexed_first, in_fragments])
def test_an_mp4_cut_off_anywhere_is_read_or_says_why_not(tmp_path, make):
    whole = make(tmp_path / "whole.mp4").read_bytes()
    full, cut = inspect(tmp_path / "whole.mp4"), tmp_path / "cut.mp4"
    lengths = []
    for share in (0.01, 0.2, 0.5, 0.6, 0.7, 0.8, 0.95, 0.999):
        cut.write_bytes(whole[: int(share * len(whole))])
        found = inspect_file(tmp_path, "cut.mp4")
        if isinstance(found, str):
            assert found
            continue
        lengths.append(found.seconds)
        stated, frames = look(cut, [0.01, found.seconds - 0.01])
        assert count(frames[0]) == 0 and stated.seconds <= full.seconds
        assert count(frames[1]) == pytest.approx(10 * found.seconds - 1, abs=0.6)
    assert lengths == sorted(lengths)
    if make is indexed_first:  # it announces its length, so a large loss is found
        assert all(s >= 0.75 * full.seconds for s in lengths)


def test_damage_in_the_middle_is_an_error_and_no_crash(tmp_path):
    whole = bytearray(film(tmp_path / "a.avi", **AVI).read_bytes())
    rng = np.random.default_rng(0)
    begin = whole.index(b"movi")
    for _ in range(20):
        bad = whole.copy()
        for at in rng.integers(begin, len(bad), 60):
            bad[at] = rng.integers(256)
        (tmp_path / "bad.avi").write_bytes(bad)
        try:
            found = inspect(tmp_path / "bad.avi")
            look(tmp_path / "bad.avi", np.linspace(0, found.seconds * 0.99, 5))
        except DecodeError as error:
            assert error.reason


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_title_in_no_known_encoding_hides_no_video(tmp_path, name):
    path = film(tmp_path / name)
    plain = path.read_bytes()
    assert b"Lavf" in plain  # FFmpeg's own tag
    path.write_bytes(plain.replace(b"Lavf", b"\xe0\xff\xc3("))
    found, frames = look(path, TEN + 0.05)
    assert [count(frame) for frame in frames] == list(range(10)) and found.fps == 10


def test_limits_are_values_of_the_environment(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    film(path)
    limits.limits.cache_clear()
    monkeypatch.setenv(limits.VARIABLE, '{"seconds": 1, "frame_pixels": 100}')
    with pytest.raises(DecodeError, match=r"has frames of .* pixels; 100 are the most"):
        inspect(path)
    limits.limits.cache_clear()
    monkeypatch.setenv(limits.VARIABLE, '{"second": 1}')
    with pytest.raises(TypeError, match="'second' is unknown; did you mean 'seconds'"):
        inspect(path)
    limits.limits.cache_clear()
    monkeypatch.delenv(limits.VARIABLE)
    assert inspect(path).width

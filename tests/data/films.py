"""Source videos made for tests: frames that count, tones that can be measured."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avnb.data import store
from avnb.data.store import HZ, RAW, Stored

MILLI = Fraction(1, 1000)
DARK, STEP = 20, 8  # grey level of frame 0, and of each next one above it
TEN = np.arange(10) / 10
AVI = {"codec": "mpeg4", "rate": 10}


def numbered_image(number, width=64, height=48):
    """Frame `number`: its grey level counts, a red patch marks the upper left corner."""
    pixels = np.full((height, width, 3), DARK + STEP * (number % 28), np.uint8)
    pixels[: height // 3, : width // 3] = (250, 30, 30)
    return pixels


def count(frame):
    """The number of the frame, from its brightness away from the red corner."""
    return round((frame[-8:, -8:].mean() - DARK) / STEP)


def tones(hertz, seconds, hz=HZ):
    """[channels, samples]: each channel a sine of half the full amplitude; 0 Hz is silence."""
    t = np.arange(int(seconds * hz)) / hz
    return np.stack([0.5 * np.sin(2 * np.pi * f * t) for f in hertz]).astype(np.float32)


def strength(audio, hertz):
    """Amplitude of a sine in a sound."""
    t = np.arange(len(audio)) / HZ
    return 2 * abs(np.mean(audio * np.exp(-2j * np.pi * hertz * t)))


def film(
    path,
    *,
    times=TEN,
    size=(64, 48),
    codec="libx264",
    pixels="yuv420p",
    rate=10,
    options=None,
    matrix=None,
    muxer=None,
    audio=None,
    aspect=None,
):
    """Write the frames at the given seconds; `audio` is (waves, hz, layout, codec)."""
    with av.open(str(path), "w", options=muxer or {}) as out:
        video = out.add_stream(codec, rate=rate)
        (video.width, video.height), video.pix_fmt = size, pixels
        usual = {"crf": "3", "g": "5", "bf": "2"} if codec == "libx264" else {}
        video.options = usual | (options or {})
        if codec != "libx264":
            video.bit_rate = 8_000_000  # enough to lose nothing that counts
        clock = Fraction(1, rate) if path.suffix == ".avi" or codec == "mpeg2video" else MILLI
        if codec != "mpeg4":
            video.codec_context.time_base = clock
        if aspect:
            video.codec_context.sample_aspect_ratio = aspect
        if matrix:
            video.set_display_matrix([65536 * n for n in matrix] + [0, 0, 1 << 30])
        if audio:
            waves, hz, layout, name = audio
            stream = out.add_stream(name, rate=hz, layout=layout)
        packets = []
        for i, at in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered_image(i, *size), format="rgb24")
            frame.pts, frame.time_base = round(float(at) / clock), clock
            packets += video.encode(frame)
        out.mux(packets + video.encode())
        if audio:
            write_audio(out, stream, waves, hz, layout)
    return path


def write_audio(out, audio, waves, hz, layout):
    frame = av.AudioFrame.from_ndarray(waves, format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = hz, 0, Fraction(1, hz)
    kind = av.AudioResampler(format=audio.codec_context.format.name, layout=layout, rate=hz)
    for piece in [*kind.resample(frame), *kind.resample(None)]:
        out.mux(audio.encode(piece))
    out.mux(audio.encode())


def stored(path, form=RAW) -> tuple[Stored, Path]:
    """The file in the store, and what is known of it."""
    target = path.with_name(f"{path.name}.store{form.suffix}")
    return store.convert(path, target, form), target


def look(path, times, form=RAW):
    """The frames [H, W, 3] of the stored file that are on show at the times."""
    found, target = stored(path, form)
    numbers = np.floor((np.asarray(times) + store.EARLY_SECONDS) * found.fps).astype(int)
    return found, store.read_frames(target, np.minimum(numbers, found.frames - 1))


def hear(path, form=RAW):
    """All audio of the stored file, [samples]."""
    found, target = stored(path, form)
    return store.read_audio(target, 0, round(found.frames / found.fps * HZ))

"""The store: one file a video, read by the numbers of frames and of audio samples.

Frame k is shown from k / fps seconds on, sample n is heard at n / HZ; both begin with the video.
`h264` is an MP4 of H.264 and FLAC, with a key frame every `KEY_EVERY` and no B-frames. `raw` is a
Matroska file of the frames as they were decoded and floating-point sound, for small worlds.

Shapes: N frames of H x W pixels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from avnb.config import Group, within
from avnb.data.source import FrameConverter, Source

HZ = 16_000  # of all sound
KEY_EVERY = 16  # frames
EARLY_SECONDS = 1e-4  # a frame that begins this little after a time still counts as shown at it
PADDING_SECONDS = 0.25  # of sound that encoders may add to a video's end
FULL_SCALE = 32_767  # of 16 bits
AUDIO_PACKET = 4096  # samples
AGAIN = "delete that file, and it is prepared again"


@dataclass(frozen=True, kw_only=True)
class Form(Group):
    """How the files of a store are written."""

    codec: Literal["h264", "raw"] = "h264"
    fps: float = within(0, 240, 16.0)  # 0: the source's own
    px: int = within(0, 4096, 256)  # of the shorter side, at most; 0: the source's own
    crf: int = within(0, 51, 23)  # of H.264: larger is smaller and worse

    @property
    def suffix(self) -> str:
        """Of the names of its files."""
        return ".mp4" if self.codec == "h264" else ".mkv"


RAW = Form(codec="raw", fps=0.0, px=0)


class StoreError(ValueError):
    """A file of the store that cannot be read, or not as asked."""


# ---- writing ------------------------------------------------------------------------------------


class Encoder:
    """Writes a file of the store: frames one by one, then the sound.

    Args:
        path: of the file.
        fps: its constant rate.
        form: of the store.
        audio: whether there will be sound.
    """

    def __init__(self, path: Path, fps: Fraction, form: Form, *, audio: bool):
        h264 = form.codec == "h264"
        self.file = av.open(str(path), "w", "mp4" if h264 else "matroska")
        self.fps, self.count = fps, 0
        self.video: Any = self.file.add_stream("libx264" if h264 else "rawvideo", rate=fps)
        self.video.pix_fmt, self.video.time_base = "yuv420p", 1 / fps
        self.video.codec_context.thread_count = 1  # many files are written at once
        if h264:
            options = {"preset": "veryfast", "tune": "fastdecode", "crf": str(form.crf)}
            self.video.options = {**options, "g": str(KEY_EVERY), "bf": "0", "sc_threshold": "0"}
        self.sample_format = "s16" if h264 else "flt"
        self.audio: Any = None
        if audio:
            codec = "flac" if h264 else "pcm_f32le"
            self.audio = self.file.add_stream(codec, rate=HZ, layout="mono")

    def add(self, frame: Any) -> None:
        """The next frame, an av.VideoFrame of yuv420p."""
        if not self.count:
            self.video.width, self.video.height = frame.width, frame.height
        frame.pts, frame.time_base = self.count, 1 / self.fps
        frame.pict_type = PictureType.NONE  # the source's own would be kept
        self.file.mux(self.video.encode(frame))
        self.count += 1

    def finish(self, samples: np.ndarray) -> None:
        """Write what is left, and the sound [M] float32 in [-1, 1]; cut or filled to the frames."""
        self.file.mux(self.video.encode())
        if self.audio:
            length = max(round(self.count / self.fps * HZ), 1)
            samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
            if self.sample_format == "s16":
                samples = np.round(np.clip(samples, -1, 1) * FULL_SCALE).astype(np.int16)
            for begin in range(0, length, AUDIO_PACKET):
                piece = samples[begin : begin + AUDIO_PACKET][None]
                part = av.AudioFrame.from_ndarray(piece, self.sample_format, "mono")
                part.sample_rate, part.pts, part.time_base = HZ, begin, Fraction(1, HZ)
                self.file.mux(self.audio.encode(part))
            self.file.mux(self.audio.encode())
        self.file.close()


def write(
    path: Path, frames: Iterable[np.ndarray], fps: float, samples: np.ndarray, form: Form
) -> None:
    """Write frames [H, W, 3] uint8 of even size, and mono sound [M] at HZ (empty: none)."""
    encoder = Encoder(path, Fraction(fps).limit_denominator(1001), form, audio=len(samples) > 0)
    for image in frames:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        encoder.add(frame.reformat(format="yuv420p"))
    encoder.finish(samples)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A file of the store, and what its source was."""

    frames: int
    fps: float
    width: int
    height: int
    audio: bool  # whether anything is heard
    source_fps: float
    source_width: int
    source_height: int
    source_hz: int  # 0 without sound
    notes: str = ""  # what was mended


def convert(path: Path, target: Path, form: Form) -> Stored:
    """Read a source video once and write it into the store.

    A last frame stays on show while there is sound.

    Raises:
        DecodeError: when it cannot be used as a video.
    """
    with Source(path, HZ) as source:
        fps = Fraction(form.fps).limit_denominator(1001) if form.fps else source.rate
        encoder = Encoder(target, fps, form, audio=source.audio is not None)
        upright = FrameConverter(form.px, source.pixel_aspect)
        last, width, height = None, 0, 0
        for seconds, frame in source:
            while last is not None and encoder.count / fps < seconds - EARLY_SECONDS:
                encoder.add(last)
            last = upright(frame)
            width, height = width or frame.width, height or frame.height
        samples = source.soundtrack()
        if len(samples) / HZ > source.seconds + PADDING_SECONDS:
            source.notes.append("its last frame stays on show while there is sound")
            source.seconds = len(samples) / HZ
        while encoder.count == 0 or encoder.count / fps < source.seconds - EARLY_SECONDS:
            encoder.add(last)
        encoder.finish(samples)
        return Stored(
            frames=encoder.count,
            fps=float(fps),
            width=encoder.video.width,
            height=encoder.video.height,
            audio=len(samples) > 0,
            source_fps=source.source_fps,
            source_width=width,
            source_height=height,
            source_hz=source.source_hz,
            notes="; ".join(source.notes),
        )


# ---- reading ------------------------------------------------------------------------------------


@cache
def reformatter() -> VideoReformatter:
    """One a process: it costs more to make than to use."""
    return VideoReformatter()


class StoredVideo:
    """An open file of the store.

    Raises:
        StoreError: when the file is missing or damaged.
    """

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> "StoredVideo":
        try:
            self.file = av.open(str(self.path))
        except (av.error.FFmpegError, OSError) as error:
            raise StoreError(f"{self.path} cannot be read ({error.strerror}); {AGAIN}") from error
        self.video = self.file.streams.video[0]
        self.video.codec_context.thread_count = 1  # many files are read at once
        self.fps = self.video.average_rate
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def frames(self, numbers: np.ndarray) -> dict[int, np.ndarray]:
        """The frames [H, W, 3] uint8 of these numbers."""
        wanted, images = np.unique(numbers).tolist(), dict[int, np.ndarray]()
        try:
            for group in neighbours(wanted):
                images |= self.stretch(group)
        except av.error.FFmpegError as error:
            raise StoreError(f"{self.path} is damaged ({error.strerror}); {AGAIN}") from error
        if missing := [n for n in wanted if n not in images]:
            raise StoreError(f"{self.path} has no frame {missing[0]}; {AGAIN}")
        return images

    def stretch(self, numbers: list[int]) -> dict[int, np.ndarray]:
        """Frames that lie close together."""
        wanted, images = {*numbers}, dict[int, np.ndarray]()
        frames_a_tick = float(self.video.time_base * self.fps)  # fractions are slow
        # Half a frame late: Matroska rounds times to milliseconds.
        self.file.seek(int((numbers[0] + 0.5) / frames_a_tick), stream=self.video)
        for frame in self.file.decode(self.video):
            number = round(frame.pts * frames_a_tick)
            if number in wanted:
                rgb = reformatter().reformat(frame, format="rgb24", threads=1)
                images[number] = rgb.to_ndarray()
            if number >= numbers[-1]:
                break
        return images

    def audio(self, first: int, count: int, hz: int = HZ) -> np.ndarray:
        """[count] float32 samples from number `first` on; zeros where there are none."""
        out = np.zeros(count, np.float32)
        if not self.file.streams.audio:
            return out
        stream = self.file.streams.audio[0]
        samples_a_tick = float(stream.time_base * stream.rate)
        if stream.rate != hz:
            raise StoreError(f"{self.path} has sound of {stream.rate} Hz, not of {hz} (audio_hz)")
        try:
            self.file.seek(max(int((first - AUDIO_PACKET) / samples_a_tick), 0), stream=stream)
            for frame in self.file.decode(stream):
                begin = round(frame.pts * samples_a_tick) - first
                if begin >= count:
                    break
                part = frame.to_ndarray()[0]
                low, high = max(begin, 0), min(begin + len(part), count)
                if low < high:
                    out[low:high] = part[low - begin : high - begin]
                    if part.dtype == np.int16:
                        out[low:high] /= FULL_SCALE
        except av.error.FFmpegError as error:
            raise StoreError(f"{self.path} is damaged ({error.strerror}); {AGAIN}") from error
        return out


def neighbours(numbers: list[int]) -> Iterator[list[int]]:
    """Rising numbers in groups, between which lies more than a key frame's distance."""
    group: list[int] = []
    for number in numbers:
        if group and number - group[-1] > KEY_EVERY:
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def read_frames(path: Path, numbers: np.ndarray) -> np.ndarray:
    """[N, H, W, 3] uint8, the frames of these numbers in their order."""
    with StoredVideo(path) as file:
        images = file.frames(numbers)
    return np.stack([images[int(n)] for n in numbers])


def read_audio(path: Path, first: int, count: int) -> np.ndarray:
    """[count] float32 samples at HZ from number `first` on; zeros where there are none."""
    with StoredVideo(path) as file:
        return file.audio(first, count)

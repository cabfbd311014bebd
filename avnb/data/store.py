"""The store: one file a video, read by the numbers of frames and of audio samples.

Frame k is shown from k / fps seconds on, sample n is heard at n / HZ; both begin with the video.
`h264` is an MP4 of H.264 and FLAC, with a key frame every `KEY_EVERY` and no B-frames. `raw` is a
Matroska file of the frames as they were decoded and floating-point sound, for small worlds.

Shapes: N frames of H x W pixels.
"""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from avnb.config import Group, within
from avnb.data.source import HZ, FrameConverter, Source, open_media

KEY_EVERY = 8  # frames
EARLY_SECONDS = 1e-4  # a frame that begins this little after a time still counts as shown at it
PADDING_SECONDS = 0.25  # of sound that encoders may add to a video's end
FULL_SCALE = 32_767  # of 16 bits
AUDIO_PACKET = 8192  # samples
FLAC = {"frame_size": str(AUDIO_PACKET)}
FORMATS = {".mkv": "matroska", ".mp4": "mp4"}  # to guess them takes as long as to open them
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

    @property
    def codecs(self) -> "Codecs":
        """Container and codecs, without B-frames and with regular key frames."""
        if self.codec == "raw":
            return Codecs(FORMATS[".mkv"], "rawvideo", {}, "pcm_f32le", "flt")
        options = {"preset": "veryfast", "tune": "fastdecode", "crf": str(self.crf)}
        options |= {"g": str(KEY_EVERY), "bf": "0", "sc_threshold": "0"}
        return Codecs(FORMATS[".mp4"], "libx264", options, "flac", "s16", {"options": FLAC})


RAW = Form(codec="raw", fps=0.0, px=0)


class Codecs(NamedTuple):
    """How a file is encoded, by FFmpeg's names."""

    container: str
    video: str
    options: Mapping[str, str]  # of the video codec
    audio: str
    samples: Any  # their format
    audio_options: Mapping[str, Any] = {}


class StoreError(ValueError):
    """A file of the store that cannot be read, or not as asked."""


class Encoder:
    """Writes a file of a constant rate: frames one by one, then mono sound at `hz`; 0: none."""

    def __init__(self, path: Path, fps: Fraction, codecs: Codecs, hz: int):
        out: Any = av.open(str(path), "w", codecs.container)
        self.file, self.fps, self.hz, self.count = out, fps, hz, 0
        self.video: Any = out.add_stream(codecs.video, rate=fps, options={**codecs.options})
        self.video.pix_fmt, self.video.time_base = "yuv420p", 1 / fps
        self.video.codec_context.thread_count = 1  # many files are written at once
        self.samples, options = codecs.samples, codecs.audio_options
        if hz:
            self.audio: Any = out.add_stream(codecs.audio, rate=hz, layout="mono", **options)

    def add(self, frame: Any) -> None:
        """The next frame, an av.VideoFrame of yuv420p, or [H, W, 3] uint8 of even size."""
        if isinstance(frame, np.ndarray):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        if not self.count:
            self.video.width, self.video.height = frame.width, frame.height
        frame.pts, frame.time_base = self.count, 1 / self.fps
        frame.pict_type = PictureType.NONE  # the source's own would be kept
        self.file.mux(self.video.encode(frame))
        self.count += 1

    def finish(self, samples: np.ndarray) -> None:
        """Write what is left, and the sound [M] float32 in [-1, 1]."""
        self.file.mux(self.video.encode())
        if self.samples == "s16":
            samples = np.round(np.clip(samples, -1, 1) * FULL_SCALE).astype(np.int16)
        for begin in range(0, len(samples) if self.hz else 0, AUDIO_PACKET):
            piece = samples[begin : begin + AUDIO_PACKET][None]
            part = av.AudioFrame.from_ndarray(piece, self.samples, "mono")
            part.sample_rate, part.pts, part.time_base = self.hz, begin, Fraction(1, self.hz)
            self.file.mux(self.audio.encode(part))
        if self.hz:
            self.file.mux(self.audio.encode())
        self.file.close()


def write(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: float,
    samples: np.ndarray,
    codecs: Codecs,
    hz: int = HZ,
) -> None:
    """Write frames [H, W, 3] uint8 of even size, and mono sound [M] (empty: none)."""
    rate = Fraction(fps).limit_denominator(1001)
    encoder = Encoder(path, rate, codecs, hz if len(samples) else 0)
    for image in frames:
        encoder.add(image)
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
    source_width: int  # 0 of a file of sound alone
    source_height: int
    source_hz: int  # 0 without sound
    sound_lost: str = ""  # why the sound, or a part of it, was left out


def convert(path: Path, target: Path, form: Form) -> Stored:
    """Read a source video once and write it into the store.

    A last frame stays on show while there is sound.

    Raises:
        DecodeError: when it cannot be used as a video.
    """
    with open_media(path) as container:
        source = Source(container)
        fps = Fraction(form.fps).limit_denominator(1001) if form.fps else source.rate
        encoder = Encoder(target, fps, form.codecs, HZ if source.audio else 0)
        upright = FrameConverter(form.px, source.pixel_aspect)
        last, width, height = None, 0, 0
        for seconds, frame in source:
            while last is not None and encoder.count / fps < seconds - EARLY_SECONDS:
                encoder.add(last)
            last = upright(frame)
            width, height = width or frame.width, height or frame.height
        samples, end = source.soundtrack(), source.seconds
        if len(samples) / HZ > end + PADDING_SECONDS:
            end = len(samples) / HZ
        while encoder.count == 0 or encoder.count / fps < end - EARLY_SECONDS:
            encoder.add(last)
        length = max(round(encoder.count / fps * HZ), 1)
        encoder.finish(np.pad(samples[:length], (0, max(0, length - len(samples)))))
        return Stored(
            frames=encoder.count,
            fps=float(fps),
            width=encoder.video.width,
            height=encoder.video.height,
            audio=len(samples) > 0,
            source_fps=source.fps,
            source_width=width if source.video else 0,
            source_height=height if source.video else 0,
            source_hz=source.audio.rate if source.sound.pieces else 0,
            sound_lost=source.sound_lost,
        )


REFORMATTER = VideoReformatter()  # one a process: it costs more to make than to use


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The open PyAV container of a file of the store; StoreError when it cannot be read."""
    try:
        with av.open(str(path), format=FORMATS.get(path.suffix)) as file:
            file.streams.video[0].codec_context.thread_count = 1  # many files are read at once
            yield file
    except (av.error.FFmpegError, OSError) as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); {AGAIN}") from error


class StoredVideo:
    """Frames and sound of an open file of the store."""

    def __init__(self, path: Path, file: Any):
        self.path, self.file, self.video = path, file, file.streams.video[0]
        self.hz = file.streams.audio[0].rate if file.streams.audio else 0

    def frames(self, numbers: np.ndarray) -> dict[int, np.ndarray]:
        """The frames [H, W, 3] uint8 of these numbers."""
        wanted, images = np.unique(numbers).tolist(), dict[int, np.ndarray]()
        for number, frame in self.decoded_frames(wanted):
            images[number] = REFORMATTER.reformat(frame, format="rgb24", threads=1).to_ndarray()
        if missing := [n for n in wanted if n not in images]:
            raise StoreError(f"{self.path} has no frame {missing[0]}; {AGAIN}")
        return images

    def audio(self, first: int, count: int, hz: int = HZ) -> np.ndarray:
        """[count] float32 samples from number `first` on; zeros where there are none."""
        out = np.zeros(count, np.float32)
        if self.hz not in (0, hz):
            raise StoreError(f"{self.path} has sound of {self.hz} Hz, not of {hz} (audio_hz)")
        for begin, part in self.decoded_audio(first) if self.hz else ():
            low, high = max(begin, first), min(begin + len(part), first + count)
            if begin >= first + count:
                break
            if low < high:
                out[low - first : high - first] = part[low - begin : high - begin]
        return out

    def decoded_frames(self, wanted: list[int]) -> Iterator[tuple[int, Any]]:
        """Wanted numbers, rising, with frames; seeks aim half a frame late: times are rounded."""
        frames_a_tick = float(self.video.time_base * self.video.average_rate)  # fractions are slow
        for part in np.split(wanted, np.flatnonzero(np.diff(wanted) > KEY_EVERY) + 1):
            group = part.tolist()
            self.file.seek(int((group[0] + 0.5) / frames_a_tick), stream=self.video)
            for frame in self.file.decode(self.video):
                number = round(frame.pts * frames_a_tick)
                if number in group:
                    yield number, frame
                if number >= group[-1]:
                    break

    def decoded_audio(self, first: int) -> Iterator[tuple[int, np.ndarray]]:
        """Pieces of the sound, from one with sample `first` on, each with its first number."""
        stream = self.file.streams.audio[0]
        samples_a_tick = float(stream.time_base * stream.rate)
        self.file.seek(max(int((first - AUDIO_PACKET) / samples_a_tick), 0), stream=stream)
        for frame in self.file.decode(stream):
            part, scale = frame.to_ndarray()[0], FULL_SCALE if frame.format.name[0] == "s" else 1
            yield round(frame.pts * samples_a_tick), part / np.float32(scale)


class KeptVideo(StoredVideo):
    """A file of raw frames, which is small: decoded once, and kept in memory."""

    def __init__(self, path: Path):
        with opened(path) as file:
            super().__init__(path, file)
            self.images = [*file.decode(self.video)]
            self.sound = [*super().decoded_audio(0)] if self.hz else []

    def decoded_frames(self, wanted: list[int]) -> Iterator[tuple[int, Any]]:
        """As of any file."""
        return ((number, self.images[number]) for number in wanted if number < len(self.images))

    def decoded_audio(self, first: int) -> Iterator[tuple[int, np.ndarray]]:
        """As of any file."""
        return iter(self.sound)


kept = functools.lru_cache(512)(KeptVideo)  # as many as the demo trains on


@contextlib.contextmanager
def stored_video(path: Path) -> Iterator[StoredVideo]:
    """Opens a file of the store; StoreError when it is missing or damaged."""
    if path.suffix == RAW.suffix:
        yield kept(path)
    else:
        with opened(path) as file:
            yield StoredVideo(path, file)


def read_frames(path: Path, numbers: np.ndarray) -> np.ndarray:
    """[N, H, W, 3] uint8, the frames of these numbers in their order."""
    with stored_video(path) as file:
        images = file.frames(numbers)
    return np.stack([images[int(n)] for n in numbers])


def read_audio(path: Path, first: int, count: int) -> np.ndarray:
    """[count] float32 samples at HZ from number `first` on; zeros where there are none."""
    with stored_video(path) as file:
        return file.audio(first, count)

"""Source videos: untrusted files of any kind, decoded once, from beginning to end, in order.

Frames are taken in the order in which the decoder gives them. Time 0 is that of the first frame.
A file in a container of sound alone has a single black frame.
"""

import contextlib
import errno
import itertools
import stat
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

# Containers that hold media. Others, such as play lists, make FFmpeg open further files.
CONTAINERS = (
    "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,rm,m4v,nut,mxf,dv,h264,wtv"
)
SOUND_CONTAINERS = "wav,flac"
UNTIMED = {"avi", "h264", "m4v", "mpegvideo"}  # containers without presentation times
# Titles may be in any encoding. PyAV 18 has to be told so; 19 always takes them as they are.
ANY_TEXT: dict[str, Any] = (
    {"metadata_errors": "replace"} if av.__version__.startswith("18.") else {}
)
HZ = 16_000  # of all sound
MOST_SECONDS = 7200.0  # of one video
MIN_COMPLETE = 0.75  # a file with less than this share of its announced length is truncated
MOST_DAMAGED = 0.05  # share of a stream's packets that may fail to be decoded
DAMAGED = (av.error.InvalidDataError, av.error.ArgumentError, av.error.PatchWelcomeError)
OF_TARGET = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors that only writing has
GAP_SECONDS = 0.1  # a larger gap between two audio frames is filled with silence
BLACK = np.zeros((16, 16, 3), np.uint8)
LOUDEST = 100.0  # samples beyond are no sound, as those that are not finite
MOST_REORDERED = 16  # frames that a codec may show after one that it decodes later


class DecodeError(ValueError):
    """A file that cannot be used as a video; the message is the reason."""


@contextlib.contextmanager
def open_media(path: Path) -> Iterator[Any]:
    """The open PyAV container of a regular file that holds media; errors become DecodeError.

    OSError where what is written meanwhile meets a full disk.
    """
    formats = f"{CONTAINERS},{SOUND_CONTAINERS}"
    options = {"format_whitelist": formats, "protocol_whitelist": "file"}
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DecodeError("is no regular file")
        with av.open(str(path), options=options, **ANY_TEXT) as container:
            yield container
    except (av.error.FFmpegError, OSError) as error:
        if error.errno in OF_TARGET:
            raise OSError(error.errno, error.strerror) from error
        raise DecodeError(error.strerror or str(error)) from error


def video_stream(container: Any) -> Any:
    """The first video stream that is not the cover image of an audio file."""
    for stream in container.streams.video:
        codec = stream.codec_context
        if codec is None:
            raise DecodeError("FFmpeg has no decoder for the format of its video stream")
        if not stream.disposition & Disposition.attached_pic:
            codec.thread_count = 1  # many files are read at once
            return stream
    raise DecodeError("holds no video stream")


class Source:
    """The video in an open container: iterating gives its frames, and collects its sound.

    Afterwards `seconds` is the end of the last frame, and `sound_lost` the reason why its sound, or
    a part of it, was left out; empty where nothing was.
    """

    def __init__(self, container: Any):
        self.container, self.count, self.last, self.seconds = container, 0, 0.0, 0.0
        is_sound = container.format.name in SOUND_CONTAINERS.split(",")
        self.video: Any = None if is_sound else video_stream(container)
        sounds = container.streams.audio
        sounds = [s for s in sounds if s.codec_context is not None]  # which have a decoder
        sounds.sort(key=lambda s: not s.disposition & Disposition.default)
        self.audio: Any = sounds[0] if sounds else None
        self.sound, self.sound_lost = Soundtrack(), ""
        if container.streams.audio and not sounds:
            self.sound_lost = "FFmpeg has no decoder for the format of its sound"
        self.stamps: list[int | None] = []  # of the packets, in the order of decoding
        rate = self.video and (self.video.average_rate or self.video.guessed_rate)
        self.rate = Fraction(rate or 25).limit_denominator(1001)
        self.is_untimed = not UNTIMED.isdisjoint(container.format.name.split(","))
        # The width of a pixel by its height.
        aspect = float((self.video and self.video.sample_aspect_ratio) or 1)
        self.pixel_aspect = aspect if 0.1 < aspect < 10 else 1.0

    def __iter__(self) -> Iterator[tuple[float, Any]]:
        """(seconds after the first frame, frame), in rising order.

        Raises:
            DecodeError: when too much is damaged, missing or too long.
        """
        frames = self.decoded()
        first = list(itertools.islice(frames, MOST_REORDERED))
        # Copied from an AVI, a file may hold times of decoding as those of presentation.
        known = [frame.pts for frame in first if frame.pts is not None]
        self.is_untimed |= known != sorted(known)
        for frame in itertools.chain(first, frames):
            yield self.time_of(frame), frame
        if self.video is None:
            self.start, self.count, self.seconds = 0.0, 1, 1 / float(self.rate)
            yield 0.0, av.VideoFrame.from_ndarray(BLACK, format="rgb24")
        self.check_complete()

    def decoded(self) -> Iterator[Any]:
        """The frames in the order in which the decoder gives them."""
        has_times = not self.is_untimed  # by the container: no frame has been seen yet
        packets, damaged = Counter[str](), Counter[str]()  # by what they hold
        for packet in self.container.demux(*filter(None, (self.video, self.audio))):
            packets[packet.stream.type] += 1
            holds_picture = packet.stream is self.video and packet.size
            if holds_picture:
                self.stamps.append(packet.pts if has_times else packet.dts)
            try:
                frames = packet.decode()
            except DAMAGED:
                damaged[packet.stream.type] += 1
                if holds_picture:  # of which no frame will come
                    self.stamps.pop()
                continue
            for frame in frames:
                if not isinstance(frame, av.AudioFrame):
                    yield frame
                elif frame.pts is not None:
                    self.sound.add(frame, float(frame.pts * self.audio.time_base))
        self.damaged = damaged["video"] / max(packets["video"], 1)
        if damaged["audio"] > MOST_DAMAGED * packets["audio"]:
            self.sound = Soundtrack()  # as without a decoder, which costs no video
            lost = damaged["audio"] / packets["audio"]
            self.sound_lost = f"{lost:.1%} of its sound's packets cannot be decoded"

    def time_of(self, frame: Any) -> float:
        """Seconds after the first frame; those of AVI by the order of decoding.

        AVI holds no presentation times: the k-th frame that comes out is shown when the k-th
        packet is due.
        """
        due = self.stamps[min(self.count, len(self.stamps) - 1)]
        stamp = due if self.is_untimed else frame.pts
        if self.count == 0:
            self.start, at = float((stamp or 0) * self.video.time_base), 0.0
        else:
            at = -1.0 if stamp is None else float(stamp * self.video.time_base) - self.start
            if at <= self.last:
                at = self.last + 1 / float(self.rate)
        self.count, self.last = self.count + 1, at
        if at > MOST_SECONDS:
            raise DecodeError(f"frame {self.count} is due at {at:.0f} s: too long, or damaged")
        lasts = float((frame.duration or 0) * self.video.time_base)
        self.seconds = at + (lasts if 0 < lasts < 1 else 1 / float(self.rate))
        return at

    def check_complete(self) -> None:
        """Raise DecodeError for a file that is truncated or damaged."""
        if not self.count:
            raise DecodeError("holds no frame that can be decoded")
        if self.video is None:
            if not self.sound.pieces:
                raise DecodeError("holds no sound that can be decoded")
            return
        if self.damaged > MOST_DAMAGED:
            raise DecodeError(
                f"{self.damaged:.1%} of its video packets cannot be decoded; "
                f"{MOST_DAMAGED:.0%} may be"
            )
        announced = float((self.video.duration or 0) * self.video.time_base)
        if self.seconds < MIN_COMPLETE * announced and self.count > 1:
            raise DecodeError(f"ends after {self.seconds:.2f} s of {announced:.2f} s")

    @property
    def fps(self) -> float:
        """Frames a second, as they came; what a container declares may be another number."""
        return round((self.count - 1) / self.last, 3) if self.count > 1 else float(self.rate)

    def soundtrack(self) -> np.ndarray:
        """[N] mono float32 from the first frame on; empty without sound, as where all is silent.

        Samples that no sound can have are silenced. Codecs leave a trace of digital silence, which
        16 bits do not hold.
        """
        samples = self.sound.finish(self.start)
        wrong = ~(np.abs(samples) <= LOUDEST)  # NaN is one of them
        if wrong.any():
            samples[wrong] = 0
            self.sound_lost = f"{wrong.mean():.1%} of its samples are no sound"
        return samples if (abs(samples) >= 2**-16).any() else samples[:0]


class Soundtrack:
    """Collects decoded audio frames as mono samples at one rate; silence fills what is missing."""

    def __init__(self) -> None:
        self.end = 0.0
        self.resampler: Any = None
        self.form: Any = None
        self.pieces: list[tuple[float, list[np.ndarray]]] = []  # begin in seconds, samples

    def add(self, frame: Any, seconds: float) -> None:
        """A decoded frame that is heard from `seconds` on, on the file's own clock."""
        form = frame.format.name, frame.layout.name, frame.sample_rate
        if form != self.form or seconds - self.end > GAP_SECONDS:
            self.end_piece()
            self.resampler, self.form = av.AudioResampler("flt", "mono", HZ), form
            self.pieces.append((seconds, []))
        frame.pts = None  # the resampler would fill small gaps, which are rounding
        self.pieces[-1][1].extend(x.to_ndarray()[0] for x in self.resampler.resample(frame))
        self.end = seconds + frame.samples / frame.sample_rate

    def end_piece(self) -> None:
        """Take what the resampler holds back."""
        if self.resampler is not None:
            self.pieces[-1][1].extend(x.to_ndarray()[0] for x in self.resampler.resample(None))

    def finish(self, start: float) -> np.ndarray:
        """[N] float32: sample n is heard n / hz after `start`."""
        self.end_piece()
        out = np.zeros(0, np.float32)
        for begin, parts in self.pieces:
            piece, first = np.concatenate([*parts, out[:0]]), round((begin - start) * HZ)
            piece, first = piece[max(-first, 0) :], max(first, 0)
            out = np.pad(out, (0, max(first + len(piece) - len(out), 0)))
            out[first : first + len(piece)] = piece
        return out


class FrameConverter:
    """Makes every frame upright, of square pixels and of one size, as yuv420p.

    One object serves a whole file, because a VideoReformatter costs more to make than to use. The
    shorter side has `px` pixels at most and is never enlarged; 0 leaves it. `pixel_aspect` is the
    width of a pixel by its height, in the source.
    """

    def __init__(self, px: int, pixel_aspect: float):
        self.px, self.pixel_aspect = px, pixel_aspect
        self.size, self.reformatter = (0, 0), VideoReformatter()

    def __call__(self, frame: Any) -> Any:
        """An av.VideoFrame."""
        if self.size == (0, 0):
            self.size = self.target_size(frame)
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        out = self.reformatter.reformat(
            frame,
            *self.size,
            "yuv420p",
            interpolation=Interpolation.BICUBIC,
            src_color_range=ColorRange.JPEG if full else None,
            dst_color_range=ColorRange.MPEG if full else None,
        )
        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        if matrix is None:
            return out
        # It maps (x, y) to (a x + c y, b x + d y), up to a shift; y points down.
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
        image: Any = out.to_ndarray(format="rgb24")
        if abs(b) > abs(a):
            image, a, d = image.transpose(1, 0, 2), c, b
        image = np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
        return av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")

    def target_size(self, frame: Any) -> tuple[int, int]:
        """Width and height, both even, before the frame is turned upright."""
        width = frame.width * min(self.pixel_aspect, 1.0)  # the longer side of a pixel gives way
        height = frame.height / max(self.pixel_aspect, 1.0)
        scale = min(1.0, self.px / min(width, height)) if self.px else 1.0
        even = [max(2, round(side * scale / 2) * 2) for side in (width, height)]
        return even[0], even[1]

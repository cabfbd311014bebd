"""How to read: a video file and times in seconds -> RGB frames and mono sound.

A file is read forward once, whatever number of clips is wanted; where only its later pictures
are, they are sought, and the sound is read from its beginning.
Frames are [H, W, 3] uint8; sound is [samples] float32, resampled by FFmpeg.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

Array = np.ndarray[Any, Any]
EARLY_SECONDS = 1e-4  # a frame this little after the wanted time still counts as shown at it
SEEK_AFTER_SECONDS = 3.0  # a shorter lead-in is decoded: seeking would save nothing
GAP_SECONDS = 0.1  # sound that is later than expected by more is moved to its own time
NO_PICTURE = "holds no picture that can be decoded"
SHORTFALL = 0.75  # a file that holds less than this share of its announced length is cut off


class DecodeError(ValueError):
    """A file that cannot be read as a video, with the reason; names the file."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What a file holds: seconds of picture, its rate and size, and the rate of its sound."""

    start: float  # time stamp of the first frame; all other times count from it
    seconds: float
    fps: float
    width: int
    height: int
    sound_hz: int  # 0 when there is no audio stream


def opened(path: Path) -> Any:
    """The file as a PyAV container; DecodeError when it is none or holds no picture."""
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise DecodeError(path, error.strerror or str(error)) from error
    try:
        picture_stream(path, container).codec_context.thread_count = 1  # many are read at once
    except DecodeError:
        container.close()
        raise
    return container


def picture_stream(path: Path, container: Any) -> Any:
    """The first video stream that is not the cover of a piece of music."""
    for stream in container.streams.video:
        if stream.codec_context is None:
            raise DecodeError(path, "its pictures are in a format that FFmpeg has no decoder for")
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise DecodeError(path, "holds no video stream")


class Upright:
    """Turns the frames of a stream into RGB [H, W, 3], as its display matrix asks.

    All have the size that the stream began with, should it change on the way. One object serves
    a whole file: making a VideoReformatter costs more than using it.
    """

    def __init__(self, video: Any):
        self.width, self.height = video.codec_context.width, video.codec_context.height
        self.reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> Array:
        """One frame as it is to be seen."""
        wanted = self.reformatter.reformat(frame, self.width, self.height, format="rgb24")
        picture: Array = wanted.to_ndarray()
        side = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        if side is None:
            return picture
        # It takes (x, y) to (a x + c y, b x + d y), the origin being free; y points down.
        a, b, _, c, d = np.frombuffer(side, np.int32)[:5].tolist()
        if abs(b) > abs(a):
            picture, a, d = picture.transpose(1, 0, 2), c, b
        return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


class Extent:
    """From when to when the frames of a stream are on show."""

    def __init__(self) -> None:
        self.count, self.untimed = 0, 0
        self.first = self.last = self.shown = 0.0

    def see(self, frame: Any) -> None:
        """Count one frame; the last one's own duration belongs to the video."""
        if frame.time is None:
            self.untimed += 1  # `read` cannot place it either
            return
        if self.count == 0 or frame.time > self.last:
            self.first = self.first if self.count else frame.time
            self.last, self.shown = frame.time, float((frame.duration or 0) * frame.time_base)
        self.count += 1

    def seconds(self, rate: float) -> float:
        """The length; a last frame of unknown duration is shown for 1 / rate."""
        return self.last - self.first + (self.shown or 1 / rate)


def inspect(path: Path) -> Stream:
    """Decode the whole file and say what is in it.

    Raises:
        DecodeError: when it cannot be opened, decoded to its end, or holds less than it says.
    """
    with opened(path) as container:
        video = picture_stream(path, container)
        audio = container.streams.audio[0] if container.streams.audio else None
        upright, extent, size, heard = Upright(video), Extent(), (0, 0), False
        try:
            for packet in container.demux([s for s in (video, audio) if s is not None]):
                for frame in packet.decode():
                    if isinstance(frame, av.AudioFrame):
                        heard = True
                        continue
                    extent.see(frame)
                    if size == (0, 0):
                        size = upright(frame).shape[:2]
        except av.error.FFmpegError as error:
            raise DecodeError(path, f"{error.strerror} after {extent.count} frames") from error
        if extent.count == 0:
            what = "its pictures bear no time stamps" if extent.untimed else NO_PICTURE
            raise DecodeError(path, what)
        rate = float(video.average_rate or video.guessed_rate or 25)
        seconds, announced = extent.seconds(rate), float((video.duration or 0) * video.time_base)
        if seconds < SHORTFALL * announced:
            raise DecodeError(path, f"ends after {seconds:.2f} s of {announced:.2f} s")
        hz = audio.rate if audio is not None and heard else 0
    return Stream(
        start=extent.first, seconds=seconds, fps=rate, width=size[1], height=size[0], sound_hz=hz
    )


class Pictures:
    """Hands over the frame on show at each wanted time, as frames come by in order."""

    def __init__(self, times: Array, take: Callable[[int, Array], None], upright: Upright):
        self.order = np.argsort(times, kind="stable")
        self.times, self.take = times, take
        self.next = 0
        self.last: Any = None
        self.upright = upright

    @property
    def wanting(self) -> bool:
        """Whether some time has not been served yet."""
        return self.next < len(self.order)

    def see(self, frame: Any, seconds: float) -> None:
        """A new frame begins: all earlier times showed the one before it."""
        if self.last is not None:
            self.serve(seconds - EARLY_SECONDS)
        self.last = frame

    def serve(self, before: float) -> None:
        """Give the last frame to every time before the given one."""
        picture = None
        while self.wanting and self.times[self.order[self.next]] < before:
            picture = self.upright(self.last) if picture is None else picture
            self.take(int(self.order[self.next]), picture)
            self.next += 1


class Track:
    """Collects sound as it comes by, mono at one rate, and cuts pieces out of it."""

    def __init__(self, hz: int, until: float):
        self.hz, self.until = hz, until
        self.resampler = av.AudioResampler(format="flt", layout="mono", rate=hz)
        self.pieces: list[Array] = []
        self.first: float | None = None
        self.form: tuple[str, str, int] | None = None
        self.count = 0

    @property
    def wanting(self) -> bool:
        """Whether the end of the last piece has not been heard yet."""
        return self.first is None or self.first + self.count / self.hz < self.until

    def hear(self, frame: Any, seconds: float) -> None:
        """Append one frame; `frame` None flushes the resampler."""
        if frame is not None:
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            if self.form not in (None, form):  # the stream changes in its middle
                self.append(None)
                self.resampler = av.AudioResampler(format="flt", layout="mono", rate=self.hz)
            self.form = form
            self.first = seconds if self.first is None else self.first
            gap = round((seconds - self.first) * self.hz) - self.count
            if gap > GAP_SECONDS * self.hz:  # silence that was not stored
                self.pieces.append(np.zeros(gap, np.float32))
                self.count += gap
        self.append(frame)

    def append(self, frame: Any) -> None:
        """Resample one frame; None gives what the resampler still holds."""
        for piece in self.resampler.resample(frame):
            self.pieces.append(piece.to_ndarray()[0])
            self.count += len(self.pieces[-1])

    def cut(self, starts: Array, samples: int, seconds: float) -> Array:
        """[len(starts), samples]; a video shorter than that is heard over again."""
        heard = np.concatenate(self.pieces) if self.pieces else np.zeros(1, np.float32)
        lead = round((self.first or 0.0) * self.hz)  # samples before the first that was heard
        whole = np.zeros(max(round(seconds * self.hz), 1), np.float32)  # the video's own length
        begin, end = max(lead, 0), min(lead + len(heard), len(whole))
        if begin < end:  # else all sound lies outside the picture's time
            whole[begin:end] = heard[begin - lead : end - lead]
        pieces = []
        for start in starts:
            at = min(round(start * self.hz), len(whole) - 1)
            if at + samples > len(whole):
                pieces.append(np.resize(np.roll(whole, -at), samples))
            else:
                pieces.append(whole[at : at + samples])
        return np.stack(pieces)


def read(
    path: Path,
    times: Array,
    take: Callable[[int, Array], None],
    *,
    seconds: float,
    start: float = 0.0,
    sound_starts: Array | None = None,
    samples: int = 0,
    hz: int = 16_000,
) -> Array | None:
    """Read pictures and, if starts are given, sound. Each is the same whatever else is read.

    Args:
        times: [N] seconds from the beginning, each in [0, seconds), in any order.
        take: called once for each time with its index and the frame [H, W, 3] on show then.
        start: time stamp of the video's first frame; the times above count from it.
        seconds: the video's length; pieces of sound that reach past it begin again at 0.
        sound_starts: [C] seconds, or None when no sound is wanted.
        samples: of each piece of sound.
        hz: rate of the sound that comes back.

    Returns:
        [C, samples] float32 (zeros where the file has no audio stream), or None.

    Raises:
        DecodeError: when the file cannot be read.
    """
    with contextlib.ExitStack() as files:
        container = files.enter_context(opened(path))
        seen, track = picture_stream(path, container), None
        if sound_starts is not None and container.streams.audio:
            ends = sound_starts + samples / hz
            track = Track(hz, seconds if (ends > seconds).any() else float(ends.max()))
        pictures = Pictures(times, take, Upright(seen))
        begin = float(times.min())
        try:
            if begin > SEEK_AFTER_SECONDS:
                container.seek(round((begin - 0.5 + start) * av.time_base))
                collect(container, [seen], start, pictures, None)
                if track is not None:  # its decoder and resampler remember what came before
                    again = files.enter_context(opened(path))
                    collect(again, [again.streams.audio[0]], start, None, track)
            else:
                heard = [container.streams.audio[0]] if track is not None else []
                collect(container, [seen, *heard], start, pictures, track)
            if track is not None and track.pieces:
                track.hear(None, 0.0)
        except av.error.FFmpegError as error:
            raise DecodeError(path, error.strerror or str(error)) from error
        if pictures.last is None:
            raise DecodeError(path, NO_PICTURE)
        pictures.serve(float("inf"))
        if sound_starts is None:
            return None
        if track is None:
            return np.zeros((len(sound_starts), samples), np.float32)
        return track.cut(sound_starts, samples, seconds)


def collect(
    container: Any, streams: list[Any], zero: float, pictures: Pictures | None,
    track: Track | None,
) -> None:  # fmt: skip
    """Hand frames of the streams to those who want them, until nobody does."""
    for frame, at in timed(container, streams, zero):
        if isinstance(frame, av.AudioFrame):
            if track is not None and track.wanting:
                track.hear(frame, at)
        elif pictures is not None and pictures.wanting:
            pictures.see(frame, at)
        if not any(one is not None and one.wanting for one in (pictures, track)):
            break


def stills(path: Path, times: Array, *, seconds: float, start: float = 0.0) -> list[Array]:
    """The frames [H, W, 3] on show at the given times, as `read` counts them."""
    seen: dict[int, Array] = {}
    read(path, times, seen.__setitem__, seconds=seconds, start=start)
    return [seen[i] for i in range(len(times))]


def whole_sound(path: Path, hz: int) -> Array:
    """All sound of a file, mono [samples] float32; empty when it has none."""
    with opened(path) as container:
        track = Track(hz, float("inf"))
        for frame in container.decode(audio=0) if container.streams.audio else ():
            track.hear(frame, 0.0)
        if track.pieces:
            track.hear(None, 0.0)
    return np.concatenate(track.pieces) if track.pieces else np.zeros(0, np.float32)


def timed(container: Any, streams: list[Any], zero: float) -> Iterator[tuple[Any, float]]:
    """Frames of all streams in the order of the file, each with its seconds from the start."""
    for packet in container.demux(streams):
        for frame in packet.decode():
            if frame.time is not None:
                yield frame, frame.time - zero

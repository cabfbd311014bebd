"""How to read: a video file and times in seconds -> RGB frames and mono sound.

The container is opened once and read forward once, whatever number of clips is wanted.
Frames are [H, W, 3] uint8; sound is [samples] float32, resampled by FFmpeg.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

Array = np.ndarray[Any, Any]
EARLY_SECONDS = 1e-4  # a frame this little after the wanted time still counts as shown at it
SEEK_AFTER_SECONDS = 3.0  # a shorter lead-in is decoded: seeking would save nothing
GAP_SECONDS = 0.1  # sound that is later than expected by more is moved to its own time
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
    if not container.streams.video:
        container.close()
        raise DecodeError(path, "holds no video stream")
    container.streams.video[0].codec_context.thread_count = 1  # many files are read at once
    return container


def upright(frame: Any, reformat: Any) -> Array:
    """RGB [H, W, 3], turned as the file's display matrix asks.

    `reformat` is a VideoReformatter kept for the whole file: making one costs more than using it.
    """
    picture = reformat.reformat(frame, format="rgb24").to_ndarray()
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def inspect(path: Path) -> Stream:
    """Decode the whole file and say what is in it.

    Raises:
        DecodeError: when it cannot be opened, decoded to its end, or holds less than it says.
    """
    with opened(path) as container:
        video = container.streams.video[0]
        audio = container.streams.audio[0] if container.streams.audio else None
        count, first, last, size, heard = 0, 0.0, 0.0, (0, 0), False
        try:
            for packet in container.demux([s for s in (video, audio) if s is not None]):
                for frame in packet.decode():
                    if isinstance(frame, av.AudioFrame):
                        heard = True
                        continue
                    if frame.time is None:
                        continue  # `read` cannot place it either
                    if count == 0:
                        first = last = frame.time
                        size = upright(frame, VideoReformatter()).shape[:2]
                    count, last = count + 1, max(last, frame.time)
        except av.error.FFmpegError as error:
            raise DecodeError(path, f"{error.strerror} after {count} frames") from error
        if count == 0:
            raise DecodeError(path, "holds no picture that can be decoded")
        rate = float(video.average_rate or video.guessed_rate or 25)
        seconds = last - first + 1 / rate
        announced = float((video.duration or 0) * video.time_base)
        if seconds < SHORTFALL * announced:
            raise DecodeError(path, f"ends after {seconds:.2f} s of {announced:.2f} s")
        hz = audio.rate if audio is not None and heard else 0
    return Stream(
        start=first, seconds=seconds, fps=rate, width=size[1], height=size[0], sound_hz=hz
    )


class Pictures:
    """Hands over the frame on show at each wanted time, as frames come by in order."""

    def __init__(self, times: Array, take: Callable[[int, Array], None]):
        self.order = np.argsort(times, kind="stable")
        self.times, self.take = times, take
        self.next = 0
        self.last: Any = None
        self.reformat = VideoReformatter()

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
            picture = upright(self.last, self.reformat) if picture is None else picture
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
    """Read pictures and, if starts are given, sound, in one pass over the file.

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
    with opened(path) as container:
        track, streams = None, [container.streams.video[0]]
        begin = float(times.min())
        if sound_starts is not None and container.streams.audio:
            ends = sound_starts + samples / hz
            wraps = bool((ends > seconds).any())
            begin = 0.0 if wraps else min(begin, float(sound_starts.min()))
            track = Track(hz, seconds if wraps else float(ends.max()))
            streams.append(container.streams.audio[0])
        pictures = Pictures(times, take)
        try:
            if begin > SEEK_AFTER_SECONDS:
                container.seek(round((begin - 0.5 + start) * av.time_base))
            for frame, at in timed(container, streams, start):
                if isinstance(frame, av.AudioFrame):
                    if track is not None and track.wanting:
                        track.hear(frame, at)
                elif pictures.wanting:
                    pictures.see(frame, at)
                if not pictures.wanting and (track is None or not track.wanting):
                    break
            if track is not None and track.pieces:
                track.hear(None, 0.0)
        except av.error.FFmpegError as error:
            raise DecodeError(path, error.strerror or str(error)) from error
        if pictures.last is None:
            raise DecodeError(path, "holds no picture that can be decoded")
        pictures.serve(float("inf"))
        if sound_starts is None:
            return None
        if track is None:
            return np.zeros((len(sound_starts), samples), np.float32)
        return track.cut(sound_starts, samples, seconds)


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

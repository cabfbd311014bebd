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
from av.stream import Disposition

from avnb.data.audio_buffer import AudioBuffer
from avnb.data.video_frames import NO_PICTURE, DecodeError, Extent, FrameConverter, FrameSelector

SEEK_AFTER_SECONDS = 3.0  # a shorter lead-in is decoded: seeking would save nothing


SHORTFALL = 0.75  # a file that holds less than this share of its announced length is cut off


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What a file holds: seconds of picture, its rate and size, and the rate of its sound."""

    start: float  # time stamp of the first frame; all other times count from it
    seconds: float
    fps: float
    width: int
    height: int
    audio_hz: int  # 0 when there is no audio stream


def opened(path: Path) -> Any:
    """The file as a PyAV container; DecodeError when it is none or holds no picture."""
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise DecodeError(path, error.strerror or str(error)) from error
    try:
        video_stream(path, container).codec_context.thread_count = 1  # many are read at once
    except DecodeError:
        container.close()
        raise
    return container


def video_stream(path: Path, container: Any) -> Any:
    """The first video stream that is not the cover of a piece of music."""
    for stream in container.streams.video:
        if stream.codec_context is None:
            raise DecodeError(path, "its pictures are in a format that FFmpeg has no decoder for")
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise DecodeError(path, "holds no video stream")


def inspect(path: Path) -> Stream:
    """Decode the whole file and say what is in it.

    Raises:
        DecodeError: when it cannot be opened, decoded to its end, or holds less than it says.
    """
    with opened(path) as container:
        video = video_stream(path, container)
        audio = container.streams.audio[0] if container.streams.audio else None
        upright, extent, size, heard = FrameConverter(video), Extent(), (0, 0), False
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
        start=extent.first, seconds=seconds, fps=rate, width=size[1], height=size[0], audio_hz=hz
    )


def read(
    path: Path,
    times: np.ndarray,
    take: Callable[[int, np.ndarray], None],
    *,
    seconds: float,
    start: float = 0.0,
    audio_starts: np.ndarray | None = None,
    samples: int = 0,
    hz: int = 16_000,
) -> np.ndarray | None:
    """Read pictures and, if starts are given, sound. Each is the same whatever else is read.

    Args:
        times: [N] seconds from the beginning, each in [0, seconds), in any order.
        take: called once for each time with its index and the frame [H, W, 3] on show then.
        start: time stamp of the video's first frame; the times above count from it.
        seconds: the video's length; pieces of sound that reach past it begin again at 0.
        audio_starts: [C] seconds, or None when no sound is wanted.
        samples: of each piece of sound.
        hz: rate of the sound that comes back.

    Returns:
        [C, samples] float32 (zeros where the file has no audio stream), or None.

    Raises:
        DecodeError: when the file cannot be read.
    """
    with contextlib.ExitStack() as files:
        container = files.enter_context(opened(path))
        seen, track = video_stream(path, container), None
        if audio_starts is not None and container.streams.audio:
            ends = audio_starts + samples / hz
            track = AudioBuffer(hz, seconds if (ends > seconds).any() else float(ends.max()))
        pictures = FrameSelector(times, take, FrameConverter(seen))
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
        if audio_starts is None:
            return None
        if track is None:
            return np.zeros((len(audio_starts), samples), np.float32)
        return track.cut(audio_starts, samples, seconds)


def collect(
    container: Any,
    streams: list[Any],
    zero: float,
    pictures: FrameSelector | None,
    track: AudioBuffer | None,
) -> None:
    """Hand frames of the streams to those who want them, until nobody does."""
    for frame, at in timed(container, streams, zero):
        if isinstance(frame, av.AudioFrame):
            if track is not None and track.wanting:
                track.hear(frame, at)
        elif pictures is not None and pictures.wanting:
            pictures.see(frame, at)
        if not any(one is not None and one.wanting for one in (pictures, track)):
            break


def stills(
    path: Path, times: np.ndarray, *, seconds: float, start: float = 0.0
) -> list[np.ndarray]:
    """The frames [H, W, 3] on show at the given times, as `read` counts them."""
    seen: dict[int, np.ndarray] = {}
    read(path, times, seen.__setitem__, seconds=seconds, start=start)
    return [seen[i] for i in range(len(times))]


def decode_audio(path: Path, hz: int) -> np.ndarray:
    """All sound of a file, mono [samples] float32; empty when it has none."""
    with opened(path) as container:
        track = AudioBuffer(hz, float("inf"))
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

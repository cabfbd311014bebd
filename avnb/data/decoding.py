"""Reading: a video file and times in seconds -> RGB frames and mono audio.

A file is read forward once, whatever the number of clips. Only where all frames lie late are
they sought, and the audio is read from its beginning then.
Frames are [H, W, 3] uint8; audio is [samples] float32, resampled by FFmpeg.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from avnb.data.audio_buffer import AudioBuffer
from avnb.data.video_frames import NO_FRAME, DecodeError, FrameConverter, FrameSelector, OnFrame

SEEK_AFTER_SECONDS = 3.0  # a shorter lead-in is decoded: seeking would save nothing
MIN_COMPLETE = 0.75  # a file with less than this share of its announced length is truncated


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """Length, rate and frame size of a file's video stream, and the rate of its audio."""

    start: float  # time stamp of the first frame, seconds; other times count from it
    seconds: float
    fps: float
    width: int
    height: int
    audio_hz: int  # 0 when there is no audio stream


def video_stream(path: Path, container: Any) -> Any:
    """The first video stream that is not the cover image of an audio file."""
    for stream in container.streams.video:
        if stream.codec_context is None:
            raise DecodeError(path, "FFmpeg has no decoder for the format of its video stream")
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise DecodeError(path, "holds no video stream")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The open PyAV container of a file and its video stream; errors become DecodeError."""
    try:
        with av.open(str(path)) as container:
            stream = video_stream(path, container)
            stream.codec_context.thread_count = 1  # many files are read at once
            yield container, stream
    except (av.error.FFmpegError, OSError) as error:
        raise DecodeError(path, error.strerror or str(error)) from error


def inspect(path: str | Path) -> StreamInfo:
    """Decode the whole file and describe it.

    Raises:
        DecodeError: when it cannot be opened or decoded to its end, or is shorter than announced.
    """
    path = Path(path)
    with opened(path) as (container, video):
        converter, audio = FrameConverter(video), container.streams.audio[:1]
        size, shown, untimed, has_audio = (0, 0), list[tuple[float, float]](), 0, False
        try:
            for packet in container.demux([video, *audio]):
                for frame in packet.decode():
                    if isinstance(frame, av.AudioFrame):
                        has_audio = True
                        continue
                    if size == (0, 0):
                        size = converter(frame).shape[:2]
                    if frame.time is None:  # `read` cannot place it either
                        untimed += 1
                    else:
                        duration = float((frame.duration or 0) * frame.time_base)
                        shown.append((frame.time, duration))
        except av.error.FFmpegError as error:
            raise DecodeError(path, f"{error.strerror} after {len(shown)} frames") from error
        if not shown:
            raise DecodeError(path, "its frames have no time stamps" if untimed else NO_FRAME)
        fps, start = float(video.average_rate or video.guessed_rate or 25), shown[0][0]
        last, duration = max(shown, key=lambda each: each[0])
        seconds = last - start + (duration or 1 / fps)
        announced = float((video.duration or 0) * video.time_base)
        if seconds < MIN_COMPLETE * announced:
            raise DecodeError(path, f"ends after {seconds:.2f} s of {announced:.2f} s")
        hz = audio[0].rate if has_audio else 0
    height, width = size
    return StreamInfo(
        start=start, seconds=seconds, fps=fps, width=width, height=height, audio_hz=hz
    )


def read(
    path: str | Path,
    times: np.ndarray,
    on_frame: OnFrame,
    *,
    seconds: float,
    start: float = 0.0,
    audio_starts: np.ndarray | None = None,
    samples: int = 0,
    hz: int = 16_000,
) -> np.ndarray | None:
    """Read frames and, where starts are given, audio; each is the same whatever else is read.

    Args:
        times: [N] seconds from the beginning, each in [0, seconds), in any order.
        on_frame: called once for each time with its index and the frame [H, W, 3] shown then.
        seconds: length of the video; audio that reaches past it goes on at its beginning.
        start: time stamp of the video's first frame; all other times count from it.
        audio_starts: [C] seconds, or None for no audio.
        samples: length of each audio segment.
        hz: sampling rate of the result.

    Returns:
        [C, samples] float32 (zeros where the file has no audio stream), or None.

    Raises:
        DecodeError: when the file cannot be read.
    """
    path, buffer = Path(path), None
    with opened(path) as (container, video):
        if audio_starts is not None and container.streams.audio:
            ends = audio_starts + samples / hz
            buffer = AudioBuffer(hz, seconds if (ends > seconds).any() else float(ends.max()))
        selector = FrameSelector(times, on_frame, FrameConverter(video))
        earliest = float(times.min())
        if earliest > SEEK_AFTER_SECONDS:
            container.seek(round((earliest - 0.5 + start) * av.time_base))
            decode(container, [(video, selector)], start)
            if buffer is not None:  # its decoder and resampler depend on what came before
                with opened(path) as (again, _):
                    decode(again, [(again.streams.audio[0], buffer)], start)
        else:
            audio = [(container.streams.audio[0], buffer)] if buffer is not None else []
            decode(container, [(video, selector), *audio], start)
        if selector.last is None:
            raise DecodeError(path, NO_FRAME)
        selector.emit()
        if buffer is not None and buffer.chunks:
            buffer.resample(None)
    if audio_starts is None:
        return None
    if buffer is None:
        return np.zeros((len(audio_starts), samples), np.float32)
    return buffer.cut(audio_starts, samples, seconds)


Sink = FrameSelector | AudioBuffer


def decode(container: Any, streams: Sequence[tuple[Any, Sink]], start: float) -> None:
    """Decode streams, each for its sink, until every sink is complete or the file ends."""
    sinks = {stream.index: sink for stream, sink in streams}
    for packet in container.demux([stream for stream, _ in streams]):
        sink = sinks[packet.stream.index]
        for frame in packet.decode():
            if frame.time is not None and sink.incomplete:
                sink.add(frame, frame.time - start)
            if not any(each.incomplete for each in sinks.values()):
                return


def read_frames(
    path: str | Path, times: np.ndarray, *, seconds: float, start: float = 0.0
) -> list[np.ndarray]:
    """The frames [H, W, 3] shown at the given times, which count as in `read`."""
    frames: dict[int, np.ndarray] = {}
    read(path, times, frames.__setitem__, seconds=seconds, start=start)
    return [frames[i] for i in range(len(times))]


def read_audio(path: str | Path, hz: int) -> np.ndarray:
    """All audio of a file, mono [samples] float32; empty when it has none."""
    buffer = AudioBuffer(hz, float("inf"))
    with opened(Path(path)) as (container, _):
        for frame in container.decode(audio=0) if container.streams.audio else ():
            buffer.add(frame, 0.0)
        if buffer.chunks:
            buffer.resample(None)
    return buffer.waveform

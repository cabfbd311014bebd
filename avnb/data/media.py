"""Media files: opened safely, within limits, and described by decoding them once."""

import contextlib
import math
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from avnb.data.limits import CONTAINERS, limits
from avnb.data.video_frames import NO_FRAME, DecodeError, FrameConverter

NO_MEDIA = f"is no media file of a kind that is read ({CONTAINERS.replace(',', ', ')})"
# Titles may be in any encoding. PyAV 18 has to be told so; 19 always takes them as they are.
ANY_TEXT: dict[str, Any] = (
    {"metadata_errors": "replace"} if av.__version__.startswith("18.") else {}
)
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
    damaged: float = 0.0  # share of its packets that cannot be decoded


def video_stream(path: Path, container: Any) -> Any:
    """The first video stream that is not the cover image of an audio file."""
    for stream in container.streams.video:
        if stream.codec_context is None:
            raise DecodeError(path, "FFmpeg has no decoder for the format of its video stream")
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise DecodeError(path, "holds no video stream")


def converter(video: Any) -> FrameConverter:
    """Converts the frames of a stream, all to the size of the first one."""
    return FrameConverter((video.codec_context.width, video.codec_context.height))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The open PyAV container of a file and its video stream; errors become DecodeError.

    Nothing but a file of its own that holds media is opened, and none with frames too large.
    """
    most = limits().frame_pixels
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DecodeError(path, f"is {kind_of(path)}, not a file")
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        options["max_pixels"] = str(most)
        with av.open(str(path), options=options, **ANY_TEXT) as container:
            stream = video_stream(path, container)
            codec = stream.codec_context
            if codec.width * codec.height > most:
                size = f"{codec.width} x {codec.height}"
                raise DecodeError(path, f"has frames of {size} pixels; {most} are the most")
            codec.options = {"max_pixels": str(most)}  # of frames larger than was declared
            codec.thread_count = 1  # many files are read at once
            yield container, stream
    except av.error.ArgumentError as error:
        raise DecodeError(path, NO_MEDIA) from error
    except (av.error.FFmpegError, OSError) as error:
        raise DecodeError(path, error.strerror or str(error)) from error


def kind_of(path: Path) -> str:
    """What stands in a file's place."""
    mode = path.stat().st_mode
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")


def check_length(path: Path, seconds: float, present: float = math.inf) -> None:
    """Raise DecodeError for a file that is too long, or much longer than its frames last."""
    most = limits()
    said = f"says that it lasts {seconds:.0f} s"
    if not seconds <= most.seconds:
        raise DecodeError(path, f"{said}; {most.seconds:g} are the most")
    if seconds > max(60.0, most.stretch * present):
        raise DecodeError(path, f"{said}, and its frames last {present:.1f} s")


def frame_seconds(frame: Any, video: Any) -> float:
    """When a frame with a time stamp is shown; of those that a flush gives, `frame.time` is NaN."""
    return float(frame.pts * video.time_base)


def decoded_packets(container: Any, streams: Sequence[Any]) -> Iterator[list[Any] | None]:
    """The frames of each packet of some streams; None for one that cannot be decoded."""
    for packet in container.demux(streams):
        try:
            yield packet.decode()
        except av.error.InvalidDataError:
            yield None


def inspect(path: str | Path) -> StreamInfo:
    """Decode the whole file and describe it; packets that cannot be decoded are counted.

    Raises:
        DecodeError: when it cannot be opened or read to its end, or is shorter than announced.
    """
    path = Path(path)
    with opened(path) as (container, video):
        announced = float((video.duration or 0) * video.time_base)
        check_length(path, announced)
        convert, audio = converter(video), container.streams.audio[:1]
        size, shown, untimed, has_audio = (0, 0), list[tuple[float, float]](), 0, False
        packets = damaged = 0
        try:
            for frames in decoded_packets(container, [video, *audio]):
                packets, damaged = packets + 1, damaged + (frames is None)
                for frame in frames or ():
                    if isinstance(frame, av.AudioFrame):
                        has_audio = True
                        continue
                    if size == (0, 0):
                        size = convert(frame).shape[:2]
                    if frame.pts is None:  # `read` cannot place it either
                        untimed += 1
                    else:
                        duration = float((frame.duration or 0) * video.time_base)
                        shown.append((frame_seconds(frame, video), duration))
        except av.error.FFmpegError as error:
            raise DecodeError(path, f"{error.strerror} after {len(shown)} frames") from error
        if not shown:
            raise DecodeError(path, "its frames have no time stamps" if untimed else NO_FRAME)
        fps, start = float(video.average_rate or video.guessed_rate or 25), shown[0][0]
        last, duration = max(shown, key=lambda each: each[0])
        seconds = last - start + (duration or 1 / fps)
        check_length(path, seconds, len(shown) / fps)
        if seconds < MIN_COMPLETE * announced:
            raise DecodeError(path, f"ends after {seconds:.2f} s of {announced:.2f} s")
        hz = audio[0].rate if has_audio else 0
    return StreamInfo(
        start=start,
        seconds=seconds,
        fps=fps,
        width=size[1],
        height=size[0],
        audio_hz=hz,
        damaged=damaged / packets,
    )


def check_reading(path: Path, video: Any, frames: int, samples: int) -> None:
    """Raise DecodeError when a reading would take more memory than it may."""
    codec = video.codec_context
    asked = (3 * codec.width * codec.height * frames + 4 * samples) / 1e9
    if asked > (most := limits().reading_gb):
        raise DecodeError(path, f"{asked:.1f} GB are asked of it at once; {most:g} are the most")

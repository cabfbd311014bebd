"""Reading: a video file and times in seconds -> RGB frames and mono audio.

The packets between the first and the last that is needed are read once, whatever the number of
clips; decoded is only what the frames and spans of audio depend on.
Frames are [H, W, 3] uint8; audio is [samples] float32, resampled by FFmpeg.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np

from avnb.data import cache_file
from avnb.data.audio_stretch import (
    RUN_IN_SECONDS,
    RUN_OUT_SECONDS,
    every_frame,
    first_packet,
    intact_frames,
    stretch,
)
from avnb.data.media import check_reading, converter, frame_seconds, opened
from avnb.data.video_frames import (
    EARLY_SECONDS,
    NO_FRAME,
    DecodeError,
    FrameIndex,
    FrameSelector,
    OnFrame,
    show_indexed,
)

SEEK_AFTER_SECONDS = 1.0  # a shorter lead-in is read: seeking would save nothing

Span = tuple[int, int]  # first sample and number of samples


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is read of a file: frames at times, and spans of audio; all count from `start`."""

    times: np.ndarray
    spans: Sequence[Span]
    hz: int
    start: float

    @cached_property
    def stretches(self) -> dict[str, tuple[float, float]]:
        """First and last second of the packets that are needed, for each type of stream."""
        found = {}
        if len(self.times):
            found["video"] = float(self.times.min()), float(self.times.max())
        if self.spans:
            first, last = min(s[0] for s in self.spans), max(sum(s) for s in self.spans)
            found["audio"] = first / self.hz - RUN_IN_SECONDS, last / self.hz + RUN_OUT_SECONDS
        return found

    @cached_property
    def seek(self) -> float:
        """Where reading begins, in seconds; 0 when a jump would save nothing."""
        begin = min((begin for begin, _ in self.stretches.values()), default=0.0)
        return begin if begin > SEEK_AFTER_SECONDS else 0.0

    def demux(self, container: Any, video: Any, *, seek: bool) -> dict[str, list[Any]]:
        """The packets of each stream, from before the first that is needed to after the last."""
        if seek and self.seek:
            container.seek(math.floor((self.seek - EARLY_SECONDS + self.start) * av.time_base))
        streams = {"video": video, **{s.type: s for s in container.streams.audio[:1]}}
        streams = {kind: streams[kind] for kind in self.stretches}
        found: dict[str, list[Any]] = {kind: [] for kind in streams}
        packets = {stream.index: found[kind] for kind, stream in streams.items()}
        until = {
            stream.index: (self.stretches[kind][1] + self.start) / stream.time_base
            for kind, stream in streams.items()
        }
        for packet in container.demux([*streams.values()]) if streams else ():
            index, stamp = packet.stream_index, packet.dts
            if packet.size:  # otherwise it marks the end
                packets[index].append(packet)
            if stamp is not None and stamp > until.get(index, math.inf):
                del until[index]  # no frame is shown before it is decoded
                if not until:
                    break
        return found

    def reached_by(self, packets: Mapping[str, Sequence[Any]]) -> bool:
        """Whether reading began early enough, after a jump, for all that is wanted."""
        return not self.seek or all(
            own and (own[0].pts or 0) * own[0].time_base - self.start <= begin + EARLY_SECONDS
            for own, (begin, _) in zip(packets.values(), self.stretches.values(), strict=True)
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
        on_frame: called for each time with its index and the frame [H, W, 3] shown then; a second
            time where the file had to be read again from its beginning.
        seconds: length of the video; audio that reaches past it goes on at its beginning.
        start: time stamp of the video's first frame; all other times count from it.
        audio_starts: [C] seconds, or None for no audio.
        samples: length of each audio segment.
        hz: sampling rate of the result.

    A file that cannot be read after a jump, or without damaged packets, is read once more from its
    beginning and without them.

    Returns:
        [C, samples] float32 (zeros where the file has no audio stream), or None.

    Raises:
        DecodeError: when the file cannot be read.
    """
    path = Path(path)
    if cache_file.is_of_a_cache(path):
        return cache_file.read(
            path, times, on_frame, audio_starts=audio_starts, samples=samples, hz=hz
        )
    values = path, times, on_frame, seconds, start, audio_starts, samples, hz
    try:
        return read_source(*values)
    except DecodeError:
        return read_source(*values, careful=True)


def read_source(
    path: Path,
    times: np.ndarray,
    on_frame: OnFrame,
    seconds: float,
    start: float,
    audio_starts: np.ndarray | None,
    samples: int,
    hz: int,
    *,
    careful: bool = False,
) -> np.ndarray | None:
    """As `read`, of a video file; carefully from its beginning, in order, past what is damaged."""
    length = max(round(seconds * hz), 1)
    firsts = [] if audio_starts is None else np.round(audio_starts * hz).astype(int).tolist()
    firsts = [min(first, length - 1) for first in firsts]
    # What reaches past the end is cut out of the whole.
    spans = [(f, samples) if f + samples <= length else (0, length) for f in firsts]
    with contextlib.ExitStack() as stack:
        container, video = stack.enter_context(opened(path))
        audible = spans if container.streams.audio else []
        check_reading(path, video, len(times), sum(count for _, count in {*spans}))
        wanted = Wanted(times=times, spans=audible, hz=hz, start=start)
        packets = wanted.demux(container, video, seek=not careful)
        if not careful and not wanted.reached_by(packets):  # it has no index, or a wrong one
            container, video = stack.enter_context(opened(path))
            packets = wanted.demux(container, video, seek=False)
        if len(times) and careful:
            show_in_order(path, times, on_frame, start)
        elif len(times):
            show(path, video, packets["video"], times, on_frame, start)
        if audio_starts is None:
            return None
        out = np.zeros((len(spans), samples), np.float32)
        if audible:
            stream = container.streams.audio[0]
            pieces = listen(path, stream, packets["audio"], {*spans}, hz, start, careful=careful)
            for row, first, span in zip(out, firsts, spans, strict=True):
                row[:] = pieces[span][(first - span[0] + np.arange(samples)) % span[1]]
    return out


def show(
    path: Path,
    video: Any,
    packets: Sequence[Any],
    times: np.ndarray,
    on_frame: OnFrame,
    start: float,
) -> None:
    """Call `on_frame` for every time; decodes no more than that needs where packets say enough."""
    index, left = FrameIndex(video, packets, start), [*range(len(times))]
    if index.is_usable:
        left = show_indexed(index, converter(video), times, on_frame)
    if left:  # packets without time stamps, or frames that do not keep theirs
        show_in_order(path, times[left], lambda i, image: on_frame(left[i], image), start)


def show_in_order(path: Path, times: np.ndarray, on_frame: OnFrame, start: float) -> None:
    """The same, for any file: from its beginning, frame by frame."""
    with opened(path) as (container, video):
        selector = FrameSelector(times, on_frame, converter(video))
        for frame in intact_frames(video, container.demux(video)):
            if frame.pts is not None:
                selector.add(frame, frame_seconds(frame, video) - start)
            if not selector.incomplete:
                return
        if selector.last is None:
            raise DecodeError(path, NO_FRAME)
        selector.emit()


def listen(
    path: Path,
    audio: Any,
    packets: Sequence[Any],
    spans: set[Span],
    hz: int,
    start: float,
    *,
    careful: bool,
) -> dict[Span, np.ndarray]:
    """The samples of each span. Decoders remember: each span gets one of its own."""
    pieces: dict[Span, np.ndarray] = {}
    for span in sorted(spans):
        with opened(path) if pieces else contextlib.nullcontext() as again:
            stream = again[0].streams.audio[0] if again else audio
            begin = 0 if careful else first_packet(packets, span[0] / hz + start)
            decode = intact_frames if careful else every_frame
            try:
                pieces[span] = stretch(stream, packets[begin:], *span, hz, start, decode)
            except av.error.FFmpegError:
                if begin == 0:
                    raise
                with opened(path) as (container, _):  # it cannot be entered in the middle
                    stream = container.streams.audio[0]
                    pieces[span] = stretch(stream, [*container.demux(stream)], *span, hz, start)
    return pieces


def read_frames(
    path: str | Path, times: np.ndarray, *, seconds: float, start: float = 0.0
) -> list[np.ndarray]:
    """The frames [H, W, 3] shown at the given times, which count as in `read`."""
    frames: dict[int, np.ndarray] = {}
    read(path, times, frames.__setitem__, seconds=seconds, start=start)
    return [frames[i] for i in range(len(times))]


def read_all_frames(path: str | Path, start: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """When each frame begins, seconds after `start` in rising order, and the frames [H, W, 3]."""
    frames: dict[float, np.ndarray] = {}
    with opened(Path(path)) as (container, video):
        convert = converter(video)
        for frame in intact_frames(video, container.demux(video)):
            if frame.pts is not None:
                frames[frame_seconds(frame, video) - start] = convert(frame)
    if not frames:
        raise DecodeError(Path(path), NO_FRAME)
    seconds = sorted(frames)
    return np.array(seconds), [frames[at] for at in seconds]


def read_soundtrack(path: str | Path, hz: int, *, seconds: float, start: float) -> np.ndarray:
    """The audio of a video from its first frame to its end, mono [samples] float32."""
    samples = max(round(seconds * hz), 1)
    whole = read(
        path,
        np.zeros(0),
        lambda i, image: None,
        seconds=seconds,
        start=start,
        audio_starts=np.zeros(1),
        samples=samples,
        hz=hz,
    )
    assert whole is not None
    return whole[0]

"""Frames of a video stream by time: which are needed, how they are decoded, their orientation."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

EARLY_SECONDS = 1e-4  # a frame that begins this little after a time still counts as shown at it
NO_FRAME = "holds no frame that can be decoded"
OnFrame = Callable[[int, np.ndarray], None]  # index of the time, image [H, W, 3]


class DecodeError(ValueError):
    """A file that cannot be read as a video; names the file and the reason."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:
        """From process to process it goes as what it was made of."""
        return type(self), (self.path, self.reason)


class FrameConverter:
    """Converts the frames of a stream to upright RGB [H, W, 3], following its display matrix.

    One object serves a whole file, because a VideoReformatter costs more to make than to use.

    Args:
        size: width and height that every frame gets, as the file announces them; None leaves each
            as it is.
    """

    def __init__(self, size: tuple[int, int] | None = None):
        self.size, self.reformatter = size, VideoReformatter()

    def __call__(self, frame: Any) -> np.ndarray:
        """One frame, [H, W, 3] uint8."""
        width, height = self.size or (frame.width, frame.height)
        rgb = self.reformatter.reformat(frame, width, height, format="rgb24")
        image: np.ndarray = rgb.to_ndarray()
        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        if matrix is None:
            return image
        # It maps (x, y) to (a x + c y, b x + d y), up to a shift; y points down.
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
        if abs(b) > abs(a):
            image, a, d = image.transpose(1, 0, 2), c, b
        return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


class FrameSelector:
    """Calls `on_frame(index, image)` with the frame shown at each of the times, in any order.

    Frames are added as they are decoded, from the first one on: this needs no index of the file.
    """

    def __init__(self, times: np.ndarray, on_frame: OnFrame, converter: FrameConverter):
        self.times, self.on_frame, self.converter = times, on_frame, converter
        self.pending = np.argsort(times, kind="stable")[::-1].tolist()  # the next one comes last
        self.last: Any = None

    @property
    def incomplete(self) -> bool:
        """Whether some time has not been served yet."""
        return bool(self.pending)

    def add(self, frame: Any, seconds: float) -> None:
        """A new frame begins: all earlier times showed the one before it."""
        if self.last is not None:
            self.emit(seconds - EARLY_SECONDS)
        self.last = frame

    def emit(self, before: float = float("inf")) -> None:
        """Deliver the last frame for every time before the given one."""
        image = None
        while self.pending and self.times[self.pending[-1]] < before:
            image = self.converter(self.last) if image is None else image
            self.on_frame(self.pending.pop(), image)


class FrameIndex:
    """The packets of a video stream, in decoding order, and which of them give which frames.

    Args:
        stream: of the packets.
        packets: from a key frame on, as far as the last frame that may be wanted.
        start: seconds of the video's first frame.
    """

    def __init__(self, stream: Any, packets: Sequence[Any], start: float):
        self.stream, self.packets = stream, packets
        shown = [i for i, p in enumerate(packets) if not p.is_discard]
        stamps = [p.pts for p in packets]
        self.is_usable = bool(shown) and None not in stamps and len({*stamps}) == len(stamps)
        if self.is_usable:
            base = stream.time_base
            self.rows = np.array(sorted(shown, key=stamps.__getitem__))  # in the order of showing
            self.stamps = np.array(stamps)[self.rows]
            self.seconds = self.stamps * base.numerator / base.denominator - start

    def at(self, times: np.ndarray) -> np.ndarray:
        """Which frame, in the order of showing, is on show at each time."""
        shown = np.searchsorted(self.seconds - EARLY_SECONDS, times, side="right") - 1
        return np.maximum(shown, 0)

    def key_before(self, row: int) -> int:
        """The packet at which decoding can begin so that `row` is whole."""
        stamp = self.packets[row].pts
        for i in range(row, 0, -1):
            if self.packets[i].is_keyframe and self.packets[i].pts <= stamp:
                return i
        return 0

    def decode(self, frames: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Decode these frames, numbered in the order of showing: (number, frame) as they come.

        Each is decoded from the key frame before it; what neither it nor others need is skipped.
        """
        numbers = {int(self.stamps[n]): n for n in frames}
        rows = sorted((self.key_before(int(self.rows[n])), int(self.rows[n])) for n in frames)
        decoder = self.stream.codec_context
        for begin, group in groupby(rows, lambda pair: pair[0]):
            last = [row for _, row in group][-1]
            for packet in self.packets[begin : last + 1]:
                decoder.skip_frame = "DEFAULT" if packet.pts in numbers else "NONREF"
                yield from self.named(self.stream.decode(packet), numbers)
            yield from self.named(self.stream.decode(None), numbers)  # what it holds back
            decoder.flush_buffers()

    @staticmethod
    def named(decoded: Sequence[Any], numbers: dict[int, int]) -> Iterator[tuple[int, Any]]:
        """Those of the decoded frames that are wanted, each once."""
        for frame in decoded:
            if frame.pts in numbers:
                yield numbers.pop(frame.pts), frame


def show_indexed(
    index: FrameIndex, convert: FrameConverter, times: np.ndarray, on_frame: OnFrame
) -> list[int]:
    """Call `on_frame` for every time whose frame the index leads to; the rest of the times."""
    shown, left = index.at(times), {*range(len(times))}
    for number, frame in index.decode(np.unique(shown).tolist()):
        image = convert(frame)
        for i in np.flatnonzero(shown == number).tolist():
            on_frame(i, image)
            left.discard(i)
    return sorted(left)

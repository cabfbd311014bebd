"""Frames of a video stream: which ones, and the right way up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

EARLY_SECONDS = 1e-4  # a frame this little after the wanted time still counts as shown at it


NO_PICTURE = "holds no picture that can be decoded"


class DecodeError(ValueError):
    """A file that cannot be read as a video, with the reason; names the file."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


class FrameConverter:
    """Turns the frames of a stream into RGB [H, W, 3], as its display matrix asks.

    All have the size that the stream began with, should it change on the way. One object serves
    a whole file: making a VideoReformatter costs more than using it.
    """

    def __init__(self, video: Any):
        self.width, self.height = video.codec_context.width, video.codec_context.height
        self.reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> np.ndarray:
        """One frame as it is to be seen."""
        wanted = self.reformatter.reformat(frame, self.width, self.height, format="rgb24")
        picture: np.ndarray = wanted.to_ndarray()
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


class FrameSelector:
    """Hands over the frame on show at each wanted time, as frames come by in order."""

    def __init__(
        self, times: np.ndarray, take: Callable[[int, np.ndarray], None], upright: FrameConverter
    ):
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

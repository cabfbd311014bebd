"""Selection of a video stream's frames by time, and their orientation."""

from collections.abc import Callable
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


class FrameConverter:
    """Converts the frames of a stream to upright RGB [H, W, 3], following its display matrix.

    Every frame gets the size of the first one. One object serves a whole file, because a
    VideoReformatter costs more to make than to use.
    """

    def __init__(self, stream: Any):
        self.width, self.height = stream.codec_context.width, stream.codec_context.height
        self.reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> np.ndarray:
        """One frame, [H, W, 3] uint8."""
        rgb = self.reformatter.reformat(frame, self.width, self.height, format="rgb24")
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
    """Calls `on_frame(index, image)` with the frame shown at each of the times, in any order."""

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

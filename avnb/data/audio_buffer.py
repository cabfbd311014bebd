"""The audio of a file as it is decoded."""

from typing import Any

import av
import numpy as np

GAP_SECONDS = 0.1  # sound that is later than expected by more is moved to its own time


class AudioBuffer:
    """Collects sound as it comes by, mono at one rate, and cuts pieces out of it."""

    def __init__(self, hz: int, until: float):
        self.hz, self.until = hz, until
        self.resampler = av.AudioResampler(format="flt", layout="mono", rate=hz)
        self.pieces: list[np.ndarray] = []
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

    def cut(self, starts: np.ndarray, samples: int, seconds: float) -> np.ndarray:
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

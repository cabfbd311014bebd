"""The audio of a file, collected while it is decoded."""

from typing import Any

import av
import numpy as np

GAP_SECONDS = 0.1  # a larger gap between two frames is filled with silence


class AudioBuffer:
    """Collects decoded audio as mono at one rate until a time, and cuts segments out of it."""

    def __init__(self, hz: int, until: float):
        self.hz, self.until = hz, until
        self.resampler = av.AudioResampler(format="flt", layout="mono", rate=hz)
        self.chunks: list[np.ndarray] = []
        self.start: float | None = None  # seconds of the first frame
        self.format: tuple[str, str, int] | None = None
        self.count = 0

    @property
    def incomplete(self) -> bool:
        """Whether audio before `until` is still missing."""
        return self.start is None or self.start + self.count / self.hz < self.until

    @property
    def waveform(self) -> np.ndarray:
        """[samples] float32 collected so far."""
        return np.concatenate(self.chunks) if self.chunks else np.zeros(0, np.float32)

    def add(self, frame: Any, seconds: float) -> None:
        """Append a frame; silence that the file does not store is filled in."""
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self.format not in (None, form):  # the stream changes its format on the way
            self.resample(None)
            self.resampler = av.AudioResampler(format="flt", layout="mono", rate=self.hz)
        self.format = form
        self.start = seconds if self.start is None else self.start
        gap = round((seconds - self.start) * self.hz) - self.count
        if gap > GAP_SECONDS * self.hz:
            self.chunks.append(np.zeros(gap, np.float32))
            self.count += gap
        self.resample(frame)

    def resample(self, frame: Any) -> None:
        """Append a frame at the buffer's rate; None flushes the resampler."""
        for chunk in self.resampler.resample(frame):
            self.chunks.append(chunk.to_ndarray()[0])
            self.count += len(self.chunks[-1])

    def cut(self, starts: np.ndarray, samples: int, seconds: float) -> np.ndarray:
        """[len(starts), samples] from a video of so many seconds, which repeats after its end."""
        audio = self.waveform
        lead = round((self.start or 0.0) * self.hz)  # samples before the first frame
        video = np.zeros(max(round(seconds * self.hz), 1), np.float32)
        begin, end = max(lead, 0), min(lead + len(audio), len(video))
        if begin < end:  # otherwise all audio lies before or after the video
            video[begin:end] = audio[begin - lead : end - lead]
        first = np.minimum(np.round(starts * self.hz).astype(int), len(video) - 1)
        return video[(first[:, None] + np.arange(samples)) % len(video)]

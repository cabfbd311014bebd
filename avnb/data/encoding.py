"""Writing video files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


@dataclass(frozen=True)
class Form:
    """How a file is encoded: container and codecs by FFmpeg's names."""

    container: str
    video: str
    options: Mapping[str, str]  # of the video codec
    audio: str
    bit_rate: int = 64_000  # of the audio
    layout: Mapping[str, str] = field(default_factory=dict)  # options of the container


def encode(
    path: Path,
    images: Sequence[np.ndarray],
    fps: int,
    audio: np.ndarray | None,
    hz: int,
    form: Form,
) -> None:
    """Write frames [H, W, 3] uint8 of even size, and mono audio [samples] in [-1, 1], if any.

    The same bytes every time on one machine.
    """
    with av.open(str(path), "w", form.container, options=dict(form.layout)) as container:
        video: Any = container.add_stream(form.video, rate=fps)
        video.height, video.width, _ = images[0].shape
        video.pix_fmt, video.time_base = "yuv420p", Fraction(1, fps)
        video.codec_context.thread_count = 1
        video.options = dict(form.options)
        audio_stream: Any = None
        if audio is not None:
            audio_stream = container.add_stream(form.audio, rate=hz)
            audio_stream.layout, audio_stream.bit_rate = "mono", form.bit_rate
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio_stream is not None and audio is not None:
            wave = av.AudioFrame.from_ndarray(audio[None], format="fltp", layout="mono")
            wave.sample_rate, wave.pts, wave.time_base = hz, 0, Fraction(1, hz)
            container.mux(audio_stream.encode(wave))
            container.mux(audio_stream.encode())

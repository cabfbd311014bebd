"""A video as packets of its encoded frames, and its audio as samples: the files of a cache.

Nothing has to be probed, demultiplexed or resampled to read one, and only the bytes that a clip
needs are touched. A frame is shown from number / fps seconds on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from avnb.data.video_frames import (
    EARLY_SECONDS,
    DecodeError,
    FrameConverter,
    FrameIndex,
    OnFrame,
    show_indexed,
)

SUFFIX = ".packets.safetensors"
FULL_SCALE = 32_768  # of a 16-bit sample
NOMINAL_FPS = 25


class FrameEncoder:
    """Encodes frames in the order of their numbers, in whatever order they come.

    Args:
        codec: FFmpeg's name of the encoder.
        options: of it.
        bits_per_second: of the video; 0 where an option gives its quality.
        fps: of the frames.
        size: width and height, both even.
    """

    def __init__(
        self,
        codec: str,
        options: Mapping[str, str],
        bits_per_second: int,
        fps: int,
        size: tuple[int, int],
    ):
        context: Any = av.CodecContext.create(codec, "w")
        self.context = context
        self.context.width, self.context.height = size
        self.context.pix_fmt, self.context.options = "yuv420p", dict(options)
        self.context.thread_count = 1  # many files are written at once
        # MPEG-2 knows few rates. The file says what the frames' times are; an encoder that is told
        # a higher rate spends fewer bits on each.
        self.context.time_base, self.context.framerate = Fraction(1, NOMINAL_FPS), NOMINAL_FPS
        if bits_per_second:
            self.context.bit_rate = bits_per_second * NOMINAL_FPS // fps
        self.waiting: dict[int, Any] = {}
        self.packets: list[Any] = []
        self.done = 0

    def add(self, number: int, image: np.ndarray) -> None:
        """Frame [H, W, 3] uint8 of a number."""
        width, height = self.context.width, self.context.height
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        self.waiting[number] = frame.reformat(width, height, "yuv420p", interpolation="AREA")
        while self.done in self.waiting:
            frame = self.waiting.pop(self.done)
            frame.pts, frame.time_base = self.done, self.context.time_base
            self.packets += self.context.encode(frame)
            self.done += 1

    def finish(self) -> list[Any]:
        """The packets of all frames."""
        self.packets += self.context.encode(None)
        return self.packets


def write(
    path: Path, packets: list[Any], decoder: str, fps: int, audio: np.ndarray, hz: int
) -> None:
    """Write a file.

    Args:
        path: of the file.
        packets: of `FrameEncoder.finish`.
        decoder: FFmpeg's name of what decodes them.
        fps: frames a second.
        audio: [samples] float32 in [-1, 1] from second 0 on; empty without audio.
        hz: its rate.
    """
    sizes = [packet.size for packet in packets]
    samples = (audio * FULL_SCALE).round().clip(-FULL_SCALE, FULL_SCALE - 1)
    tensors = {
        "bytes": np.frombuffer(b"".join(bytes(packet) for packet in packets), np.uint8),
        "offsets": np.cumsum([0, *sizes]),
        "numbers": np.array([packet.pts for packet in packets]),
        "keys": np.array([packet.is_keyframe for packet in packets]),
        "audio": samples.astype(np.int16),
    }
    about = {"decoder": decoder, "fps": str(fps), "hz": str(hz)}
    path.write_bytes(save(tensors, about))


@dataclass(frozen=True)
class Decoder:
    """A decoder that is kept from file to file."""

    codec_context: Any
    time_base: Fraction  # of frame numbers
    converter: FrameConverter

    def decode(self, packet: Any) -> list[Any]:
        """The frames that a packet completes; None asks for what is held back."""
        return self.codec_context.decode(packet)


@cache
def decoder_of(name: str, fps: int) -> Decoder:
    """The decoder of this process for files of a kind."""
    context: Any = av.CodecContext.create(name, "r")
    context.thread_count = 1
    return Decoder(context, Fraction(1, fps), FrameConverter())


def check(path: Path, count: int) -> None:
    """Raise DecodeError unless it has `count` frames and all of them can be read."""
    with safe_open(path, "numpy") as file:
        fps, there = int(file.metadata()["fps"]), len(file.get_tensor("numbers"))
        if there != count:
            raise DecodeError(path, f"has {there} frames, not {count}")
        show(path, file, np.arange(count) / fps, lambda i, image: None)


def show(path: Path, file: Any, times: np.ndarray, on_frame: OnFrame) -> None:
    """Decode and deliver the frame of each time from the open file.

    Raises:
        DecodeError: when a frame is not there.
    """
    about = file.metadata()
    decoder = decoder_of(about["decoder"], int(about["fps"]))
    numbers, keys, offsets = (file.get_tensor(name) for name in ("numbers", "keys", "offsets"))
    frames = np.floor((times + EARLY_SECONDS) / float(decoder.time_base)).astype(int)
    frames = frames.clip(0, len(numbers) - 1)
    rows = np.flatnonzero(np.isin(numbers, frames))
    usable = np.flatnonzero(keys & (numbers <= frames.min()))
    begin, end = int(usable[usable <= rows[0]][-1]), int(rows[-1]) + 1
    data = file.get_slice("bytes")[int(offsets[begin]) : int(offsets[end])].tobytes()
    edges = (offsets[begin : end + 1] - offsets[begin]).tolist()
    packets = []
    for i, row in enumerate(range(begin, end)):
        packet = av.Packet(data[edges[i] : edges[i + 1]])
        packet.pts, packet.time_base = int(numbers[row]), decoder.time_base
        packet.is_keyframe = bool(keys[row])
        packets.append(packet)
    index = FrameIndex(decoder, packets, 0.0)
    if left := show_indexed(index, decoder.converter, times, on_frame):
        raise DecodeError(path, f"lacks {len(left)} of {len(times)} frames: delete it")

"""The audio of a stretch of time: packets of a stream -> mono samples at one rate."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import gcd
from typing import Any

import av
import numpy as np
from av.filter import Graph

GAP_SECONDS = 0.1  # a larger gap between two frames is filled with silence
RUN_IN_SECONDS = 0.25  # decoded before a stretch: decoders and resampler depend on what came before
RUN_OUT_SECONDS = 0.05  # and after it, for the resampler
Decode = Callable[[Any, Iterable[Any]], Iterator[Any]]
UNSIGNED_SILENCE = 128  # of samples of 8 bits, which have no sign


def first_packet(packets: Sequence[Any], seconds: float) -> int:
    """The packet to begin at so that the decoder has run in by then."""
    before = (seconds - RUN_IN_SECONDS) / packets[0].time_base if packets else 0.0
    early = [i for i, p in enumerate(packets) if p.pts is None or p.pts <= before]
    return early[-1] if early and packets[early[-1]].pts is not None else 0


def every_frame(stream: Any, packets: Iterable[Any]) -> Iterator[Any]:
    """The frames of a stream."""
    for packet in itertools.chain((p for p in packets if p.size), [None]):  # None: the end
        yield from stream.decode(packet)


def intact_frames(stream: Any, packets: Iterable[Any]) -> Iterator[Any]:
    """The frames of a stream without those of packets that cannot be decoded."""
    for packet in itertools.chain((p for p in packets if p.size), [None]):
        with contextlib.suppress(av.error.InvalidDataError):
            yield from stream.decode(packet)


def decoded(frames: Iterable[Any], until: float) -> Iterator[Any]:
    """The frames that have a time, as far as `until` on their own clock."""
    for frame in frames:
        if frame.time is not None and frame.time > until:
            return  # however far away: nothing is allocated up to there
        if frame.time is not None:
            yield frame
            if frame.time + frame.samples / frame.sample_rate >= until:
                return


def joined(frames: Iterable[Any], start: float, period: int) -> tuple[int, Any]:
    """Frames of one format as a single one, and the number of its first sample.

    Sample n is heard n / rate seconds after `start`. Silence stands where the stream stores none,
    and before the first frame, so that the number is a multiple of `period`.
    """
    pieces: list[np.ndarray] = []
    first = count = 0
    for frame in frames:
        samples, at = frame.to_ndarray(), round((frame.time - start) * frame.sample_rate)
        if not pieces:
            first = at // period * period
        missing = at - first - count
        if missing > GAP_SECONDS * frame.sample_rate or (missing and not pieces):
            width = missing * (samples.shape[1] // frame.samples)  # channels, where they alternate
            value = UNSIGNED_SILENCE if samples.dtype == np.uint8 else 0
            pieces.append(np.full((len(samples), width), value, samples.dtype))
            count += missing
        pieces.append(samples)
        count += frame.samples
    form, layout = frame.format.name, frame.layout.name
    whole = av.AudioFrame.from_ndarray(np.concatenate(pieces, axis=1), format=form, layout=layout)
    whole.sample_rate = frame.sample_rate
    return first, whole


def resampled(whole: Any, hz: int) -> np.ndarray:
    """A frame as mono [samples] float32 at `hz`."""
    graph = Graph()
    graph.threads = 1  # by default one for each core, where others decode already
    form, layout, rate = whole.format.name, whole.layout.name, whole.sample_rate
    source = graph.add_abuffer(sample_rate=rate, format=form, layout=layout)
    wanted = {"sample_rates": str(hz), "sample_fmts": "flt", "channel_layouts": "mono"}
    sink = graph.add("abuffersink")
    graph.link_nodes(source, graph.add("aformat", **wanted), sink).configure()
    graph.push(whole)
    graph.push(None)
    parts = []
    with contextlib.suppress(av.error.EOFError):
        while True:
            parts.append(graph.pull().to_ndarray()[0])
    return np.concatenate(parts or [np.zeros(0, np.float32)])


def mono(frames: Iterable[Any], hz: int, start: float) -> Iterator[tuple[int, np.ndarray]]:
    """Frames as mono at `hz`: number of the first sample, counted from `start`, and the samples.

    A new piece begins where the stream changes its format. All frames of a piece are resampled
    at once, in the phase that they have when the file is resampled from time 0.
    """
    for (_, _, rate), group in itertools.groupby(
        frames, lambda f: (f.format.name, f.layout.name, f.sample_rate)
    ):
        common = gcd(rate, hz)
        first, whole = joined(group, start, rate // common)
        yield first // (rate // common) * (hz // common), resampled(whole, hz)


def stretch(
    stream: Any,
    packets: Sequence[Any],
    first: int,
    samples: int,
    hz: int,
    start: float,
    decode: Decode = every_frame,
) -> np.ndarray:
    """[samples] float32 from sample `first` on, at `hz` after `start`; zeros where there is none.

    Args:
        stream: whose decoder has not been used yet.
        packets: of the stream, in order, from before the stretch on.
        decode: turns them into frames.
    """
    out = np.zeros(samples, np.float32)
    until = start + (first + samples) / hz + RUN_OUT_SECONDS
    frames = decoded(decode(stream, packets), until)
    for at, piece in mono(frames, hz, start):
        begin, end = max(at, first), min(at + len(piece), first + samples)
        if begin < end:
            out[begin - first : end - first] = piece[begin - at : end - at]
    return out

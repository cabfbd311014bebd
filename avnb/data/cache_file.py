"""Reading a file of a cache: whatever holds its frames, its audio is an array beside them."""

from pathlib import Path
from typing import Any

import av
import numpy as np
from safetensors import SafetensorError, safe_open

from avnb.data import frame_file, packet_file
from avnb.data.video_frames import DecodeError, OnFrame

KINDS = {kind.SUFFIX: kind for kind in (frame_file, packet_file)}


def is_of_a_cache(path: Path) -> bool:
    """Whether a file is one of a cache, by its name."""
    return path.name.endswith(tuple(KINDS))


def read(
    path: Path,
    times: np.ndarray,
    on_frame: OnFrame,
    *,
    audio_starts: np.ndarray | None,
    samples: int,
    hz: int,
) -> np.ndarray | None:
    """As `decoding.read`; only what is wanted is read.

    Raises:
        DecodeError: when it is damaged, or its audio has another rate.
    """
    kind = next(kind for suffix, kind in KINDS.items() if path.name.endswith(suffix))
    try:
        with safe_open(path, "numpy") as file:
            if len(times):
                kind.show(path, file, times, on_frame)
            if audio_starts is None:
                return None
            return listen(path, file, audio_starts, samples, hz)
    except (SafetensorError, av.error.FFmpegError) as error:
        packet_file.decoder_of.cache_clear()  # it may hold what it could not decode
        reason = f"is damaged ({error}): delete it, and it is written again"
        raise DecodeError(path, reason) from error


def listen(path: Path, file: Any, audio_starts: np.ndarray, samples: int, hz: int) -> np.ndarray:
    """[C, samples] float32; what reaches past the end goes on at the beginning."""
    stored, audio = int(file.metadata()["hz"]), file.get_slice("audio")
    if stored != hz:
        raise DecodeError(path, f"holds audio of {stored} Hz, not {hz}: a cache serves one rate")
    out, length = np.zeros((len(audio_starts), samples), np.float32), audio.get_shape()[0]
    if not length:
        return out
    for row, start in zip(out, audio_starts.tolist(), strict=True):
        first = min(round(start * hz), length - 1)
        if first + samples <= length:
            piece = audio[first : first + samples]
        else:
            piece = audio[:][(first + np.arange(samples)) % length]
        row[:] = piece
        if piece.dtype == np.int16:
            row /= packet_file.FULL_SCALE
    return out

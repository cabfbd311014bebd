"""A video as its decoded frames and audio: nothing is left to decode, and nothing is lost."""

from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from avnb.data.video_frames import EARLY_SECONDS, OnFrame

SUFFIX = ".frames.safetensors"


def write(
    path: Path, frames: list[np.ndarray], seconds: np.ndarray, audio: np.ndarray, hz: int
) -> None:
    """Write a file.

    Args:
        path: of the file.
        frames: [H, W, 3] uint8 each, in order.
        seconds: [N] when each begins.
        audio: [samples] from second 0 on; empty without audio.
        hz: its rate.
    """
    tensors = {"frames": np.stack(frames), "seconds": seconds, "audio": audio}
    path.write_bytes(save(tensors, {"hz": str(hz)}))


def read(
    path: Path,
    times: np.ndarray,
    on_frame: OnFrame,
    *,
    audio_starts: np.ndarray | None,
    samples: int,
    hz: int,
) -> np.ndarray | None:
    """As `decoding.read`, of a file of `write` with the same rate; only what is wanted is read.

    Raises:
        ValueError: when the audio has another rate.
    """
    with safe_open(path, "numpy") as file:
        if len(times):
            begins = file.get_tensor("seconds") - EARLY_SECONDS
            shown = np.maximum(np.searchsorted(begins, times, side="right") - 1, 0)
            first = int(shown.min())
            frames = file.get_slice("frames")[first : int(shown.max()) + 1]
            for i, number in enumerate(shown.tolist()):
                on_frame(i, frames[number - first])
        if audio_starts is None:
            return None
        stored = int(file.metadata()["hz"])
        if stored != hz:
            raise ValueError(f"{path} holds audio of {stored} Hz, and {hz} Hz are asked for")
        audio = file.get_tensor("audio")
    if not len(audio):
        return np.zeros((len(audio_starts), samples), np.float32)
    first_samples = np.minimum(np.round(audio_starts * hz).astype(int), len(audio) - 1)
    return audio[(first_samples[:, None] + np.arange(samples)) % len(audio)]

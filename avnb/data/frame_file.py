"""A video as its decoded frames and audio: nothing is left to decode, and nothing is lost."""

from pathlib import Path
from typing import Any

import numpy as np
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


def show(path: Path, file: Any, times: np.ndarray, on_frame: OnFrame) -> None:
    """Deliver the frame of each time from the open file."""
    begins = file.get_tensor("seconds") - EARLY_SECONDS
    shown = np.maximum(np.searchsorted(begins, times, side="right") - 1, 0)
    first = int(shown.min())
    frames = file.get_slice("frames")[first : int(shown.max()) + 1]
    for i, number in enumerate(shown.tolist()):
        on_frame(i, frames[number - first])

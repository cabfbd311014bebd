"""Checkpoints: written whole or not at all, resumed by default, refused when another run's."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avnb.config import Pretrain
from avnb.encoders import AudioEncoder, VideoEncoder
from avnb.methods import Method, build

FORMAT = 2


class CheckpointError(ValueError):
    """A checkpoint that does not fit, or is none."""


def save(path: Path, about: dict[str, Any], method: nn.Module, **rest: Any) -> None:
    """Write aside, flush to disk, rename: an interruption leaves the old file or the new one.

    `about` is what the run is: its plain values, the classes, the digest of the data.

    Raises:
        CheckpointError: when it cannot be written, as on a full disk; the old file stays.
    """
    partial = path.with_suffix(".partial")
    whole = {"format": FORMAT, "about": about, "method": method.state_dict(), **rest}
    try:
        with partial.open("wb") as file:
            torch.save(whole, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # the latter is what torch makes of a short write
        partial.unlink(missing_ok=True)
        before = "the one before it is kept" if path.exists() else "there is none before it"
        raise CheckpointError(f"{path} could not be written ({error}); {before}") from error


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU. No code in the file is run (`weights_only`).

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is not a checkpoint of this package.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path} is not a checkpoint, or is damaged: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        kind = sorted(found) if isinstance(found, dict) else type(found).__name__
        raise CheckpointError(f"{path} was not written by avnb (format {FORMAT}); it holds {kind}")
    return found


def differences(has: dict[str, Any], wants: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines that say in which values two runs differ."""
    lines = []
    for name in sorted(has.keys() | wants.keys()):
        old, new = has.get(name), wants.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            lines.append(f"  {prefix}{name}: it has {old!r}, this run has {new!r}")
    return lines


def check_same(path: Path, has: dict[str, Any], wants: dict[str, Any]) -> None:
    """Raise CheckpointError, with the differences, unless the same run wrote the file."""
    if lines := differences(has, wants):
        raise CheckpointError(
            "\n".join([f"{path} was written by another run.", *lines])
            + "\nGive this run its own folder, or delete that file to start again."
        )


def encoders(path: Path) -> tuple[VideoEncoder, AudioEncoder, dict[str, Any]]:
    """Both encoders, frozen in evaluation mode, and what the run was."""
    found = load(path)
    run = Pretrain.from_flat(**found["about"]["run"])
    about = found["about"]
    method: Method = build(run, about["videos"], len(about["classes"]))
    method.load_state_dict(found["method"])
    method.eval().requires_grad_(False)
    return method.video_encoder, method.audio_encoder, about

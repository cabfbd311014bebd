"""Checkpoints: written whole or not at all, resumed by default, refused when another run's.

Those that the thesis's author published can be read as well.
"""

import os
import pickle
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avnb.values import identity

FORMAT = 2


class CheckpointError(ValueError):
    """A checkpoint that does not fit, or is none."""


def save(path: Path, metadata: dict[str, Any], method: nn.Module, **rest: Any) -> None:
    """Write aside, flush to disk, rename: an interruption leaves the old file or the new one.

    `about` is what the run is: its plain values, the classes, the digest of the data.

    Raises:
        CheckpointError: when it cannot be written, as on a full disk; the old file stays.
    """
    partial = path.with_suffix(".partial")
    whole = {"format": FORMAT, "about": metadata, "method": method.state_dict(), **rest}
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


# What torch.load was seen to raise for files that are none of torch's, or damaged.
UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)


def read(path: Path) -> Any:
    """What torch.save wrote into a file, on the CPU. No code in it is run (`weights_only`).

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is a folder, not torch's, damaged, or holds more than data.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is not a checkpoint: it is a folder; name the file in it")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):  # torch's own words advise to run it
            why = f"it holds {code[1]}, which is code and was not run; only tensors, numbers, "
            why += "texts, lists and dictionaries of them are read"
        elif isinstance(error, RuntimeError):
            why = str(error).partition("\n")[0]
        else:
            why = f"torch cannot read it ({type(error).__name__})"
        raise CheckpointError(f"{path} is not a checkpoint, or is damaged: {why}") from error


def some(names: Iterable[Any], most: int = 6) -> str:
    """The first few names, and how many more there are."""
    every = [str(name) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return f"{every[:most]}{more}"


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is not a checkpoint of this package.
    """
    return written_by_us(path, read(path))


def written_by_us(path: Path, found: Any) -> dict[str, Any]:
    """The content of a file of `save`, or CheckpointError."""
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        kind = some(found) if isinstance(found, dict) else type(found).__name__
        raise CheckpointError(f"{path} was not written by avnb (format {FORMAT}); it holds {kind}")
    return found


def differences(has: dict[Any, Any], wants: dict[Any, Any], prefix: str = "") -> list[str]:
    """Lines that say in which values two runs differ, inside lists as well."""
    lines = []
    for name in sorted(has.keys() | wants.keys()):
        old, new = (
            dict(enumerate(value)) if isinstance(value, list | tuple) else value
            for value in (has.get(name), wants.get(name))
        )
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            lines.append(f"  {prefix}{name}: it has {old!r}, this run has {new!r}")
    return lines


def check_same(path: Path, has: dict[str, Any], wants: dict[str, Any]) -> None:
    """Raise CheckpointError, with the differences, unless the same run wrote the file."""
    if lines := differences(identity(has), identity(wants)):
        more = [f"  and {len(lines) - 8} other values"] if len(lines) > 8 else []
        raise CheckpointError(
            "\n".join([f"{path} was written by another run.", *lines[:8], *more])
            + "\nGive this run its own folder, or delete that file to start again."
        )

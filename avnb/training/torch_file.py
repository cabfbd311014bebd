"""Files of torch.save: written whole or not at all, and read without running any code in them."""

import pickle
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from avnb.files import replacing

# What torch.load was seen to raise for files that are not torch's, or damaged.
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


class CheckpointError(ValueError):
    """A checkpoint that does not fit, or a file that is none."""


def write(path: Path, content: dict[str, Any]) -> None:
    """Write aside, flush to disk, rename: an interruption leaves the old file or the new one.

    Raises:
        CheckpointError: when it cannot be written, as on a full disk; the old file is kept.
    """
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # the latter is what torch makes of a short write
        before = "the previous one is kept" if path.exists() else "there is no previous one"
        raise CheckpointError(f"{path} could not be written ({error}); {before}") from error


def read(path: Path, *, mapped: bool = False) -> Any:
    """The content of a file of torch.save, on the CPU. No code in it is run (`weights_only`).

    Args:
        path: the file.
        mapped: leave tensors on disk until they are used.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is a folder, not torch's, damaged, or holds more than data.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is not a checkpoint: it is a folder; name the file in it")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UNREADABLE as error:
        if mapped and path.exists():  # the former file format of torch cannot be mapped
            return read(path)
        raise CheckpointError(
            f"{path} is not a checkpoint, or is damaged: {why_unreadable(error)}"
        ) from error


def why_unreadable(error: Exception) -> str:
    """The reason in our words; torch's own would advise to run what the file holds."""
    if code := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"it holds {code[1]}, which is code and was not run; only tensors, numbers, texts, "
            "lists and dictionaries of them are read"
        )
    if isinstance(error, RuntimeError):
        return str(error).partition("\n")[0]
    return f"torch cannot read it ({type(error).__name__})"


def shortened(names: Iterable[Any], most: int = 6) -> str:
    """The first few names, and how many more there are."""
    every = [str(name) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return f"{every[:most]}{more}"

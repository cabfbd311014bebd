"""Files of torch.save: written whole or not at all, and read without running any code in them."""

import pickle
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
    if path.exists() and not path.is_file():  # a named pipe would be waited for
        raise CheckpointError(f"{path} is not a checkpoint: it is no regular file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except UNREADABLE as error:
        if mapped and path.exists():  # the former file format of torch cannot be mapped
            return read(path)
        raise CheckpointError(
            f"{path} is not a checkpoint, or is damaged: {why_unreadable(error)}"
        ) from error


def check_tensors(path: Path, found: Any, expected: Mapping[str, Tensor]) -> None:
    """See that a file's tensors are those of a network, before they are copied into it.

    Args:
        path: of the file.
        found: what it holds, by name.
        expected: the network's state; tensors on the device `meta` are enough.

    Raises:
        CheckpointError: for tensors that are missing, unknown, of another shape or kind, or not
            finite; it names the first few of each.
    """
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__} where its tensors should be")
    problems: dict[str, list[str]] = {
        "are missing": [name for name in expected if name not in found],
        "are unknown": [str(name) for name in found if name not in expected],
        "do not fit": [],
        "are not finite": [],
    }
    for name in sorted(expected.keys() & found.keys()):
        if wrong := misfit(found[name], expected[name]):
            problems["do not fit"].append(f"{name} ({wrong})")
        elif found[name].is_floating_point() and not found[name].isfinite().all():
            problems["are not finite"].append(name)
    found_some = {what: names for what, names in problems.items() if names}
    lines = [f"  {len(names)} {what}: {shortened(names)}" for what, names in found_some.items()]
    if lines:
        raise CheckpointError("\n".join([f"{path} does not hold the tensors of this run:", *lines]))


def misfit(value: Any, like: Tensor) -> str:
    """Why a value cannot take a tensor's place; '' when it can."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if value.layout != torch.strided:
        return f"{value.layout}, not dense"
    if value.shape != like.shape:
        return f"{tuple(value.shape)}, expected {tuple(like.shape)}"
    if value.is_floating_point() != like.is_floating_point():
        return f"{value.dtype}, expected {like.dtype}"
    return ""


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

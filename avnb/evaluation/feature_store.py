"""Arrays on disk that are filled row by row and read back without being loaded.

A folder holds one .npy file per tensor, of full size from the start; `done.txt` counts the rows
that are safely on disk, and `made.json` is written when none is missing.
"""

import json
import os
import shutil
import time
import warnings
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from avnb.files import write_text

SAVE_EVERY_SECONDS = 10.0  # the work that a killed process loses at most


def whole(folder: Path | str) -> bool:
    """Whether every row of the folder's tensors has been written, and nothing was cut since."""
    mark = Path(folder) / "made.json"
    try:
        sizes = json.loads(mark.read_text())["bytes"]
        return all((mark.parent / name).stat().st_size == size for name, size in sizes.items())
    except (FileNotFoundError, AttributeError, KeyError, TypeError, ValueError):
        return False


def mapped(path: Path | str) -> Tensor:
    """The tensor of a .npy file, memory-mapped and read-only: writing to it ends the process."""
    array = np.load(path, mmap_mode="r")  # copy-on-write would count against the memory limit
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


class FeatureWriter:
    """Writes float32 tensors into a folder of their own, a block of rows at a time.

    An interrupted writer resumes at a multiple of `block` rows, to the same bytes as without the
    interruption. `shapes` are those of one row, by name. OSError when the disk has no room.
    """

    def __init__(
        self, folder: Path | str, rows: int, shapes: Mapping[str, tuple[int, ...]], block: int
    ):
        self.folder, self.rows, self.saved_at = Path(folder), rows, time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        count = self.folder / "done.txt"
        full = {self.folder / f"{name}.npy": (rows, *shape) for name, shape in shapes.items()}
        intact = all(p.exists() and p.stat().st_size > 4 * prod(s) for p, s in full.items())
        self.done = int(count.read_text()) // block * block if intact and count.exists() else 0
        if not self.done:
            write_text(count, "0")  # before the files are emptied: their rows count no more
        check_room(self.folder, full)
        mode = "r+" if self.done else "w+"
        self.arrays = {p.stem: open_memmap(p, mode, np.float32, shape) for p, shape in full.items()}
        for path in full if hasattr(os, "posix_fallocate") else ():
            with path.open("r+b") as file:  # no sparse map: on a full disk it ends the process
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

    def add(self, rows: Mapping[str, Tensor]) -> None:
        """Append a block of rows to every tensor."""
        count = {name: len(block) for name, block in rows.items()}
        if rows.keys() != self.arrays.keys() or len(set(count.values())) != 1:
            raise ValueError(f"rows of {list(self.arrays)} are to be added together, got {count}")
        end = self.done + next(iter(count.values()))
        for name, array in self.arrays.items():
            array[self.done : end] = rows[name].numpy()
        self.done = end
        if time.monotonic() - self.saved_at >= SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        """Flush all rows to the disk, so that they survive a loss of power, and count them."""
        for name, array in self.arrays.items():
            array.flush()
            with (self.folder / f"{name}.npy").open("rb") as file:
                os.fsync(file.fileno())
        write_text(self.folder / "done.txt", str(self.done))
        self.saved_at = time.monotonic()

    def finish(self, metadata: Mapping[str, Any], **small: Tensor) -> None:
        """After the last row: write small tensors beside the others, then the final mark."""
        if self.done != self.rows:
            raise ValueError(f"{self.folder} has {self.done} of {self.rows} rows")
        for name, tensor in small.items():
            np.save(self.folder / f"{name}.npy", tensor.numpy())
        sizes = {path.name: path.stat().st_size for path in sorted(self.folder.glob("*.npy"))}
        mark = {**metadata, "bytes": sizes}
        write_text(self.folder / "made.json", json.dumps(mark, indent=1, default=vars))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if not isinstance(error, OSError):  # a failing disk would only fail again
                self.save()
        finally:
            self.arrays.clear()  # unmaps the files


def check_room(folder: Path, shapes: Mapping[Path, tuple[int, ...]]) -> None:
    """Raise OSError when the disk cannot take what the files do not occupy yet."""
    occupied = {p: 512 * p.stat().st_blocks if p.exists() else 0 for p in shapes}
    missing = sum(max(0, 4 * prod(shape) - occupied[path]) for path, shape in shapes.items())
    if missing > (free := shutil.disk_usage(folder).free):
        raise OSError(
            f"{folder}: {missing / 1e9:.1f} GB are still to be written and {free / 1e9:.1f} GB are "
            "free; make room, set AVNB_BUILD to a folder on a larger disk, or take fewer clips "
            "of each video"
        )

"""Tensors on disk that grow row by row and are read back without being loaded.

A folder holds one .npy file a tensor. Its header announces all rows from the start; `done.txt`
counts those that are safely on disk, and `made.json` appears when none is missing.
"""

import json
import os
import shutil
import time
import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from avnb.files import write_aside

KEEP_EVERY_SECONDS = 10.0  # what a killed process loses at most


def whole(folder: Path) -> bool:
    """Whether every row of the folder's tensors is there."""
    return (folder / "made.json").exists()


def mapped(path: Path) -> Tensor:
    """The tensor of a .npy file, left on disk: memory holds what is looked at.

    Read only: writing to it ends the process. A private copy on write would be counted as memory
    that the process may need, and refused where the file is larger than that.
    """
    array = np.load(path, mmap_mode="r")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


class FeatureWriter:
    """Writes float32 tensors [rows, ...] into `folder`, a block of rows at a time.

    Rows that an interrupted writer left behind its last count are written again. The count is
    always a multiple of `block` rows, so the blocks of a resumed writer are those of one that
    was never interrupted.

    Args:
        folder: of these tensors alone; made when it is not there.
        rows: of every tensor.
        shapes: of one row of each tensor, by name.
        block: rows that are added at a time; fewer come at the end only.

    Raises:
        OSError: when the disk has no room for all rows.
    """

    def __init__(self, folder: Path, rows: int, shapes: Mapping[str, tuple[int, ...]], block: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rows, self.kept = folder, rows, time.monotonic()
        self.done = noted(folder)
        self.done -= self.done % block
        form = {name: (rows, *shape) for name, shape in shapes.items()}
        if any(whole_rows(folder / f"{name}.npy", s) < self.done for name, s in form.items()):
            self.done = 0  # somebody took a file away
        check_room(folder, sum(4 * int(np.prod(s)) for s in form.values()), self.done / rows)
        self.files = {name: self.opened(name, shape) for name, shape in form.items()}

    def opened(self, name: str, shape: tuple[int, ...]) -> Any:
        """The file of a tensor, ready for the row `done`."""
        file = (self.folder / f"{name}.npy").open("r+b" if self.done else "w+b")
        file.write(header(shape))
        file.truncate(file.tell() + self.done * row_bytes(shape))
        file.seek(0, os.SEEK_END)
        return file

    def add(self, rows: Mapping[str, Tensor]) -> None:
        """Append a block of rows to every tensor."""
        count = {name: len(new) for name, new in rows.items()}
        if rows.keys() != self.files.keys() or len(set(count.values())) != 1:
            raise ValueError(f"rows of {list(self.files)} are to be added together, got {count}")
        for name, file in self.files.items():
            file.write(np.ascontiguousarray(rows[name].numpy(), dtype="<f4").data)
        self.done += next(iter(count.values()))
        if time.monotonic() - self.kept >= KEEP_EVERY_SECONDS:
            self.keep()

    def keep(self) -> None:
        """See to it that what was added survives even a loss of power, and count it."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        write_aside(self.folder / "done.txt", str(self.done))
        self.kept = time.monotonic()

    def finish(self, metadata: Mapping[str, Any], **small: Tensor) -> None:
        """Once closed: write small tensors as they are, and the mark that all is there, `about`."""
        if self.done != self.rows:
            raise ValueError(f"{self.folder} has {self.done} of {self.rows} rows")
        for name, tensor in small.items():
            np.save(self.folder / f"{name}.npy", tensor.numpy())
        write_aside(self.folder / "made.json", json.dumps(metadata, indent=1, default=vars))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if not isinstance(error, OSError):  # a full disk would only complain again
                self.keep()
        finally:
            for file in self.files.values():
                file.close()


def noted(folder: Path) -> int:
    """Rows that are safely there."""
    note = folder / "done.txt"
    return int(note.read_text()) if note.exists() else 0


def row_bytes(shape: tuple[int, ...]) -> int:
    """Of one row of float32."""
    return 4 * int(np.prod(shape[1:]))


def header(shape: tuple[int, ...]) -> bytes:
    """What a .npy file of float32 begins with (NEP 1, version 1.0)."""
    start = BytesIO()
    form = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(start, form)
    return start.getvalue()


def whole_rows(path: Path, shape: tuple[int, ...]) -> int:
    """How many rows of `shape` the file can hold at its size."""
    if not path.exists():
        return 0
    size = row_bytes(shape)
    return (path.stat().st_size - len(header(shape))) // size if size else shape[0]


def check_room(folder: Path, total: int, done: float) -> None:
    """Raise OSError when the disk cannot take what is left of `total` bytes."""
    left, free = round(total * (1 - done)), shutil.disk_usage(folder).free
    if left > free:
        raise OSError(
            f"{folder}: {left / 1e9:.1f} GB are still to be written and {free / 1e9:.1f} GB are "
            "free; make room, set AVNB_BUILD to a folder on a larger disk, or take fewer clips "
            "of each video"
        )

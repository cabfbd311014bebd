"""Rows of the bench: what was measured, on which machine; kept as JSON lines, shown as a table."""

import json
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import av
import torch

from avnb.files import appending, json_lines
from avnb.profiles import cores

COLUMNS = ("stage", "what", "way", "ms", "against", "ms ", "ratio [quartiles]", "limit")
GIT = ("git", "rev-parse", "--short", "HEAD")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: a way to do something, against another way or a limit.

    `values` are a comparison's (`Timings.row`) or the stage's own, with their units in the names.
    """

    stage: str
    what: str  # is done: the kind of file, the shape
    values: dict[str, Any]
    limit: str = ""  # what bounds it, where that is known
    limit_ms: float | None = None
    note: str = ""  # why there is no value, for example

    def flat(self) -> dict[str, Any]:
        """All of it under flat names."""
        row = asdict(self)
        return row.pop("values") | row

    def cells(self) -> tuple[str, ...]:
        """Its cells in the order of `COLUMNS`."""
        v, limit = self.values, self.limit
        if self.limit_ms is not None:
            limit = f"{self.limit_ms:.3g} ms: {limit}"
        times = [f"{v[name]:.3g}" if name in v else "" for name in ("ms", "against_ms")]
        ratio = ""
        if "ratio" in v:
            ratio = f"{v['ratio']:.2f} [{v['ratio_low']:.2f}, {v['ratio_high']:.2f}]"
        known = {"way", "against", "ms", "against_ms", "wall_ms", "rounds"}
        known |= {"ratio", "ratio_low", "ratio_high"}
        others = [f"{k} {short(x)}" for k, x in v.items() if k not in known]
        notes = "; ".join(filter(None, [*others, limit, self.note]))
        way, against = v.get("way", ""), v.get("against", "")
        return self.stage, self.what, way, times[0], against, times[1], ratio, notes


def short(value: object) -> str:
    """A value of a row in few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@cache
def machine() -> dict[str, Any]:
    """Processor, cores, GPU, versions and commit: what a row's numbers depend on."""
    text, model = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    if text.exists():
        lines = [x for x in text.read_text().splitlines() if x.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    try:
        here = Path(__file__).parent
        git = subprocess.run(GIT, cwd=here, capture_output=True, text=True, check=False)
        commit = git.stdout.strip()
    except FileNotFoundError:  # git is not installed
        commit = ""
    return {
        "cpu": model,
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "torch": torch.__version__,
        "av": av.__version__,
        "ffmpeg": av.ffmpeg_version_info,
        "commit": commit,
    }


def append(path: Path, rows: Iterable[Row]) -> list[Row]:
    """Add each row to a file as it comes, with the machine and the time; return them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = []
    with appending(path) as add:
        for row in rows:
            date = datetime.now(UTC).isoformat(timespec="seconds")
            add(json.dumps({**row.flat(), "machine": machine(), "date": date}))
            done.append(row)
    return done


def table(rows: Iterable[Row]) -> str:
    """The rows as aligned text."""
    lines = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
    ]
    return "\n".join(line.rstrip() for line in padded)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, as flat dicts; of rows on the same thing the latest.

    Raises:
        FileNotFoundError: when there is no such file; `avnb bench` writes it.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; `avnb bench --out {path}` writes it")
    latest: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in json_lines(path):
        latest[tuple(str(row.get(k, "")) for k in ("stage", "what", "way", "against"))] = row
    return list(latest.values())

"""Results are rows: every number of the book is one, the published numbers too.

A row says what was measured (`task`, `metric`, `level`), of what (`method`, `dataset`, `split`),
the value with its 95 % interval and n, and where it comes from (`source`, `run`, `seed`,
`profile`). Accuracies are percent.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Array = np.ndarray[Any, Any]
IDENTITY = [
    "task", "metric", "level", "method", "dataset", "split", "seed", "profile", "run", "data",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number."""

    task: str  # probe, retrieval, ...
    metric: str  # top1, top5, R@1, ...
    value: float
    method: str
    dataset: str
    level: str = ""  # clip, video; for retrieval query->gallery: v->v, ...
    split: str = "test"
    low: float | None = None  # of the 95 % interval
    high: float | None = None
    n: int | None = None  # videos measured on
    chance: float | None = None  # what guessing gives
    seed: int | None = None
    profile: str = ""
    run: str = ""  # id of the run whose checkpoint was measured
    data: str = ""  # `synthetic` or `real`, and the digest of the videos measured on
    source: str = "this book"
    where: str = ""  # table of the source


def append(path: Path, rows: Iterable[Row]) -> None:
    """Add rows to a JSONL file; a row measured again replaces the older one when read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table, the last one of each identity."""
    table = pd.DataFrame(list(rows), columns=[f.name for f in fields(Row)])
    return table.drop_duplicates(IDENTITY, keep="last", ignore_index=True)


def read(path: Path) -> pd.DataFrame:
    """The rows of a file; an empty table when there is none yet.

    Raises:
        ValueError: names the line that is not a row.
    """
    rows = []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        try:
            rows.append(asdict(Row(**json.loads(line))))
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"{path}, line {number} is not a result row: {error}") from error
    return frame(rows)


def select(rows: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """The rows whose columns have these values, or one of these where a list is given.

    Raises:
        ValueError: when no row is left; it names what was asked for.
    """
    kept = rows
    for name, value in wanted.items():
        kept = kept[kept[name].isin(value if isinstance(value, list) else [value])]
    if kept.empty:
        raise ValueError(f"no result row has {wanted}")
    return kept


def published() -> pd.DataFrame:
    """The thesis's own numbers, each with the table it stands in."""
    text = resources.files("avnb").joinpath("published.jsonl").read_text()
    return frame(asdict(Row(**json.loads(line))) for line in text.splitlines())


def interval(
    scores: Array, *, resamples: int, seed: int, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of per-video scores [V] and its bootstrap interval, resampling videos.

    Percentile bootstrap (Efron 1979). Scores in [0, 1] or any other unit; the same comes back.
    """
    rng, total = np.random.default_rng(seed), len(scores)
    drawn = rng.integers(0, total, (resamples, total))
    means = np.asarray(scores, float)[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(np.mean(scores)), float(low), float(high)


def percent_row(scores: Array, *, resamples: int, seed: int, **rest: Any) -> Row:
    """A row of per-video scores [V] in [0, 1], in percent with its interval."""
    value, low, high = (100 * x for x in interval(scores, resamples=resamples, seed=seed))
    return Row(value=value, low=low, high=high, n=len(scores), seed=seed, **rest)

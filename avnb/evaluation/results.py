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
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

IDENTITY = [
    "task",
    "metric",
    "level",
    "method",
    "dataset",
    "split",
    "seed",
    "profile",
    "run",
    "data",
    "protocol",
]


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
    protocol: str = ""  # how a probe saw its training clips: cached, released
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


def best(rows: pd.DataFrame, **where: str) -> str:
    """The method with the highest value among the rows that fit, but `random` if it can be helped.

    Raises:
        ValueError: when no row fits.
    """
    some = select(rows, **where)
    trained = some[some["method"] != "random"]
    ranked = (some if trained.empty else trained).sort_values("value", kind="stable")
    return str(ranked["method"].iloc[-1])


def published() -> pd.DataFrame:
    """The thesis's own numbers, each with the table it stands in."""
    text = resources.files("avnb.evaluation").joinpath("published.jsonl").read_text()
    return frame(asdict(Row(**json.loads(line))) for line in text.splitlines())


def interval(
    scores: np.ndarray, *, bootstrap_resamples: int, seed: int, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of per-video scores [V] in [0, 1] and its interval, from the variation over videos.

    Videos that are only right or wrong give Wilson's interval (Wilson 1927), which says something
    even where all are right; shares of clips the percentile bootstrap over videos (Efron 1979).

    Raises:
        ValueError: when there is no score.
    """
    scores = np.asarray(scores, float)
    if not len(scores):
        raise ValueError("an interval needs the score of at least one video")
    mean = float(scores.mean())
    if np.isin(scores, (0, 1)).all():
        return mean, *wilson(mean, len(scores), level)
    rng, total = np.random.default_rng(seed), len(scores)
    together = max(
        1, 2**16 // total
    )  # of the bootstrap_resamples: what the processor's cache holds
    sizes = [
        min(together, bootstrap_resamples - done)
        for done in range(0, bootstrap_resamples, together)
    ]
    means = np.concatenate(
        [scores[rng.integers(0, total, (size, total))].mean(axis=1) for size in sizes]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return mean, float(low), float(high)


def wilson(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Ends of Wilson's score interval of a share of n.

    With z the normal quantile of (1 + level) / 2: (p + z^2 / 2n -+ z sqrt(p (1 - p) / n +
    z^2 / 4n^2)) / (1 + z^2 / n). Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = share + z**2 / (2 * n)
    reach = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((middle + side * reach) / (1 + z**2 / n) for side in (-1, 1))
    return max(0.0, float(low)), min(1.0, float(high))


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for all seeds of what is otherwise the same: `seeds` of them, `spread` apart.

    The value is their mean and `spread` their standard deviation, nan for one seed. The ends of
    the interval are means too: seeds share the test videos, so it is, if anything, too wide.
    """
    same = [name for name in rows.columns if name not in ("value", "low", "high", "seed")]
    groups = rows.groupby(same, sort=False, dropna=False)
    table = groups.agg(
        value=("value", "mean"),
        spread=("value", "std"),
        seeds=("value", "size"),
        low=("low", "mean"),
        high=("high", "mean"),
        seed=("seed", "min"),
    )
    return table.reset_index()


def percent_row(scores: np.ndarray, *, bootstrap_resamples: int, seed: int, **rest: Any) -> Row:
    """A row of per-video scores [V] in [0, 1], in percent with its interval."""
    value, low, high = (
        100 * x for x in interval(scores, bootstrap_resamples=bootstrap_resamples, seed=seed)
    )
    return Row(value=value, low=low, high=high, n=len(scores), seed=seed, **rest)

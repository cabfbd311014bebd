"""Results are rows: every number of the book is one, the published numbers included.

A row says what was measured (`task`, `metric`, `level`), of what (`method`, `dataset`, `split`),
the value with its 95 % interval and n, and where it comes from (`source`, `run`, `seed`,
`profile`). Accuracies are in percent.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

import avnb
from avnb.config import Evaluation
from avnb.files import appending


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number."""

    task: str  # probe, retrieval, ...
    metric: str  # top1, top5, R@1, ...
    value: float
    method: str
    dataset: str
    level: str = ""  # clip, video; for retrieval query->gallery: v->v, ...
    space: str = ""  # for retrieval: where videos are compared, and by which distance
    split: str = "test"
    low: float | None = None  # of the 95 % interval
    high: float | None = None
    n: int | None = None  # number of test videos
    chance: float | None = None  # value of a random guess
    seed: int | None = None
    profile: str = ""
    run: str = ""  # id of the run whose checkpoint was measured
    data: str = ""  # `synthetic` or `real`, and the digest of the test videos
    protocol: str = ""  # of the evaluation: thesis, author, or either with changes
    source: str = "this book"
    where: str = ""  # table of the source
    time: str = ""  # when it was written, UTC
    version: str = ""  # of this package


COLUMNS = [f.name for f in fields(Row)]
STAMPS = ["time", "version"]
MEASURED = ["value", "low", "high", "n", "chance", "source", "where", *STAMPS]
IDENTITY = [name for name in COLUMNS if name not in MEASURED]
CONTENT = [name for name in COLUMNS if name not in STAMPS]


def append(path: Path | str, rows: Iterable[Row]) -> None:
    """Add rows to a JSONL file with the time and the version of the package.

    On reading, the last row of an identity replaces earlier ones; a row that would say again what
    that one says is left out.
    """
    last = {part_of(row, IDENTITY): part_of(row, CONTENT) for row in read_rows(Path(path))}
    with appending(Path(path)) as add:
        for row in map(asdict, stamped(rows)):
            if last.get(part_of(row, IDENTITY)) != part_of(row, CONTENT):
                add(json.dumps(row))
                last[part_of(row, IDENTITY)] = part_of(row, CONTENT)


def stamped(rows: Iterable[Row]) -> list[Row]:
    """The rows with the time and the version of the package, where they have none."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return [row if row.time else replace(row, time=now, version=avnb.__version__) for row in rows]


def part_of(row: Mapping[str, Any], names: Iterable[str]) -> tuple[Any, ...]:
    """Some of a row's fields."""
    return tuple(row[name] for name in names)


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table, the last one of each identity."""
    table = pd.DataFrame(list(rows), columns=COLUMNS).astype({"low": float, "high": float})
    return table.drop_duplicates(IDENTITY, keep="last", ignore_index=True)


def record(path: Path | str, rows: Iterable[Row]) -> pd.DataFrame:
    """Append rows to a JSONL file, and return these rows as a table."""
    rows = stamped(rows)
    append(path, rows)
    return frame(vars(row) for row in rows)


def read(path: Path | str) -> pd.DataFrame:
    """The rows of a JSONL file; an empty table when there is no such file.

    Raises:
        ValueError: names the line that is not a row.
    """
    return frame(read_rows(Path(path)))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of `read` in their order; a last line that a kill has torn is left out."""
    rows, text = [], path.read_bytes() if path.exists() else b""
    whole = text[: text.rfind(b"\n") + 1].decode(errors="replace")
    for number, line in enumerate(whole.split("\n")[:-1], 1):
        try:
            rows.append(vars(Row(**json.loads(line))))
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"{path}, line {number} is not a result row: {error}") from error
    return rows


def published() -> pd.DataFrame:
    """The numbers of the thesis, each with the table or figure that it stands in."""
    return read(str(resources.files("avnb.evaluation") / "published.jsonl"))


def literature() -> pd.DataFrame:
    """The other works in the thesis's Table 2.1: fine-tuned top-1 accuracy in percent."""
    with (resources.files("avnb.evaluation") / "literature.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def select(rows: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows whose columns have these values, or one of these where a list is given.

    Raises:
        ValueError: when no row is left; it names what was asked for.
    """
    selected = rows
    for name, value in values.items():
        selected = selected[selected[name].isin(value if isinstance(value, list) else [value])]
    if selected.empty:
        raise ValueError(f"no result row has {values}")
    return selected


def best(rows: pd.DataFrame, **values: str) -> str:
    """The method with the highest value among the selected rows; `random` only if it is alone.

    Raises:
        ValueError: when no row has these values.
    """
    selected = select(rows, **values)
    trained = selected[selected["method"] != "random"]
    ranking = (selected if trained.empty else trained).sort_values("value", kind="stable")
    return str(ranking["method"].iloc[-1])


def verdict(rows: pd.DataFrame, against: str = "random") -> pd.DataFrame:
    """The rows with a column `verdict`: is the value apart from that of the method `against`?

    `above` when the whole interval lies above the other's, `below` when it lies below, `undecided`
    when they overlap or one has none. Compared are rows that are about the same but for method and
    run; '' where `against` has no such row, and for `against` itself.
    """
    same = [n for n in [*IDENTITY, "source"] if n in rows and n not in ("method", "run")]
    others = rows.loc[rows["method"] == against, [*same, "low", "high"]].drop_duplicates(same)
    both = rows.merge(others, "left", on=same, suffixes=("", "_other"), indicator=True)
    compared = (both["_merge"] == "both") & (both["method"] != against)
    above, below = both["low"] > both["high_other"], both["high"] < both["low_other"]
    column = np.select([~compared, above, below], ["", "above", "below"], "undecided")
    return rows.assign(verdict=column)


def interval(
    scores: np.ndarray, *, bootstrap_resamples: int, seed: int, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of per-video scores [V] in [0, 1] and its confidence interval over test videos.

    Scores that are all 0 or 1 get Wilson's interval (1927, doi:10.1080/01621459.1927.10502953),
    which is informative even when all are right; shares of clips the percentile bootstrap over
    videos (Efron 1979).

    Raises:
        ValueError: when there is no score.
    """
    from scipy.stats import binomtest  # takes a second to import

    scores = np.asarray(scores, float)
    if not (total := len(scores)):
        raise ValueError("an interval needs the score of at least one video")
    mean = float(scores.mean())
    if np.isin(scores, (0, 1)).all():
        ends = binomtest(int(scores.sum()), total).proportion_ci(level, method="wilson")
        return mean, float(ends.low), float(ends.high)
    rng = np.random.default_rng(seed)
    block = max(1, 2**16 // total)  # resamples at a time: what the processor's cache holds
    starts = range(0, bootstrap_resamples, block)
    sizes = [(min(block, bootstrap_resamples - start), total) for start in starts]
    means = np.concatenate([scores[rng.integers(0, total, size)].mean(axis=1) for size in sizes])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return mean, float(low), float(high)


def percent_row(scores: np.ndarray, config: Evaluation, **metadata: Any) -> Row:
    """A row of per-video scores [V] in [0, 1], in percent with its interval."""
    resampling = {"bootstrap_resamples": config.bootstrap_resamples, "seed": config.seed}
    value, low, high = (100 * share for share in interval(scores, **resampling))
    return Row(value=value, low=low, high=high, n=len(scores), seed=config.seed, **metadata)


def over_seeds(rows: pd.DataFrame, *, student: bool = False) -> pd.DataFrame:
    """One row for all seeds of the same measurement: mean `value`, `spread`, number of `seeds`.

    `spread` is the standard deviation over seeds, nan for one seed. Interval ends are averaged;
    seeds share the test videos, so the interval is, if anything, too wide. With `student` each
    end is the farther of this and of Student's 95 % interval of the mean over seeds.
    """
    apart = ("value", "low", "high", "seed", *STAMPS)
    same = [name for name in rows.columns if name not in apart]
    groups = rows.groupby(same, sort=False, dropna=False)
    table = groups[["value", "low", "high"]].mean()
    table = table.assign(spread=groups["value"].std(), seeds=groups.size())
    table = table.assign(seed=groups["seed"].min()).reset_index()
    if student:
        error = table["spread"] / table["seeds"] ** 0.5
        half = (special.stdtrit(table["seeds"] - 1, 0.975) * error).fillna(0)
        table["low"] = np.minimum(table["value"] - half, table["low"])
        table["high"] = np.maximum(table["value"] + half, table["high"])
    return table

"""Results are rows: every number of the book is one, the published numbers included.

Accuracies are in percent, intervals at 95 %.
"""

import functools
import json
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

import avnb
from avnb.config import Evaluation
from avnb.files import appending, json_lines


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
    commit: str = ""  # of the code, with + where files differ from it
    outcomes: str = ""  # of scores that are 0 or 1: bits in the order of the videos, as hex digits


COLUMNS = [f.name for f in fields(Row)]
STAMPS = ["time", "version", "commit"]
MEASURED = ["value", "low", "high", "n", "chance", "outcomes", "source", "where", *STAMPS]
IDENTITY = [name for name in COLUMNS if name not in MEASURED]


@functools.cache
def commit(folder: Path = Path(avnb.__file__).parents[1]) -> str:
    """The short git commit of a folder, with + where files were changed; '' outside a checkout."""
    git = ["git", f"--git-dir={folder / '.git'}", f"--work-tree={folder}", "describe", "--always"]
    try:
        command = [*git, "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table, the last one of each identity."""
    table = pd.DataFrame(list(rows), columns=COLUMNS).astype({"low": float, "high": float})
    return table.drop_duplicates(IDENTITY, keep="last", ignore_index=True)


def record(path: Path | str, rows: Iterable[Row]) -> pd.DataFrame:
    """Append rows to a JSONL file with the stamps, and return these rows as a table.

    A row that says what the last one of its identity says is not written again.
    """
    stamps = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit()}
    stamps["version"] = avnb.__version__
    stamped = [asdict(row) | stamps for row in rows]
    last = {tuple(row[name] for name in IDENTITY): row for row in read_rows(path)}
    with appending(Path(path)) as add:
        for row in stamped:
            identity = tuple(row[name] for name in IDENTITY)
            if last.get(identity, {}) | stamps != row:
                add(json.dumps(row))
                last[identity] = row
    return frame(stamped)


def read_rows(path: Path | str) -> list[dict[str, Any]]:
    """Every line as a row, repeated ones included."""
    try:
        return [vars(Row(**row)) for row in json_lines(Path(path))]
    except TypeError as error:
        raise ValueError(f"{path} holds a line that is not a result row: {error}") from error


def read(path: Path | str) -> pd.DataFrame:
    """The rows of a JSONL file, none without one; ValueError when a line is not a row."""
    return frame(read_rows(path))


def published() -> pd.DataFrame:
    """The numbers of the thesis, each with the table or figure that it stands in."""
    return read(Path(__file__).with_name("published.jsonl"))


REPORTED = range(6, 100)  # seeds of worlds; values were chosen in others


def studies(path: Path | str = "") -> pd.DataFrame:
    """The rows of the studies that come with the package, or those of another file."""
    return read(path or Path(__file__).with_name("studies.jsonl"))


def select(rows: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows whose columns have these values, or one of a list; ValueError when none is left."""
    for name, value in values.items():
        rows = rows[rows[name].isin(value if isinstance(value, list) else [value])]
    if rows.empty:
        raise ValueError(f"no result row has {values}")
    return rows


def interval(scores: np.ndarray, config: Evaluation) -> tuple[float, float, float]:
    """Mean of per-video scores [V] in [0, 1] and its 95 % confidence interval over test videos.

    Scores that are all 0 or 1 get Wilson's interval (1927, doi:10.1080/01621459.1927.10502953),
    which is informative even when all are right; shares of clips the percentile bootstrap over
    videos (Efron 1979). ValueError when there is no score.
    """
    from scipy.stats import binomtest  # takes a second to import

    if not len(scores):
        raise ValueError("an interval needs the score of at least one video")
    if np.isin(scores, (0, 1)).all():
        ends = binomtest(int(scores.sum()), len(scores)).proportion_ci(method="wilson")
    else:
        ends = bootstrap(scores, np.mean, config)
    return float(scores.mean()), float(ends[0]), float(ends[1])


def bootstrap(
    scores: np.ndarray, statistic: Callable[..., np.ndarray], config: Evaluation
) -> np.ndarray:
    """Ends of the 95 % interval of a statistic of scores [V], by resampling them."""
    size = config.bootstrap_resamples, len(scores)
    drawn = np.random.default_rng(config.seed).integers(0, len(scores), size)
    return np.quantile(statistic(scores[drawn], axis=1), [0.025, 0.975])


def percent_row(scores: np.ndarray, config: Evaluation, **metadata: Any) -> Row:
    """A row of per-video scores [V] in [0, 1], in percent with its interval."""
    value, low, high = (100 * share for share in interval(scores, config))
    if np.isin(scores, (0, 1)).all():
        metadata |= {"outcomes": np.packbits(scores.astype(bool)).tobytes().hex()}
    return Row(value=value, low=low, high=high, n=len(scores), seed=config.seed, **metadata)


def outcomes(row: Mapping[Any, Any] | pd.Series) -> np.ndarray:
    """[n] bool: what each test video of a row came to; ValueError for a row without `outcomes`."""
    if not row["outcomes"]:
        raise ValueError("the row has no outcomes: its scores were not all 0 or 1")
    packed = np.frombuffer(bytes.fromhex(row["outcomes"]), np.uint8)
    return np.unpackbits(packed, count=int(row["n"])).astype(bool)


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for all seeds of the same measurement: the mean, and its 95 % interval.

    Each end is the farther of the mean over seeds, which share the test videos, and of Student's
    interval over seeds. `outcomes` are those of a single row, and '' of several.
    """
    of: dict[str, Any] = {"value": "mean", "low": "mean", "high": "mean", "seed": "first"}
    of["outcomes"] = lambda x: x.iloc[0] if len(x) == 1 else ""
    same = [name for name in rows.columns if name not in (*of, *STAMPS)]
    groups = rows.groupby(same, sort=False, dropna=False)
    table = groups.agg(of)
    half = special.stdtrit(groups.size() - 1, 0.975) * groups["value"].sem()
    table["low"] = np.fmin(table["low"], table["value"] - half)
    table["high"] = np.fmax(table["high"], table["value"] + half)
    return table.reset_index()


def over_blocks(rows: pd.DataFrame) -> pd.DataFrame:
    """As `over_seeds`, of worlds and seeds, which have their own test videos: Student's alone."""
    return over_seeds(rows.assign(run="", data="", n=0, low=np.nan, high=np.nan))

"""Seen concepts: which classes of a test set a pre-training set already knows by name (4.3.1).

Legend: Q classes of the pre-training set (queries), T classes of the test set (targets).
"""

import csv
import itertools
import math
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from avnb.evaluation import text_encoders
from avnb.evaluation.class_names import ClassList, class_list, from_file
from avnb.evaluation.results import Row, select
from avnb.values import digest

QUERIES = ("vggsound", "audioset", "kinetics400")
TARGETS = ("ucf101", "hmdb51")
# The thesis says 0.47 for both; its released code has 0.46 for HMDB-51, which gives its counts.
THRESHOLDS = {"ucf101": 0.47, "hmdb51": 0.46}
# Over which the counts are made again, to see how far they depend on either choice.
THRESHOLD_GRID = tuple(round(0.40 + 0.01 * i, 2) for i in range(16))
TOP_GRID = (1, 2, 3, 5, 10)


class Encoder(Protocol):
    """What turns texts into vectors: `text_encoders.LanguageModel`, a SentenceTransformer."""

    def encode(self, texts: list[str], /) -> Any:
        """Vectors [N, D] of N texts."""


# ---- pure functions on similarity matrices ----------------------------------------------------


def as_matrix(values: np.ndarray | Tensor, name: str) -> np.ndarray:
    """A matrix of finite numbers as float64 [Q, T]; ValueError for anything else."""
    if isinstance(values, Tensor):
        values = values.detach().to("cpu", torch.float64).numpy()
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"{name} must be a matrix [Q, T], got the shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} holds values that are not finite")
    return matrix


def ranked(similarities: np.ndarray | Tensor, top: int) -> np.ndarray:
    """The `top` most similar targets of each query, best first [Q, top]; of equals, the first.

    Raises:
        ValueError: for a shape other than [Q, T], and a top outside [1, T].
    """
    matrix = as_matrix(similarities, "similarities")
    if isinstance(top, bool) or not 1 <= top <= matrix.shape[1]:
        raise ValueError(f"top must lie in [1, {matrix.shape[1]}], the targets; got {top!r}")
    return np.argsort(-matrix, axis=1, kind="stable")[:, :top]


def seen(
    primary: np.ndarray | Tensor,
    secondary: np.ndarray | Tensor,
    *,
    threshold: float,
    top: int = 3,
    exclude: Collection[int] = (),
) -> tuple[list[list[int]], set[int]]:
    """The targets that match each query, and all that match any: the seen concepts.

    A query counts when its best cosine in `primary` exceeds the threshold; its matches are then
    the targets that both models rank among their `top` best. Excluded targets are struck from
    the matches at the end, so that no other target moves up into their place.

    Args:
        primary: [Q, T] cosines of the model that the threshold is for.
        secondary: [Q, T] cosines of the model that must agree.
        threshold: in cosine; a query at the threshold itself does not count.
        top: length of both lists, in [1, T].
        exclude: targets in [0, T) that never match.

    Returns:
        Q lists of targets in the order of `primary`, and their union.

    Raises:
        ValueError: for matrices that do not fit each other or are not finite, a threshold that
            is not a number, a top or an excluded target out of range.
    """
    first, second = as_matrix(primary, "primary"), as_matrix(secondary, "secondary")
    if first.shape != second.shape:
        raise ValueError(f"primary is {first.shape} and secondary {second.shape}; both are [Q, T]")
    if math.isnan(threshold):
        raise ValueError("threshold must be a number, got nan")
    targets, struck = first.shape[1], {operator.index(i) for i in exclude}
    if wrong := sorted(i for i in struck if not 0 <= i < targets):
        raise ValueError(f"exclude must hold targets in [0, {targets}), got {wrong}")
    near = (first.max(axis=1) > threshold).tolist()
    best = zip(near, ranked(first, top).tolist(), ranked(second, top).tolist(), strict=True)
    matches = [
        [t for t in mine if t in theirs and t not in struck] if counts else []
        for counts, mine, theirs in best
    ]
    return matches, {target for some in matches for target in some}


def similarity(queries: list[str], targets: list[str], model: Encoder | str) -> np.ndarray:
    """Cosines [Q, T] between two lists of normalised names under a language model.

    Args:
        queries: Q names, as `names.normalised` gives them.
        targets: T names.
        model: a model, or a name that `text_encoders.load` knows.

    Raises:
        ValueError: without names on either side; for a name whose vector has no direction.
    """
    if not queries or not targets:
        raise ValueError(f"similarity needs names, got {len(queries)} and {len(targets)}")
    return unit_vectors(queries, model) @ unit_vectors(targets, model).T


def unit_vectors(names: list[str], model: Encoder | str) -> np.ndarray:
    """Vectors of length one [N, D] of N normalised names; errors as `similarity`."""
    encoder = text_encoders.load(model) if isinstance(model, str) else model
    vectors = np.asarray(encoder.encode(names), dtype=np.float64)  # [N, D]
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)  # [N, 1]
    if not (lengths > 0).all():
        lost = names[int(np.argmin(lengths > 0))]
        raise ValueError(f"the model knows no part of the name {lost!r}; its vector is zero")
    return vectors / lengths


# ---- pairs of data sets -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A pre-training set and a test set, and how their names are matched."""

    queries: ClassList
    targets: ClassList
    threshold: float
    outliers: tuple[str, ...] = ()  # targets that were struck by hand, normalised

    @property
    def title(self) -> str:
        """`VGGSound → UCF-101`."""
        return f"{self.queries.title} → {self.targets.title}"

    @cached_property
    def exclude(self) -> set[int]:
        """The outliers as labels of the test set."""
        return self.targets.positions(set(self.outliers))

    @property
    def origin(self) -> str:
        """Stands for the names and the outliers: what result rows say of their data."""
        return f"names:{digest([self.queries.names, self.targets.names, self.outliers])}"


def outliers() -> list[dict[str, str]]:
    """What the thesis's authors struck by hand.

    Each with its data sets (`queries`, `targets`), the `target`, the queries that it was
    `reached_from`, and the `reason` in our words.
    """
    with (
        resources.files("avnb.evaluation")
        .joinpath("classes", "outliers.csv")
        .open(encoding="utf-8") as file
    ):
        return list(csv.DictReader(file))


def pairs(
    queries: str, targets: str, thresholds: Mapping[str, float], threshold: float
) -> list[Pair]:
    """Every pre-training set with every test set; a file of names replaces either side.

    Args:
        queries: a text file of class names, or '' for VGGSound, AudioSet and Kinetics-400.
        targets: a text file of class names, or '' for UCF-101 and HMDB-51.
        thresholds: of the package's test sets, by name.
        threshold: of any other.
    """
    asked = [from_file(Path(queries))] if queries else [class_list(key) for key in QUERIES]
    against = [from_file(Path(targets))] if targets else [class_list(key) for key in TARGETS]
    struck = outliers()
    return [
        Pair(
            queries=q,
            targets=t,
            threshold=thresholds.get(t.key, threshold),
            outliers=tuple(
                row["target"]
                for row in struck
                if (row["queries"], row["targets"]) == (q.key, t.key)
            ),
        )
        for t in against
        for q in asked
    ]


# ---- what a run measures ----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Matched:
    """A pair of data sets under two language models."""

    pair: Pair
    models: tuple[str, str]  # titles
    primary: np.ndarray  # [Q, T] cosines of the first model
    secondary: np.ndarray  # [Q, T] of the second
    top: int

    @property
    def method(self) -> str:
        """Both models, as result rows name them."""
        return " + ".join(self.models)

    def seen(
        self, threshold: float | None = None, top: int | None = None, *, struck: bool = True
    ) -> tuple[list[list[int]], set[int]]:
        """Matches and seen concepts, at the pair's own threshold and top or at others.

        With `struck` false the outliers stay in.
        """
        return seen(
            self.primary,
            self.secondary,
            threshold=self.pair.threshold if threshold is None else threshold,
            top=min(top or self.top, len(self.pair.targets)),
            exclude=self.pair.exclude if struck else (),
        )

    def row(self, metric: str, value: float, n: int, split: str = "") -> Row:
        """One number of this pair as a result row."""
        return Row(
            task="concepts",
            metric=metric,
            value=value,
            n=n,
            split=split,
            method=self.method,
            level=self.pair.queries.key,
            dataset=self.pair.targets.key,
            data=self.pair.origin,
        )


def match(
    pair: Pair,
    first: text_encoders.LanguageModel,
    second: text_encoders.LanguageModel,
    *,
    top: int = 3,
) -> Matched:
    """Compare the names of a pair under both models.

    With fewer than `top` targets, both models name all of them.
    """
    q, t = pair.queries.plain, pair.targets.plain
    return Matched(
        pair=pair,
        models=(first.title, second.title),
        top=top,
        primary=similarity(q, t, first),
        secondary=similarity(q, t, second),
    )


def setting(threshold: float, top: int) -> str:
    """How a count was made, as its row says it in `split`."""
    return f"threshold {threshold:g}, top {top}"


def read_setting(split: str) -> tuple[float, int]:
    """The threshold and the top that `setting` wrote."""
    threshold, top = split.removeprefix("threshold ").split(", top ")
    return float(threshold), int(top)


def measure(
    matched: Matched, thresholds: Sequence[float] = (), tops: Sequence[int] = ()
) -> Iterator[Row]:
    """Result rows of a pair: seen concepts, queries that count, how far the models agree.

    The seen concepts are counted at the pair's own setting and over the grid of `thresholds` and
    `tops` as well.
    """
    pair, top = matched.pair, matched.top
    queries, targets = matched.primary.shape
    grid = [(pair.threshold, top), *itertools.product(thresholds, tops)]
    for threshold, k in dict.fromkeys(grid):
        found = len(matched.seen(threshold, k)[1])
        yield matched.row("seen", found, targets, setting(threshold, k))
    counts = int((matched.primary.max(axis=1) > pair.threshold).sum())
    yield matched.row("queries", counts, queries, setting(pair.threshold, top))
    for common, n in enumerate(np.bincount(agreement(matched), minlength=top + 1)):
        yield matched.row(f"shared {common}", int(n), queries, f"top {top}")


def own(rows: pd.DataFrame, pairs: Sequence[Pair], top: int) -> pd.DataFrame:
    """Of result rows, those made at the own setting of their pair.

    Raises:
        ValueError: when there is none.
    """
    kept = [
        select(
            rows,
            level=pair.queries.key,
            dataset=pair.targets.key,
            data=pair.origin,
            split=setting(pair.threshold, top),
        )
        for pair in pairs
    ]
    return pd.concat(kept, ignore_index=True)


def agreement(matched: Matched) -> np.ndarray:
    """How many of the top targets both models share, for each query [Q]."""
    top = min(matched.top, len(matched.pair.targets))
    both = zip(ranked(matched.primary, top), ranked(matched.secondary, top), strict=True)
    return np.array([len(set(a) & set(b)) for a, b in both])

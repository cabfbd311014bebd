"""Seen concepts: test classes that a pre-training set already knows by name (thesis 4.3.1).

A pre-training class matches the test classes that two text encoders both rank highest for it. Test
classes that any of them matches are seen, the others unseen.

Legend: Q pre-training classes (queries), T test classes (targets), K targets ranked for a query.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor

from avnb.config import Evaluation, digest
from avnb.data.manifest import Manifest
from avnb.data.synthetic import world
from avnb.evaluation.class_names import (
    CLASSES,
    PHRASE_BERT,
    TITLES,
    ClassList,
    TextEncoder,
    class_list,
    from_file,
    load,
    load_pair,
)
from avnb.evaluation.features import EncoderSource
from avnb.evaluation.results import Row, record, select
from avnb.files import write_text
from avnb.profiles import Workspace

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

QUERIES = ("vggsound", "audioset", "kinetics400")
TARGETS = ("ucf101", "hmdb51")
# The thesis says 0.47 for both; its released code has 0.46 for HMDB-51, which gives its counts.
THRESHOLDS = {"ucf101": 0.47, "hmdb51": 0.46}
DEFAULT_THRESHOLD, DEFAULT_TOP = 0.47, 3  # for any other list of natural names
# Counts are repeated over these grids, to see how far they depend on either choice.
THRESHOLD_GRID = tuple(round(0.40 + 0.01 * i, 2) for i in range(16))
TOP_GRID = (1, 2, 3, 5, 10)
PARTS = ("unseen", "seen")
MEANINGS = {**world.VGGSOUND, **world.UCF101, **world.HMDB51}  # of synthetic names


# ---- matching ---------------------------------------------------------------------------------


def similarity(
    queries: list[str], targets: list[str], model: "TextEncoder | SentenceTransformer | str"
) -> np.ndarray:
    """Cosines [Q, T] between two lists of normalised names under a text encoder.

    Args:
        queries: Q names, as `class_names.normalised` gives them.
        targets: T names.
        model: a text encoder, or a name that `class_names.load` knows.

    Raises:
        ValueError: for a name whose vector is zero.
    """
    encoder, names = load(model) if isinstance(model, str) else model, [*queries, *targets]
    vectors = np.asarray(encoder.encode(names), dtype=np.float64)  # [Q + T, D]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        unknown = names[int(lengths.argmin())]
        raise ValueError(f"the model knows no part of the name {unknown!r}; its vector is zero")
    unit = vectors / lengths
    return unit[: len(queries)] @ unit[len(queries) :].T


def ranked(similarities: np.ndarray, top: int) -> np.ndarray:
    """The `top` most similar targets of each query, best first [Q, top]; ties to the first target.

    ValueError for a top outside [1, T].
    """
    if not 1 <= top <= similarities.shape[1]:
        raise ValueError(f"top must lie in [1, {similarities.shape[1]}], the targets; got {top!r}")
    return np.argsort(-similarities, axis=1, kind="stable")[:, :top]


def seen(
    primary: np.ndarray | Tensor,
    secondary: np.ndarray | Tensor,
    *,
    threshold: float,
    top: int = 3,
    exclude: Collection[int] = (),
) -> tuple[list[list[int]], set[int]]:
    """The targets that match each query, and all that match any: the seen concepts.

    A query counts when its highest cosine in `primary` exceeds the threshold; its matches are then
    the targets that both models rank among their `top` best. Excluded targets are removed from
    the matches last, so that no other target moves up into their place.

    Args:
        primary: [Q, T] cosines of the model that the threshold applies to.
        secondary: [Q, T] cosines of the model that must agree.
        threshold: in cosine; a query exactly at it does not count.
        top: length of both lists, in [1, T].
        exclude: targets in [0, T) that never match.

    Returns:
        Q lists of targets in the order of `primary`, and their union.

    Raises:
        ValueError: for matrices that do not fit each other, a top or an excluded target out of
            range.
    """
    first, second = np.asarray(primary, np.float64), np.asarray(secondary, np.float64)
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(f"primary is {first.shape} and secondary {second.shape}; both are [Q, T]")
    if wrong := sorted(i for i in exclude if not 0 <= i < first.shape[1]):
        raise ValueError(f"exclude must hold targets in [0, {first.shape[1]}), got {wrong}")
    return agreed(first, ranked(second, top), threshold, exclude)


def agreed(
    primary: np.ndarray, second: np.ndarray, threshold: float, exclude: Collection[int]
) -> tuple[list[list[int]], set[int]]:
    """As `seen`, given the best targets of each query under the second model, [Q, top]."""
    counts, best = primary.max(axis=1) > threshold, ranked(primary, second.shape[1])
    matches = [
        [target for target in one if target in other and target not in exclude] if counted else []
        for counted, one, other in zip(counts, best.tolist(), second.tolist(), strict=True)
    ]
    return matches, {*itertools.chain(*matches)}


# ---- pairs of data sets -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A pre-training set and a test set, and how their names are matched."""

    queries: ClassList
    targets: ClassList
    threshold: float
    outliers: tuple[str, ...] = ()  # normalised targets that the thesis removed by hand

    @property
    def title(self) -> str:
        """`VGGSound → UCF-101`."""
        return f"{self.queries.title} → {self.targets.title}"

    @property
    def origin(self) -> str:
        """Identifies names and outliers: the field `data` of result rows."""
        return f"names:{digest([self.queries.names, self.targets.names, self.outliers])}"


def outliers() -> list[dict[str, str]]:
    """Targets removed by hand by the thesis's authors, with their data sets and the reason."""
    return list(pd.read_csv(str(CLASSES / "outliers.csv"), dtype=str).T.to_dict().values())


def make_pair(queries: ClassList, targets: ClassList, threshold: float, file: str = "") -> Pair:
    """Two lists as a pair; without a `file` of outliers, official names have the thesis's."""
    key, removed = (queries.key, targets.key), list[str]()
    if file:
        removed = from_file(file).plain
    elif queries.is_official and targets.is_official:
        removed = [r["target"] for r in outliers() if (r["queries"], r["targets"]) == key]
    there = tuple(name for name in removed if name in targets.plain)
    return Pair(queries=queries, targets=targets, threshold=threshold, outliers=there)


def pairs(
    queries: str,
    targets: str,
    thresholds: Mapping[str, float],
    threshold: float,
    *,
    outliers: str = "",
) -> list[Pair]:
    """Every pre-training set with every test set; a file of names replaces either side.

    Without a file ('') the former are VGGSound, AudioSet and Kinetics-400, the latter UCF-101 and
    HMDB-51. `thresholds` are by key of the test set; `threshold` is for any other. `outliers` is a
    file of test classes that never match, by default those of the thesis.
    """
    asked = [from_file(queries)] if queries else [class_list(key) for key in QUERIES]
    against = [from_file(targets)] if targets else [class_list(key) for key in TARGETS]
    return [
        make_pair(q, t, thresholds.get(t.key, threshold), outliers)
        for t, q in itertools.product(against, asked)
    ]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The K most similar targets of each query under the second text encoder, best first."""

    title: str  # of the text encoder
    targets: np.ndarray  # [Q, K] labels
    cosines: np.ndarray  # [Q, K]


def published_ranking(queries: ClassList, targets: ClassList) -> Ranking | None:
    """The three best targets of each query under phrase-BERT, as the released code lists them.

    None for names that they were not made of: some of the queries will do, but all of the targets,
    for among fewer, others would be ranked.
    """
    table = pd.read_csv(str(CLASSES / "phrase_bert_top3.csv"), keep_default_na=False)
    table = table[(table["queries"] == queries.key) & (table["targets"] == targets.key)]
    whole = targets.is_official and len(targets) == len(class_list(targets.key))
    if not whole or not {*queries.plain} <= {*table["query"]}:
        return None
    wide = table.pivot(index="query", columns="rank").loc[queries.plain]
    return Ranking(
        title=f"{PHRASE_BERT}, as published",
        targets=wide["target"].map(targets.plain.index).to_numpy(),
        cosines=wide["cosine"].to_numpy(),
    )


@dataclass(frozen=True, kw_only=True)
class Matched:
    """A pair of data sets under two text encoders, or under one where there is no second."""

    pair: Pair
    model: str  # title of the first text encoder
    primary: np.ndarray  # [Q, T] cosines of the first model
    second: Ranking | None
    top: int

    @property
    def method(self) -> str:
        """Both models, as in result rows."""
        return f"{self.model} + {self.second.title}" if self.second else f"{self.model} alone"

    @property
    def depth(self) -> int:
        """Targets of each query that both models rank."""
        return self.second.targets.shape[1] if self.second else len(self.pair.targets)

    def seen(
        self, threshold: float | None = None, top: int | None = None, *, struck: bool = True
    ) -> tuple[list[list[int]], set[int]]:
        """Matches and seen concepts, at the pair's own setting or another.

        With `struck` false the outliers are kept. ValueError where the second model is known to a
        smaller depth.
        """
        top, targets = min(top or self.top, len(self.pair.targets)), self.pair.targets
        if top > self.depth:
            raise ValueError(
                f"{self.method} names {self.depth} targets for each class, so top cannot be {top}: "
                "lower it, or give a folder with the text encoder itself"
            )
        second = self.second.targets[:, :top] if self.second else ranked(self.primary, top)
        cosine = self.pair.threshold if threshold is None else threshold
        removed = targets.positions({*self.pair.outliers}) if struck else set[int]()
        return agreed(self.primary, second, cosine, removed)


def match(pair: Pair, first: TextEncoder, second: TextEncoder | None, *, top: int = 3) -> Matched:
    """Compare the names of a pair under both models; `top` may exceed the number of targets.

    Where the second, phrase-BERT, is not at hand, its published ranking takes its place, if the
    pair has one; otherwise the first model decides alone.
    """
    names = pair.queries.plain, pair.targets.plain
    if second is None:
        ranking = published_ranking(pair.queries, pair.targets)
    else:
        cosines = similarity(*names, second)
        order = ranked(cosines, cosines.shape[1])
        best_first = np.take_along_axis(cosines, order, axis=1)
        ranking = Ranking(title=second.name, targets=order, cosines=best_first)
    primary = similarity(*names, first)
    return Matched(pair=pair, model=first.name, primary=primary, second=ranking, top=top)


# ---- rows -------------------------------------------------------------------------------------


def setting(threshold: float, top: int) -> str:
    """Threshold and top of a count, as in the field `split` of its row."""
    return f"threshold {threshold:g}, top {top}"


def read_setting(split: str) -> tuple[float, int]:
    """The threshold and the top that `setting` wrote."""
    threshold, top = split.removeprefix("threshold ").split(", top ")
    return float(threshold), int(top)


def pair_rows(
    matched: Matched, thresholds: Sequence[float] = (), tops: Sequence[int] = ()
) -> Iterator[Row]:
    """Result rows of a pair: seen concepts, queries that count, agreement of the models.

    Seen concepts are counted at the pair's own setting and over the grid of `thresholds` x `tops`,
    as far as both models rank targets.
    """
    pair, top, (queries, targets) = matched.pair, matched.top, matched.primary.shape
    known: dict[str, Any] = {"task": "concepts", "method": matched.method, "data": pair.origin}
    known |= {"level": pair.queries.key, "dataset": pair.targets.key}
    grid = itertools.product(thresholds, [k for k in tops if k <= matched.depth])
    for at in dict.fromkeys([(pair.threshold, top), *grid]):
        count = len(matched.seen(*at)[1])
        yield Row(metric="seen", value=count, n=targets, split=setting(*at), **known)
    known |= {"n": queries}
    count = int((matched.primary.max(axis=1) > pair.threshold).sum())
    yield Row(metric="queries", value=count, split=setting(pair.threshold, top), **known)
    if matched.second is not None:
        best, other = ranked(matched.primary, min(top, targets)), matched.second.targets[:, :top]
        common = (best[:, :, None] == other[:, None]).sum(axis=(1, 2))  # [Q]
        for shared, count in enumerate(np.bincount(common, minlength=top + 1).tolist()):
            yield Row(metric=f"shared {shared}", value=count, split=f"top {top}", **known)


def concept_rows(
    pairs: Sequence[Pair],
    models: tuple[TextEncoder, TextEncoder | None],
    work: Workspace,
    *,
    top: int = 3,
) -> tuple[pd.DataFrame, list[Matched]]:
    """Rows of pairs, over both grids too, appended to the results of `work`; the matched pairs."""
    matched = [match(pair, *models, top=top) for pair in pairs]
    rows = [row for m in matched for row in pair_rows(m, THRESHOLD_GRID, TOP_GRID)]
    return record(work.results, rows), matched


def at_own_setting(rows: pd.DataFrame, pairs: Sequence[Pair], top: int) -> pd.DataFrame:
    """The result rows made at their pair's own threshold; ValueError when there is none."""
    selected = []
    for p in pairs:
        key = {"level": p.queries.key, "dataset": p.targets.key, "data": p.origin}
        selected.append(select(rows, split=setting(p.threshold, top), **key))
    return pd.concat(selected, ignore_index=True)


# ---- seen and unseen classes of a test set ----------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ClassSplit:
    """The classes of each part, as spelt in the data set, and how they were chosen."""

    title: str  # of both data sets
    rule: str  # published, synthetic, thesis or file
    classes: Mapping[str, list[str]]  # by part
    matched: Matched | None = None  # the names, where they were matched


def rule_for(pretraining: ClassList, target: ClassList, config: Evaluation) -> str:
    """The rule that decides which classes are unseen: as `class_split` says, or by the names::

        file        a list of one's own: `unseen_classes`
        published   names of VGGSound and of UCF-101 or HMDB-51: the lists of the thesis's code
        synthetic   names of the synthetic world, which says itself which mean the same: they all
                    consist of a few words that text encoders confuse
        thesis      any other: the rule of thesis 4.3.1, three test classes above a cosine of 0.47

    ValueError when a rule is named that does not know these names.
    """
    known = pretraining.key == "vggsound" and target.key in TARGETS
    known = known and pretraining.is_official and target.is_official
    strange = sorted({*pretraining.names, *target.names} - MEANINGS.keys())
    named = "file" if config.unseen_classes else config.class_split
    if named == "published" and not known:
        raise ValueError(
            "lists of unseen classes were published for VGGSound with UCF-101 and HMDB-51, and not "
            f"all names of {pretraining.title} and {target.title} are theirs: class_split may be "
            "'thesis', or name a file as `unseen_classes`"
        )
    if named == "synthetic" and strange:
        raise ValueError(f"no class {strange[0]!r} in the synthetic world; class_split: 'thesis'?")
    if named != "auto":
        return named
    if config.name_threshold or config.name_top:
        return "thesis"
    return "published" if known else "thesis" if strange else "synthetic"


def unseen_labels(
    rule: str, pretraining: ClassList, target: ClassList, config: Evaluation
) -> tuple[set[int], Matched | None]:
    """Labels of the unseen classes under a rule; and the names, where they are matched.

    Raises:
        ModelNotFoundError: when names have to be matched, and a text encoder is found nowhere.
        ValueError: when the file of a list names a class that the data set does not have.
    """
    if rule == "file":
        return target.positions({*from_file(config.unseen_classes).plain}), None
    if rule == "published":
        lines = (CLASSES / f"unseen_{target.key}.txt").read_text(encoding="utf-8").splitlines()
        return {i for i, name in enumerate(target.plain) if name in lines}, None
    if rule == "synthetic":
        known = {MEANINGS[name] for name in pretraining.names}
        return {i for i, name in enumerate(target.names) if MEANINGS[name] not in known}, None
    cosine = config.name_threshold or THRESHOLDS.get(target.key, DEFAULT_THRESHOLD)
    pair, top = make_pair(pretraining, target, cosine, config.outliers), config.name_top
    matched = match(pair, *load_pair(config.text_encoders), top=top or DEFAULT_TOP)
    return {*range(len(target))} - matched.seen()[1], matched


def split_classes(
    folder: Path | str, pretraining: ClassList, target: Manifest, config: Evaluation
) -> ClassSplit:
    """The seen and the unseen classes of a data set, also written to files below `folder`.

    Where names are matched, `name_threshold`, `name_top` and `outliers` replace the thesis's.

    Raises:
        ModelNotFoundError: as `unseen_labels`.
        ValueError: as `unseen_labels`, and when a part is empty.
    """
    names = ClassList(target.name, TITLES.get(target.name, target.name), target.classes)
    rule = rule_for(pretraining, names, config)
    unseen, matched = unseen_labels(rule, pretraining, names, config)
    title = f"{pretraining.title} → {names.title}"
    classes: dict[str, list[str]] = {"seen": [], "unseen": []}
    for i, name in enumerate(names.names):
        classes["unseen" if i in unseen else "seen"].append(name)
    if empty := [part for part, some in classes.items() if not some]:
        at = setting(matched.pair.threshold, matched.top) if matched else f"the rule {rule!r}"
        raise ValueError(
            f"{title}: no class is {empty[0]} at {at}; a higher threshold or a lower top leaves "
            "more classes unseen (name_threshold, name_top)"
        )
    own = Path(folder) / f"concepts-{pretraining.key}-{names.key}-{digest(classes)}"
    for part, some in classes.items():
        write_text(own / f"{part}.txt", "\n".join(some) + "\n")
    return ClassSplit(title=title, rule=rule, classes=classes, matched=matched)


def pretraining_classes(sources: Mapping[str, EncoderSource], config: Evaluation) -> ClassList:
    """The classes of the videos that the encoders were trained on, or those that a value names.

    `config.pretraining_classes` is a file of names, or the key of one of our lists.

    Raises:
        ValueError: when no encoder says it, or two were trained on different ones.
    """
    if named := config.pretraining_classes:
        return class_list(named) if named in TITLES else from_file(named)
    known = {method: names for method, s in sources.items() if (names := s.trained_on)}
    if not known:
        raise ValueError(
            f"none of the encoders ({', '.join(sources)}) says on which classes it was trained: "
            f"give `pretraining_classes`, a file of names or one of {', '.join(TITLES)}"
        )
    if len({*known.values()}) > 1:
        counts = ", ".join(f"{m}: {len(c)} of {c.title}" for m, c in known.items())
        raise ValueError(
            f"the encoders were trained on different classes ({counts}), so there is no common "
            "split: give `pretraining_classes`, or compare fewer encoders"
        )
    return next(iter(known.values()))

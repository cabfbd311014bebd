"""Few-shot probes on seen and unseen classes (thesis 4.3): many linear layers in one batch.

Shapes: R layers trained together, V training videos, D clips cached of each, F features, N videos
drawn, C classes of a part, S steps, B videos a step.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from scipy.special import stdtrit
from torch import Tensor

from avnb.data.manifest import Manifest
from avnb.evaluation import splits
from avnb.evaluation.batched_probes import Training, fit_together
from avnb.evaluation.class_names import TITLES, ClassList, class_list
from avnb.evaluation.concepts import THRESHOLDS, Matched, Pair, outliers
from avnb.evaluation.features import Features
from avnb.evaluation.probe import Probe, ProbeFeatures, accuracies
from avnb.evaluation.results import Row
from avnb.protocols import Evaluation
from avnb.values import digest, unknown_name

PARTS = ("unseen", "seen")


# Names of the synthetic world are a thing and a motion: three of its names are near any other,
# and only the nearest one can be the same.
OFFICIAL_TOP, SYNTHETIC_TOP, SYNTHETIC_THRESHOLD = 3, 1, 0.7


def known_by_name(
    pretraining: Manifest, target: Manifest, *, threshold: float = 0.0, top: int = 0
) -> tuple[Pair, int]:
    """The classes of two data sets as a pair to be matched, and the top-k to match it with.

    Names of the official lists, all or some, get the thesis's setting and its outliers; other
    names, those of the synthetic world, get their own setting and none struck. A threshold or top
    other than 0 takes the place of either default.
    """
    both = pretraining, target
    official = all(set(m.classes) <= set(class_list(m.name).names) for m in both)
    queries, targets = (
        ClassList(m.name, TITLES[m.name] + ("" if official else ", own names"), m.classes)
        for m in both
    )
    struck = [
        row["target"]
        for row in outliers()
        if official and (row["queries"], row["targets"]) == (queries.key, targets.key)
    ]
    pair = Pair(
        queries=queries,
        targets=targets,
        threshold=threshold or (THRESHOLDS[target.name] if official else SYNTHETIC_THRESHOLD),
        outliers=tuple(name for name in struck if name in targets.plain),
    )
    return pair, top or (OFFICIAL_TOP if official else SYNTHETIC_TOP)


def parts(folder: Path, matched: Matched) -> dict[str, list[str]]:
    """The unseen and the seen classes, from the files that `splits.write_classes` makes.

    Raises:
        ValueError: when either side is empty; it says what to change.
    """
    made = splits.write_classes(folder, matched)
    found = {part: splits.read_classes(made[part]) for part in PARTS}
    advice = {
        "seen": "lower the threshold or raise top, so that more names match",
        "unseen": "raise the threshold or lower top, so that fewer names match",
    }
    for part, classes in found.items():
        if not classes:
            raise ValueError(
                f"{matched.pair.title}: no class is {part} at threshold "
                f"{matched.pair.threshold:g}, top {matched.top}; {advice[part]}"
            )
    return found


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Training videos of some classes; which ones, how many of them, and from which seed."""

    part: str  # seen or unseen
    percent: float  # of the training videos of each class
    seed: int  # of the draw, and of the layer that is trained on it
    classes: Tensor  # [C] labels of the data set, ascending: a layer's outputs
    videos: Tensor  # [N] rows of the training videos

    @property
    def split(self) -> str:
        """As result rows name it: `seen, 5 %`."""
        return f"{self.part}, {self.percent:g} %"


def read_split(split: str) -> tuple[str, float]:
    """The part and the percentage that `Draw.split` wrote."""
    part, _, percent = split.removesuffix(" %").partition(", ")
    return part, float(percent)


def percentages(text: str) -> tuple[float, ...]:
    """`5,10,20` as numbers in ascending order; ValueError for what is no percentage."""
    try:
        found = sorted({float(word) for word in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(0 < percent <= 100 for percent in found):
        raise ValueError(f"write percentages in (0, 100] with commas, '5,10,20'; got {text!r}")
    return tuple(found)


def params(
    manifest: Manifest,
    classes: Mapping[str, Sequence[str]],
    folder: Path,
    *,
    percents: Sequence[float] = splits.PERCENTS,
    seeds: Sequence[int] = (0,),
) -> list[Draw]:
    """AugmentParams of every part, seed and percentage, from files that are made once in `folder`.

    Args:
        manifest: the data set, training videos and others.
        classes: of each part, by the data set's own names.
        percents: of the training videos of each class, in (0, 100].

    Raises:
        ValueError: for a class that the data set lacks, and a part without training videos.
    """
    train = manifest.split("train")
    row = {video.id: i for i, video in enumerate(train.videos)}
    names, found = [video.label for video in train.videos], []
    for seed in seeds:
        made = splits.write_draws(folder, [*row], names, seed=seed, percents=percents)
        for percent, file in made.items():
            drawn = [row[video] for video in splits.read_draw(file)]
            for part, some in classes.items():
                labels = numbered(manifest, some, part)
                kept = [i for i in drawn if names[i] in set(some)]
                if not kept:
                    raise ValueError(f"no {part} class of {manifest.name} has a training video")
                found.append(
                    Draw(
                        part=part,
                        percent=percent,
                        seed=seed,
                        classes=labels,
                        videos=torch.tensor(kept),
                    )
                )
    return found


def numbered(manifest: Manifest, names: Sequence[str], part: str) -> Tensor:
    """Labels of some classes in ascending order [C]; ValueError for none or an unknown one."""
    if not names:
        raise ValueError(f"the {part} part of {manifest.name} holds no class")
    for name in names:
        if name not in manifest.classes:
            raise ValueError(unknown_name(f"class of {manifest.name}", name, manifest.classes))
    return torch.tensor(sorted(manifest.classes.index(name) for name in names))


def training(train: Features, draw: Draw) -> Training:
    """What the layer of a draw is trained on; its labels count within the draw's classes."""
    label = torch.searchsorted(draw.classes, train.label[draw.videos])
    return Training(
        features=train.video,
        videos=draw.videos,
        label=label,
        classes=len(draw.classes),
        seed=draw.seed,
    )


def of_classes(test: Features, classes: Tensor) -> tuple[Tensor, Tensor]:
    """All videos of some classes: features [V, D, F], and labels within the classes [V].

    Raises:
        ValueError: when no video is left.
    """
    kept = torch.isin(test.label, classes)
    if not kept.any():
        raise ValueError(f"no test video belongs to the classes {classes.tolist()}")
    return test.video[kept], torch.searchsorted(classes, test.label[kept])


def measure(
    features: Mapping[str, ProbeFeatures],
    drawn: Sequence[Draw],
    config: Evaluation,
    *,
    runs: Mapping[str, str],
    data: str,
    **metadata: str,
) -> Iterator[Row]:
    """Train a layer on every draw under every method, all together; result rows.

    Every layer is tested on all test videos of its classes.

    Args:
        features: by method.
        drawn: as `draws` gives them.
        runs: id of the run of each method.
        data: the videos; rows name the classes of both parts beside it.
        about: the other fields of the rows (`dataset`, `profile`).
    """
    jobs = [(method, draw) for method in features for draw in drawn]
    jobs.sort(key=lambda job: (job[0], job[1].part))
    fitted = fit_together([training(features[m].train, draw) for m, draw in jobs], config)
    halves = digest({draw.part: draw.classes.tolist() for draw in drawn})
    layers = zip(jobs, (layer for layer, _ in fitted), strict=True)
    for (method, _), some in itertools.groupby(layers, key=lambda j: (j[0][0], j[0][1].part)):
        here = [(draw, layer) for (_, draw), layer in some]
        known = {"method": method, "run": runs[method], "data": f"{data}, classes {halves}"}
        yield from test(features[method], here, config, **known, **metadata)


def test(
    features: ProbeFeatures,
    layers: Sequence[tuple[Draw, Probe]],
    config: Evaluation,
    **metadata: str,
) -> Iterator[Row]:
    """Rows of both levels and metrics for layers of the same classes."""
    classes = layers[0][0].classes
    one, label = of_classes(features.clip, classes)
    clips = {"clip": one, "video": of_classes(features.video, classes)[0]}
    for draw, layer in layers:
        yield from accuracies(
            layer,
            clips,
            label,
            replace(config, seed=draw.seed),
            classes=len(classes),
            task="few-shot",
            split=draw.split,
            **metadata,
        )


SETTING = ["dataset", "level", "metric", "method", "part", "percent"]


def student(values: pd.Series) -> float:
    """Half the width of Student's 95 % interval for the mean; 0 for a single value."""
    n = len(values)
    if n < 2:
        return 0.0
    return float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / math.sqrt(n))


def with_parts(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the part and the percentage of their split as columns."""
    read = [read_split(split) for split in rows["split"]]
    return rows.assign(part=[part for part, _ in read], percent=[percent for _, percent in read])


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, one row a setting, with an interval and the number of `seeds`.

    Draws and initial weights vary with the seed (Student's t over seeds); test videos do not
    (bootstrap intervals of the rows). The wider of the two is given. Published rows have none.
    """
    lines = []
    for setting, some in with_parts(rows).groupby(SETTING, sort=False):
        value = some["value"].mean()
        half, low, high = student(some["value"]), some["low"].mean(), some["high"].mean()
        first = some.iloc[0]
        lines.append(
            dict(zip(SETTING, setting, strict=True))
            | {
                "value": value,
                "low": max(0.0, min(value - half, low)) if low == low else low,
                "high": min(100.0, max(value + half, high)) if low == low else high,
                "n": first["n"],
                "chance": first["chance"],
                "seeds": len(some),
                "split": first["split"],
            }
        )
    return pd.DataFrame(lines)


def gaps(rows: pd.DataFrame, base: str = "supervised") -> pd.DataFrame:
    """Differences to the method `base`, in points, one row a setting; intervals as `over_seeds`.

    Differences are taken seed by seed, on the same draws. For the choice of test videos the
    intervals of both methods are added in quadrature, as if their errors had nothing to do with
    each other; they mostly go together, so this is rather too wide.

    Raises:
        ValueError: when `base` was not measured.
    """
    if base not in set(rows["method"]):
        raise ValueError(f"differences are to {base!r}, which was not measured: add it to methods")
    table = with_parts(rows).assign(half=(rows["high"] - rows["low"]) / 2)
    key = ["dataset", "level", "metric", "part", "percent", "seed"]
    theirs = table.loc[table["method"] == base, [*key, "value", "half"]]
    both = table[table["method"] != base].merge(theirs, on=key, suffixes=("", "_base"))
    both = both.assign(gap=both["value"] - both["value_base"])
    lines = []
    for setting, some in both.groupby(SETTING, sort=False):
        value = some["gap"].mean()
        videos = ((some["half"] ** 2 + some["half_base"] ** 2) ** 0.5).mean()
        half = max(student(some["gap"]), videos)
        lines.append(
            dict(zip(SETTING, setting, strict=True))
            | {"value": value, "low": value - half, "high": value + half, "seeds": len(some)}
        )
    columns = [*SETTING, "value", "low", "high", "seeds"]
    return pd.DataFrame(lines, columns=columns)

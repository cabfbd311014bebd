"""Few-shot probes on seen and unseen classes (thesis 4.3): many linear layers in one batch.

Shapes: V training videos, D clips cached of each, F features, N videos drawn, C classes of a part.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from avnb.config import Evaluation, digest, unknown_name
from avnb.data.manifest import Manifest
from avnb.evaluation import results, splits
from avnb.evaluation.batched_probes import Training, fit_together
from avnb.evaluation.features import Features, FrozenEncoders, device
from avnb.evaluation.probe import Probe, accuracies, fit_fresh, tested_by
from avnb.evaluation.probe_features import ProbeFeatures, Sources, extract_each, row_metadata
from avnb.evaluation.results import Row
from avnb.evaluation.splits import Rounding
from avnb.profiles import Workspace

# ---- draws ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Training videos of one part's classes, drawn at one percentage from one seed."""

    part: str  # seen or unseen
    percent: float  # of the training videos of each class
    seed: int  # of the draw, and of the layer that is trained on it
    classes: Tensor  # [C] labels of the data set, ascending: a layer's outputs
    videos: Tensor  # [N] rows of the training videos

    @property
    def split(self) -> str:
        """The field `split` of result rows: `seen, 5 %`."""
        return f"{self.part}, {self.percent:g} %"


def percentages(text: str) -> tuple[float, ...]:
    """`5,10,20` as numbers in ascending order; ValueError for anything but percentages."""
    try:
        percents = sorted({float(word) for word in text.split(",")})
    except ValueError:
        percents = []
    if not percents or not all(0 < percent <= 100 for percent in percents):
        raise ValueError(f"write percentages in (0, 100] with commas, '5,10,20'; got {text!r}")
    return tuple(percents)


def draws(
    manifest: Manifest,
    classes: Mapping[str, Sequence[str]],
    folder: Path | str,
    *,
    percents: Sequence[float] = splits.PERCENTS,
    seeds: Sequence[int] = (0,),
    rounding: Rounding = "down",
) -> list[Draw]:
    """Draws of every seed, percentage and part, from files that are made once in `folder`.

    `classes` names those of each part, `percents` counts the training videos of each class, and
    `rounding` makes it a number.

    Raises:
        ValueError: for a class that the data set lacks, and a part without training videos.
    """
    train = manifest.split("train")
    row = {video.id: i for i, video in enumerate(train.videos)}
    label, drawn = [video.label for video in train.videos], []
    numbers = {part: numbered(manifest, names, part) for part, names in classes.items()}
    for seed in seeds:
        files = splits.write_draws(
            folder, list(row), label, seed=seed, percents=percents, rounding=rounding
        )
        for (percent, file), part in itertools.product(files.items(), classes):
            rows, names = [row[video] for video in splits.read_draw(file)], set(classes[part])
            videos = torch.tensor([i for i in rows if label[i] in names])
            if not len(videos):
                raise ValueError(f"no {part} class of {manifest.name} has a training video")
            origin: dict[str, Any] = {"part": part, "percent": percent, "seed": seed}
            drawn.append(Draw(classes=numbers[part], videos=videos, **origin))
    return drawn


def numbered(manifest: Manifest, names: Sequence[str], part: str) -> Tensor:
    """Labels of some classes in ascending order [C]; ValueError for none or an unknown one."""
    if not names:
        raise ValueError(f"the {part} part of {manifest.name} holds no class")
    label = {name: i for i, name in enumerate(manifest.classes)}
    for name in names:
        if name not in label:
            raise ValueError(unknown_name(f"class of {manifest.name}", name, label))
    return torch.tensor(sorted(label[name] for name in names))


# ---- training and testing ---------------------------------------------------------------------


def training(train: Features, draw: Draw) -> Training:
    """Training data of a draw's layer; labels are counted within the draw's classes."""
    return Training(
        features=train.video,
        videos=draw.videos,
        label=torch.searchsorted(draw.classes, train.label[draw.videos]),
        classes=len(draw.classes),
        seed=draw.seed,
    )


def of_classes(test: Features, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Videos of some classes: features [V, D, F], labels within the classes [V]; never none."""
    kept = torch.isin(test.label, classes)
    if not kept.any():
        raise ValueError(f"no test video belongs to the classes {classes.tolist()}")
    return test.video[kept], torch.searchsorted(classes, test.label[kept])


def measure(
    features: Mapping[str, ProbeFeatures],
    drawn: Sequence[Draw],
    config: Evaluation,
    metadata: Mapping[str, Mapping[str, Any]],
) -> Iterator[Row]:
    """Train a layer on every draw under every method, all together; result rows.

    Every layer is tested on all test videos of its classes. `metadata` gives the other fields of
    the rows, by method as the features; the classes of both parts are added to `data`.
    """
    jobs = [(method, draw) for method in features for draw in drawn]
    jobs.sort(key=lambda job: (job[0], job[1].part))
    fitted = fit_together([training(features[m].train, draw) for m, draw in jobs], config)
    halves = class_digest(drawn)
    layers = zip(jobs, (probe for probe, _ in fitted), strict=True)
    for (method, _), group in itertools.groupby(layers, lambda one: (one[0][0], one[0][1].part)):
        tested = [(draw, probe) for (_, draw), probe in group]
        known = {**metadata[method], "data": f"{metadata[method]['data']}, classes {halves}"}
        yield from scored(features[method], tested, config, **known)


def measure_fresh(
    sources: Sources,
    features: Mapping[str, ProbeFeatures],
    target: Manifest,
    drawn: Sequence[Draw],
    config: Evaluation,
    metadata: Mapping[str, Mapping[str, Any]],
) -> Iterator[Row]:
    """As `measure`, one layer after the other, on clips that are encoded in every epoch."""
    train, test = target.split("train"), target.split("test")
    halves = class_digest(drawn)
    for (method, source), draw in itertools.product(sources.items(), drawn):
        frozen, seeded = FrozenEncoders(source).to(device()), replace(config, seed=draw.seed)
        videos = train.only(train.videos[i] for i in draw.videos.tolist())
        probe, _ = fit_fresh(frozen, videos, seeded, classes=draw.classes)
        tested = features[method]
        if config.probe_batch_norm == "train":
            tested = replace(tested, **tested_by(frozen, test, config))
        known = {**metadata[method], "data": f"{metadata[method]['data']}, classes {halves}"}
        yield from scored(tested, [(draw, probe)], config, **known)


def class_digest(drawn: Sequence[Draw]) -> str:
    """Identifies the classes of all parts."""
    return digest({draw.part: draw.classes.tolist() for draw in drawn})


def scored(
    features: ProbeFeatures, layers: Sequence[tuple[Draw, Probe]], config: Evaluation, **known: Any
) -> Iterator[Row]:
    """Rows of both levels and metrics for layers of the same classes."""
    classes = layers[0][0].classes
    clips, label = of_classes(features.clip, classes)
    levels = {"clip": clips, "video": of_classes(features.video, classes)[0]}
    known |= {"task": "few-shot", "classes": len(classes)}
    for draw, probe in layers:
        seeded = replace(config, seed=draw.seed)
        yield from accuracies(probe, levels, label, seeded, split=draw.split, **known)


def few_shot_rows(
    sources: Sources,
    target: Manifest,
    classes: Mapping[str, Sequence[str]],
    config: Evaluation,
    work: Workspace,
    shares: Sequence[float] = splits.PERCENTS,
    seeds: int = 1,
) -> pd.DataFrame:
    """Few-shot probes of several encoders, measured and appended to the workspace's results.

    Each method is trained on `shares` percent of the training videos of each class, once for each
    of `seeds` draws from `config.seed` on. Returns the rows of these encoders, shares and seeds.
    """
    seeded, test = range(config.seed, config.seed + seeds), target.split("test")
    options: dict[str, Any] = {"percents": shares, "seeds": seeded}
    options["rounding"] = config.draw_rounding
    drawn = draws(target, classes, work.folder / "splits", **options)
    metadata = {
        method: row_metadata(source, test, work, config) for method, source in sources.items()
    }
    features = extract_each(sources, target, config, work.features)
    if config.probe_clips == "fresh":
        rows = measure_fresh(sources, features, target, drawn, config, metadata)
    else:
        rows = measure(features, drawn, config, metadata)
    return results.record(work.results, rows)


# ---- over seeds -------------------------------------------------------------------------------


def with_parts(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the part and the percentage of their split as columns."""
    parts = rows["split"].astype(str).str.extract(r"^(.+), (.+) %$")
    return rows.assign(part=parts[0], percent=parts[1].astype(float))


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, one row per setting, with an interval and the number of `seeds`.

    Draws and initial weights vary with the seed (Student's t over seeds); test videos do not
    (bootstrap intervals of the rows). The wider of the two is given. Published rows have none.
    """
    table = results.over_seeds(with_parts(rows), student=True)
    return table.assign(low=table["low"].clip(lower=0), high=table["high"].clip(upper=100))


def gaps(rows: pd.DataFrame, base: str = "supervised") -> pd.DataFrame:
    """Differences to the method `base`, in points, one row per setting; intervals as `over_seeds`.

    Differences are taken seed by seed, on the same draws. For the choice of test videos the
    intervals of both methods are added in quadrature, as if their errors were independent; they
    are mostly correlated, so this is rather too wide.

    Raises:
        ValueError: when `base` was not measured.
    """
    if base not in set(rows["method"]):
        raise ValueError(f"differences are to {base!r}, which was not measured: add it to methods")
    table = with_parts(rows).assign(half=(rows["high"] - rows["low"]) / 2)
    key = ["dataset", "level", "metric", "part", "percent", "seed"]
    reference = table.loc[table["method"] == base, [*key, "value", "half"]]
    both = table[table["method"] != base].merge(reference, on=key, suffixes=("", "_base"))
    gap, half = both["value"] - both["value_base"], np.hypot(both["half"], both["half_base"])
    both = both.assign(value=gap, low=gap - half, high=gap + half)
    return results.over_seeds(both[table.columns.drop("half")], student=True)


# SHIM of the redesign: until this module holds them itself, names come from where they stand now.
_SHIM = ["avnb.evaluation.splits"]


def __getattr__(name: str) -> object:
    import importlib

    for module in _SHIM:
        found = importlib.import_module(module)
        if hasattr(found, name):
            return getattr(found, name)
    raise AttributeError(name)

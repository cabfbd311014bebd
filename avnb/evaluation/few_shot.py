"""Few-shot probes on seen and unseen classes (thesis 4.3): many linear layers, trained together.

A draw of training videos is a function of the videos, their labels and a seed; it lies in a file
of a folder named after all three, which every process reads.

Shapes: V training videos, D clips of each, F features, N videos drawn, C classes of a part.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from avnb.config import Evaluation, digest, unknown_name
from avnb.data.manifest import Manifest
from avnb.evaluation import results
from avnb.evaluation.features import Features, FrozenEncoders, Sources, device, row_metadata
from avnb.evaluation.linear import Probe, Training, fit_together
from avnb.evaluation.probe import ProbeFeatures, accuracies, extract_each, fit_fresh, tested_by
from avnb.evaluation.results import Row
from avnb.files import locked, write_text
from avnb.profiles import Workspace

PERCENTS = (5.0, 10.0, 20.0, 50.0, 100.0)
Rounding = Literal["down", "nearest"]
ROUNDED = {"down": 1e-9, "nearest": 0.5}  # added before the fraction is cut off


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


def draw_size(videos: int, percent: float, rounding: Rounding = "down") -> int:
    """Number of a class's videos in a draw, at least one; the released code rounds down."""
    return max(1, int(videos * percent / 100 + ROUNDED[rounding]))


def drawn_rows(
    labels: Sequence[str], percent: float, seed: int, rounding: Rounding = "down"
) -> list[int]:
    """Positions of the videos drawn from each class, in ascending order.

    A class's videos are shuffled once and a draw takes the first of them, so that a smaller draw
    is part of every larger one. The order depends on the seed and the class's name alone, so that
    leaving out other classes changes nothing.
    """
    drawn: list[int] = []
    for label, group in pd.Series(range(len(labels))).groupby(list(labels)):
        rng = np.random.default_rng(int(digest([seed, label]), 16))
        order = rng.permutation(len(group))
        drawn += group.iloc[order[: draw_size(len(group), percent, rounding)]].tolist()
    return sorted(drawn)


def draw_files(
    train: Manifest,
    folder: Path | str,
    *,
    seed: int,
    percents: Sequence[float] = PERCENTS,
    rounding: Rounding = "down",
) -> dict[float, Path]:
    """Draws of training videos as tables `video,label`, one file per percentage, made once.

    ValueError when a file that is there says something else.
    """
    ids, labels = [v.id for v in train.videos], [v.label for v in train.videos]
    own = Path(folder) / f"few-shot-{digest([ids, labels, seed, rounding])}"
    files, table = {}, pd.DataFrame({"video": ids, "label": labels})
    with locked(own):
        for percent in percents:
            file = files[percent] = own / f"{percent:g}-percent.csv"
            drawn = table.iloc[drawn_rows(labels, percent, seed, rounding)]
            text = drawn.to_csv(index=False, lineterminator="\n")
            if not file.exists():
                write_text(file, text)
            elif file.read_text(encoding="utf-8") != text:
                raise ValueError(f"{file} was changed by hand; delete it, and it is made again")
    return files


def draws(
    manifest: Manifest,
    classes: Mapping[str, Sequence[str]],
    folder: Path | str,
    *,
    percents: Sequence[float] = PERCENTS,
    seeds: Sequence[int] = (0,),
    rounding: Rounding = "down",
) -> list[Draw]:
    """Draws of every seed, percentage and part, from files that are made once in `folder`.

    `classes` names those of each part. ValueError for a class that the data set lacks, and a part
    without training videos.
    """
    train = manifest.split("train")
    row = {video.id: i for i, video in enumerate(train.videos)}
    label, drawn = [video.label for video in train.videos], []
    numbers = {part: numbered(manifest, names, part) for part, names in classes.items()}
    for seed in seeds:
        files = draw_files(train, folder, seed=seed, percents=percents, rounding=rounding)
        for (percent, file), part in itertools.product(files.items(), classes):
            rows = [row[video] for video in pd.read_csv(file, dtype=str)["video"]]
            videos = torch.tensor([i for i in rows if label[i] in classes[part]])
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


def training(train: Features | None, draw: Draw) -> Training:
    """Training data of a draw's layer; labels are counted within the draw's classes."""
    assert train is not None  # where clips are fresh, `measure_fresh` is called
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
    the rows by method.
    """
    jobs = sorted(itertools.product(features, drawn), key=lambda job: (job[0], job[1].part))
    fitted = fit_together([training(features[m].train, draw) for m, draw in jobs], config)
    for (method, draw), (probe, _) in zip(jobs, fitted, strict=True):
        yield from scored(features[method], draw, probe, config, **metadata[method])


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
    for (method, source), draw in itertools.product(sources.items(), drawn):
        frozen, seeded = FrozenEncoders(source).to(device()), replace(config, seed=draw.seed)
        videos = train.only(train.videos[i] for i in draw.videos.tolist())
        probe, _ = fit_fresh(frozen, videos, seeded, classes=draw.classes)
        tested = features[method]
        if config.probe_batch_norm == "train":
            tested = replace(tested, **tested_by(frozen, test, config))
        yield from scored(tested, draw, probe, config, **metadata[method])


def scored(
    features: ProbeFeatures, draw: Draw, probe: Probe, config: Evaluation, **known: Any
) -> list[Row]:
    """Rows of both levels and metrics of a draw's layer."""
    clips, label = of_classes(features.clip, draw.classes)
    levels = {"clip": clips, "video": of_classes(features.video, draw.classes)[0]}
    known |= {"task": "few-shot", "split": draw.split, "classes": len(draw.classes)}
    return accuracies(probe, levels, label, replace(config, seed=draw.seed), **known)


def few_shot_rows(
    sources: Sources,
    target: Manifest,
    classes: Mapping[str, Sequence[str]],
    config: Evaluation,
    work: Workspace,
    shares: Sequence[float] = PERCENTS,
    seeds: int = 1,
) -> pd.DataFrame:
    """Few-shot probes of several encoders, measured and appended to the workspace's results.

    Each method is trained on `shares` percent of the training videos of each class, once for each
    of `seeds` draws from `config.seed` on. Returns the rows of these encoders, shares and seeds.
    """
    every, test = range(config.seed, config.seed + seeds), target.split("test")
    options: dict[str, Any] = {"percents": shares, "rounding": config.draw_rounding}
    drawn = draws(target, classes, work.folder / "splits", seeds=every, **options)
    halves = digest({draw.part: draw.classes.tolist() for draw in drawn})
    metadata = {m: row_metadata(source, test, work, config) for m, source in sources.items()}
    for known in metadata.values():
        known["data"] += f", classes {halves}"
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

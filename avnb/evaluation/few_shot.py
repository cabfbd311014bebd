"""Few-shot probes on seen and unseen classes (thesis 4.3): many linear layers, trained together.

A draw of training videos is a function of the videos, their labels and a seed; it lies in a file
of a folder named after all three.

Shapes: S seeds, N videos drawn, C classes of a part.
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

from avnb.config import Evaluation, digest
from avnb.data.manifest import Manifest
from avnb.evaluation import probe
from avnb.evaluation.features import EncoderSource, Sources, row_metadata
from avnb.evaluation.results import Row, record
from avnb.files import tqdm, write_text
from avnb.profiles import Workspace


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Training videos of one part's classes, drawn at one percentage from each of some seeds."""

    part: str  # seen or unseen
    percent: float  # of the training videos of each class
    seeds: Sequence[int]  # of the draws, and of the layers that are trained on them
    classes: Tensor  # [C] labels of the data set, ascending: a layer's outputs
    videos: Tensor  # [S, N] rows of the training videos

    @property
    def split(self) -> str:
        """The field `split` of result rows: `seen, 5 %`."""
        return f"{self.part}, {self.percent:g} %"


def drawn_rows(labels: Sequence[str], percent: float, seed: int) -> list[int]:
    """Positions of the videos drawn from each class, at least one, in ascending order.

    As in the released code their number is rounded down. A class's videos are shuffled once and a
    draw takes the first of them, so that a smaller draw is part of every larger one. The order
    depends on the seed and the class's name alone, so that leaving out other classes changes
    nothing.
    """
    drawn: list[int] = []
    for label, group in pd.Series(range(len(labels))).groupby(list(labels)):
        order = np.random.default_rng(int(digest([seed, label]), 16)).permutation(len(group))
        size = max(1, int(len(group) * percent / 100 + 1e-9))
        drawn += group.iloc[order[:size]].tolist()
    return sorted(drawn)


def draw_ids(train: Manifest, folder: Path, percent: float, seed: int) -> set[str]:
    """The ids of a draw, from a table `video,label` that is made once below `folder`."""
    table = pd.DataFrame({"video": [v.id for v in train.videos]})
    table["label"] = labels = [v.label for v in train.videos]
    own = folder / f"few-shot-{digest([table['video'].tolist(), labels, seed])}"
    file = own / f"{percent:g}-percent.csv"
    if not file.exists():
        drawn = table.iloc[drawn_rows(labels, percent, seed)]
        write_text(file, drawn.to_csv(index=False, lineterminator="\n"))
    return {*pd.read_csv(file, dtype=str)["video"]}


def draws(
    manifest: Manifest,
    classes: Mapping[str, Sequence[str]],
    folder: Path,
    *,
    percents: Sequence[float],
    seeds: Sequence[int],
) -> list[Draw]:
    """Draws of every percentage and part, from files that are made once in `folder`.

    `classes` names those of each part. ValueError for a part without training videos.
    """
    train, drawn = manifest.split("train"), []
    for percent, (part, names) in itertools.product(percents, classes.items()):
        own = torch.tensor([v.label in names for v in train.videos])
        if not own.any():
            raise ValueError(f"no {part} class of {manifest.name} has a training video")
        ids = [draw_ids(train, folder, percent, seed) for seed in seeds]
        kept = [own & torch.tensor([v.id in some for v in train.videos]) for some in ids]
        rows: dict[str, Any] = {"videos": torch.stack([row.nonzero()[:, 0] for row in kept])}
        rows["classes"] = torch.tensor([name in names for name in manifest.classes]).nonzero()[:, 0]
        drawn.append(Draw(part=part, percent=percent, seeds=seeds, **rows))
    return drawn


def fit_draws(
    source: EncoderSource,
    target: Manifest,
    features: probe.ProbeFeatures,
    draw: Draw,
    config: Evaluation,
) -> Iterator[tuple[probe.Probe, probe.ProbeFeatures]]:
    """A layer for each seed of a draw, and the features that it is tested on.

    On cached features all are trained together; on fresh clips one after the other.
    """
    if config.probe_clips == "cached":
        train, known = features["train"], {"videos": draw.videos, "seeds": draw.seeds}
        label = torch.searchsorted(draw.classes, train.label)  # of other classes it is not used
        layers = probe.fit_together(train.video, label, len(draw.classes), config, **known)
        yield from ((layer, features) for layer, _ in layers)
        return
    train, test = target.split("train").videos, target.split("test").videos
    for seed, rows in zip(draw.seeds, draw.videos.tolist(), strict=True):
        videos, seeded = target.only([*(train[i] for i in rows), *test]), replace(config, seed=seed)
        (layer, _), tested = probe.fit_probe(source, videos, features, seeded, draw.classes)
        yield layer, tested


def few_shot_rows(
    sources: Sources,
    target: Manifest,
    classes: Mapping[str, Sequence[str]],
    config: Evaluation,
    work: Workspace,
    shares: Sequence[float],
    seeds: int = 1,
) -> pd.DataFrame:
    """Few-shot probes of several encoders, measured and appended to the workspace's results.

    Each method is trained on `shares` percent of the training videos of each class, once for each
    of `seeds` draws from `config.seed` on, and tested on all test videos of the classes. Returns
    the rows of these encoders, shares and seeds.
    """
    every, rows = range(config.seed, config.seed + seeds), list[Row]()
    drawn = draws(target, classes, work.folder / "splits", percents=shares, seeds=every)
    halves = digest({draw.part: draw.classes.tolist() for draw in drawn})
    features = probe.extract_each(sources, target, config, work.features)
    jobs = list(itertools.product(sources.items(), drawn))
    for (method, source), draw in tqdm(jobs, "few-shot probes"):
        known = row_metadata(source, target.split("test"), work, config)
        known |= {"task": "few-shot", "split": draw.split}
        known["data"] += f", classes {halves}"
        fitted = fit_draws(source, target, features[method], draw, config)
        for seed, (layer, tested) in zip(every, fitted, strict=True):
            seeded = replace(config, seed=seed)
            rows += probe.scored(layer, tested, seeded, draw.classes, **known)
    return record(work.results, rows)

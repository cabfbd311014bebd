"""Few-shot probes on seen and unseen classes (thesis 4.3): many linear layers, trained together.

A draw of training videos is a function of the videos, their labels and a seed; it lies in a file
of a folder named after all three.

Shapes: S seeds, N videos drawn, C classes of a part.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from avnb.config import Evaluation, digest
from avnb.data.manifest import Manifest
from avnb.evaluation import probe
from avnb.evaluation.features import Sources, row_metadata
from avnb.evaluation.results import Row, record
from avnb.files import tqdm, write_text
from avnb.profiles import Workspace

# By part (seen, unseen) and percentage of the training videos of each class: the labels of the
# part's classes [C], ascending, and the rows of the training videos that are drawn [S, N].
Draws = dict[tuple[str, float], tuple[Tensor, Tensor]]


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
) -> Draws:
    """Draws of every percentage and part from some seeds, from files made once in `folder`.

    `classes` names those of each part. ValueError for a part without training videos.
    """
    train, drawn = manifest.split("train"), Draws()
    for percent, (part, names) in itertools.product(percents, classes.items()):
        own = torch.tensor([v.label in names for v in train.videos])
        if not own.any():
            raise ValueError(f"no {part} class of {manifest.name} has a training video")
        ids = [draw_ids(train, folder, percent, seed) for seed in seeds]
        kept = [own & torch.tensor([v.id in some for v in train.videos]) for some in ids]
        labels = torch.tensor([i for i, name in enumerate(manifest.classes) if name in names])
        drawn[part, percent] = labels, torch.stack([rows.nonzero()[:, 0] for rows in kept])
    return drawn


def few_shot_rows(
    sources: Sources, target: Manifest, drawn: Draws, config: Evaluation, work: Workspace
) -> pd.DataFrame:
    """Few-shot probes of several encoders, measured and appended to the workspace's results.

    Each method is trained once for each draw and seed, from that of `config` on, and tested on all
    test videos of the classes. Returns the rows.
    """
    halves = digest({part: labels.tolist() for (part, _), (labels, _) in drawn.items()})
    features = probe.extract_each(sources, target, config, work.features)
    jobs, rows = list(itertools.product(sources.items(), drawn.items())), list[Row]()
    for (method, source), ((part, percent), (labels, videos)) in tqdm(jobs, "few-shot probes"):
        known = row_metadata(source, target.split("test"), work, config)
        known |= {"task": "few-shot", "split": f"{part}, {percent:g} %"}
        known["data"] += f", classes {halves}"
        seeds, own = range(config.seed, config.seed + len(videos)), features[method]
        which = {"classes": labels, "videos": videos}
        fitted = probe.fit_probes(source, target, own, config, seeds, **which)
        for seed, ((layer, _), tested) in zip(seeds, fitted, strict=True):
            rows += probe.scored(layer, tested, replace(config, seed=seed), labels, **known)
    return record(work.results, rows)

"""Few-shot probes on seen and unseen classes (thesis 4.3): many linear layers, trained together.

A draw of training videos is a function of their labels and a seed.

Shapes: S seeds, N videos drawn, C classes of a part.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from avnb.config import Evaluation, digest
from avnb.data.manifest import Manifest
from avnb.evaluation import probe
from avnb.evaluation.features import Sources, row_metadata
from avnb.evaluation.results import Row, record
from avnb.files import tqdm
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


def draws(
    manifest: Manifest, classes: Mapping[str, list[str]], percents: list[float], seeds: range
) -> Draws:
    """Draws of every percentage and part from some seeds.

    `classes` names those of each part. ValueError for a part without training videos.
    """
    every, drawn = [v.label for v in manifest.split("train").videos], Draws()
    for percent, (part, names) in itertools.product(percents, classes.items()):
        if not {*names} & {*every}:
            raise ValueError(f"no {part} class of {manifest.name} has a training video")
        rows = [drawn_rows(every, percent, seed) for seed in seeds]
        own = torch.tensor([[row for row in one if every[row] in names] for one in rows])
        labels = torch.tensor([i for i, name in enumerate(manifest.classes) if name in names])
        drawn[part, percent] = labels, own
    return drawn


def few_shot_rows(
    sources: Sources, target: Manifest, drawn: Draws, config: Evaluation, work: Workspace
) -> pd.DataFrame:
    """Few-shot probes of several encoders, measured and appended to the workspace's results.

    Each method is trained once for each draw and seed, from that of `config` on, and tested on all
    test videos of the classes. Returns the rows.
    """
    halves = digest({part: labels.tolist() for (part, _), (labels, _) in drawn.items()})
    features = {
        method: probe.probe_features(source, target, config, work.features)
        for method, source in sources.items()
    }
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

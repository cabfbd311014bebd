"""Draws of a few training videos, for probes on seen and unseen classes (thesis 4.3).

Shapes: S seeds, N videos drawn, C classes of a part.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from avnb.config import digest
from avnb.data.manifest import Manifest

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

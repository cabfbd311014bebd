"""Figures on retrieval."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from avnb.report.wording import label


def plot_gallery(
    frames: dict[int, np.ndarray], ranks: np.ndarray, names: Sequence[str], right: np.ndarray
) -> Figure:
    """Queries and their nearest videos, after thesis Figures A.1 to A.4.

    Args:
        frames: middle frame [H, W, 3] of each video by its row; query i has the key -1 - i.
        ranks: [Q, k] gallery rows, nearest first.
        names: class of each frame, row by row: the query's, then those of its answers.
        right: [Q, k] whether the answer has the query's class.
    """
    count, k = ranks.shape
    fig, axes = plt.subplots(count, k + 1, figsize=(9, 1.45 * count), squeeze=False)
    keys = np.column_stack([-1 - np.arange(count), ranks])
    colours = np.column_stack([["black"] * count, np.where(right, "#2e7d32", "#b3261e")])
    for ax, key, name, colour in zip(axes.flat, keys.flat, names, colours.flat, strict=True):
        ax.imshow(frames[int(key)])
        ax.set(xticks=[], yticks=[])
        ax.set_title(label(name), fontsize=7.5, pad=3)
        ax.spines[:].set(visible=True, color=colour, linewidth=2.2)
    return fig

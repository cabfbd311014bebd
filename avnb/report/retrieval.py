"""Figures on retrieval."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure


def plot_gallery(
    frames: dict[int, np.ndarray], ranks: np.ndarray, names: Sequence[str], right: np.ndarray
) -> Figure:
    """Queries and their nearest videos, after thesis Figures A.1 to A.4.

    Args:
        frames: middle frame [H, W, 3] of each video by its row; queries have negative keys -1 - i.
        ranks: [Q, k] gallery rows, nearest first.
        names: class of each picture, row by row: the query's, then its answers'.
        right: [Q, k] whether the answer has the query's class.
    """
    count, k = ranks.shape
    fig, axes = plt.subplots(count, k + 1, figsize=(9, 1.45 * count), squeeze=False)
    texts = iter(names)
    for row in range(count):
        keys = [-1 - row, *map(int, ranks[row])]
        for column, (ax, key) in enumerate(zip(axes[row], keys, strict=True)):
            ax.imshow(frames[key])
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_title(next(texts), fontsize=7.5, pad=3)
            colour = (
                "black" if column == 0 else ("#2e7d32" if right[row, column - 1] else "#b3261e")
            )
            for side in ax.spines.values():
                side.set(visible=True, color=colour, linewidth=2.2)
    return fig

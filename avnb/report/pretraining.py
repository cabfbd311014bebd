"""Figures and readings on pre-training runs."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from avnb.config import Pretrain
from avnb.models.collapse import collapse_warning


def terms_of(log: pd.DataFrame) -> dict[str, list[str]]:
    """The columns of a pre-training log that belong into one panel, by title."""
    panels = {
        "loss": ["loss", "validation_loss", "video_to_audio", "audio_to_video"],
        "cosine with bank rows": ["cosine_own", "cosine_other"],
        "terms of VICReg": ["invariance", "variance", "covariance"],
        "accuracy": ["accuracy", "validation_accuracy"],
        "spread of embeddings": [
            name for name in map(str, log.columns) if name.endswith("_spread")
        ],
        "effective rank": [name for name in map(str, log.columns) if name.endswith("_rank")],
    }
    there = {title: [n for n in names if n in log] for title, names in panels.items()}
    return {title: names for title, names in there.items() if names}


def plot_curves(log: pd.DataFrame, panels: dict[str, list[str]]) -> Figure:
    """Means of an epoch against epochs, one panel a group of terms."""
    fig, axes = plt.subplots(1, max(1, len(panels)), figsize=(9, 3), squeeze=False)
    if log.empty:
        axes[0, 0].set_title("not trained: no curves")
        return fig
    for ax, (title, names) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            ax.plot(log["epoch"] + 1, log[name], marker="o", ms=3, label=name.replace("_", " "))
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(fontsize=9)
        if title in ("spread of embeddings", "effective rank"):
            ax.set_ylim(bottom=0)  # what matters is how far from collapse
    return fig


def describe_covariance(log: pd.DataFrame) -> str:
    """Whether VICReg's terms evolved as the thesis tells (4.2.3): first one falls, then the others.

    There the covariance fell in the first epochs, and rose while the other two came down.
    """
    if len(log) < 3:
        return f"Of how the three terms evolve, {len(log)} epochs show too little."
    low = int(log["covariance"].argmin())
    rose = f"The covariance was smallest after epoch {low + 1} of {len(log)}"
    after = log.iloc[low:]
    if low == 0:
        rose = "The covariance was smallest after the first epoch"
    fell = [n for n in ("invariance", "variance") if after[n].iloc[-1] < after[n].iloc[0]]
    if low == len(log) - 1:
        return f"{rose}, the last one; in the thesis it rose again while the other terms fell."
    if len(fell) == 2:
        return f"{rose} and rose while both other terms fell, as the thesis tells of its own runs."
    return f"{rose}; after that, unlike in the thesis, not both of the other terms fell."


def describe_pretraining(log: pd.DataFrame, run: Pretrain) -> str:
    """What the curves of a pre-training run show, and whether its embeddings collapsed."""
    if log.empty:
        return f"`{run.method}` is not trained: its encoders stay as they were initialised."
    first, last = log.iloc[0], log.iloc[-1]

    def went(name: str, figures: str = ".3f") -> str:
        return f"{name.replace('_', ' ')} {first[name]:{figures}} → {last[name]:{figures}}"

    lines = [f"From the first to the last of {len(log)} epochs: {went('loss')}."]
    if run.method == "xid":
        lines.append(
            f"{went('cosine_own')}, {went('cosine_other')}: a gap of "
            f"{last['cosine_own'] - last['cosine_other']:.3f} between own and other videos."
        )
    if run.method.startswith("vicreg"):
        lines.append(f"{went('invariance')}, {went('variance')}, {went('covariance')}.")
        below = last["variance"] > 0.5
        lines.append(
            "The hinge on the standard deviation is "
            + (
                "far from met: embeddings vary less than asked for."
                if below
                else "mostly met: dimensions vary about as much as asked for."
            )
        )
        lines.append(describe_covariance(log))
    if run.method == "supervised":
        seen = list(log["validation_accuracy"])
        lines.append(
            f"{went('accuracy')} in training; on validation videos {went('validation_accuracy')}, "
            f"at best {max(seen):.3f} after epoch {seen.index(max(seen)) + 1}."
        )
    ranks = [name for name in map(str, log.columns) if name.endswith("_rank")]
    lines.append("Effective rank: " + ", ".join(went(name, ".1f") for name in ranks) + ".")
    wrong = [said for row in log.to_dict("records") if (said := collapse_warning(row))]  # type: ignore[arg-type]
    lines.append(f"**{wrong[-1]}.**" if wrong else "No collapse was seen at the end of any epoch.")
    return "\n".join(f"- {line}" for line in lines)

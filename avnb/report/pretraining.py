"""Figures and readings on pre-training runs."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from avnb.config import Pretrain
from avnb.data.replacements import LEDGER, read_ledger
from avnb.models.collapse import collapse_warning
from avnb.report.wording import bullets

PANELS = {  # title -> columns of a pre-training log, as a regular expression
    "loss": "^(validation_)?loss$|_to_",
    "cosine with bank rows": "^cosine_",
    "terms of VICReg": "^(invariance|variance|covariance)$",
    "accuracy": "accuracy$",
    "spread of embeddings": "_spread$",
    "effective rank": "_rank$",
}


def plot_curves(log: pd.DataFrame) -> Figure:
    """Epoch means of a pre-training log, related terms in one panel."""
    if log.empty:
        fig, ax = plt.subplots(figsize=(9, 3))
        ax.set_title("not trained: no curves")
        return fig
    table = log.set_index(log["epoch"] + 1)
    panels = {title: table.filter(regex=pattern) for title, pattern in PANELS.items()}
    known = [column for panel in panels.values() for column in panel]
    other = table.drop(columns=["epoch", "lr", *known], errors="ignore")
    panels["other terms"] = other.drop(columns=other.filter(regex="_std$"))
    panels = {title: panel for title, panel in panels.items() if len(panel.columns)}
    fig, axes = plt.subplots(1, len(panels), figsize=(9, 3), squeeze=False)
    for ax, (title, panel) in zip(axes[0], panels.items(), strict=True):
        panel.rename(columns=lambda name: name.replace("_", " ")).plot(ax=ax, marker="o", ms=3)
        ax.set_title(title, fontsize=11)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(fontsize=9)
        if title in ("spread of embeddings", "effective rank"):
            ax.set_ylim(bottom=0)  # the distance from collapse is what matters
    return fig


def describe_covariance(log: pd.DataFrame) -> str:
    """Whether VICReg's terms evolved as in the thesis (4.2.3).

    There the covariance fell in the first epochs and rose while the other two terms fell.
    """
    if len(log) < 3:
        return f"{len(log)} epochs are too few to show how the three terms evolve."
    lowest = int(log["covariance"].argmin())
    lead = f"The covariance was smallest after epoch {lowest + 1} of {len(log)}"
    if lowest == 0:
        lead = "The covariance was smallest after the first epoch"
    if lowest == len(log) - 1:
        return f"{lead}, the last one; in the thesis it rose again while the other terms fell."
    others = log[["invariance", "variance"]]
    if (others.iloc[-1] < others.iloc[lowest]).all():
        return f"{lead} and rose while both other terms fell, as in the thesis."
    return f"{lead}; unlike in the thesis, not both of the other terms fell after that."


def describe_replacements(folder: Path) -> str:
    """How many clips of a run could not be read and were replaced; '' when there is none."""
    lines = list(read_ledger(folder))
    if not lines:
        return ""
    videos = sorted({line["video"] for line in lines})
    some = ", ".join(f"`{video}`" for video in videos[:3])
    plural = "" if len(videos) == 1 else "s"
    return (
        f"- **{len(lines)} clips of {len(videos)} video{plural}** could not be read ({some}); "
        f"others of their batches took their place. `{LEDGER}` in the run's folder says why."
    )


def describe_pretraining(log: pd.DataFrame, run: Pretrain) -> str:
    """What the curves of a run show, by the terms its method logs, and whether it collapsed."""
    if log.empty:
        return f"`{run.method}` is not trained: its encoders stay as they were initialised."
    first, last = log.iloc[0], log.iloc[-1]

    def change(*names: str, form: str = ".3f") -> str:
        ends = {name: f"{first[name]:{form}} → {last[name]:{form}}" for name in names}
        return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in ends.items())

    lines = [f"From the first to the last of {len(log)} epochs: {change('loss')}."]
    if "cosine_own" in log:
        gap = (
            f"a gap of {last['cosine_own'] - last['cosine_other']:.3f} between own and other videos"
        )
        lines.append(f"{change('cosine_own', 'cosine_other')}: {gap}.")
    if "invariance" in log:
        hinge = "mostly satisfied: dimensions vary about as much as required."
        if last["variance"] > 0.5:
            hinge = "far from satisfied: embeddings vary less than required."
        lines.append(f"{change('invariance', 'variance', 'covariance')}.")
        lines.append(f"The hinge on the standard deviation is {hinge}")
        lines.append(describe_covariance(log))
    if "validation_accuracy" in log:
        validation = log["validation_accuracy"]
        lines.append(
            f"{change('accuracy')} in training; on validation videos "
            f"{change('validation_accuracy')}, at best {validation.max():.3f} after epoch "
            f"{validation.argmax() + 1}."
        )
    if ranks := [name for name in map(str, log) if name.endswith("_rank")]:
        lines.append(f"Effective rank: {change(*ranks, form='.1f')}.")
    warnings = [text for row in log.to_dict("records") if (text := collapse_warning(row))]  # type: ignore[arg-type]
    lines.append(f"**{warnings[-1]}.**" if warnings else "No epoch ended in collapse.")
    return bullets(lines)

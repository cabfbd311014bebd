"""Figures, table and readings on pre-training runs."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from avnb.book.style import method_title
from avnb.book.wording import listed, percent, sentence, title_in_text
from avnb.data.replacements import LEDGER, read_ledger
from avnb.models.collapse import collapse_warning

SHORT_OF_HINGE = 0.5  # of the variance term, whose largest value is 1
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
        if title in ("spread of embeddings", "effective rank"):
            ax.set_ylim(bottom=0)  # the distance from collapse is what matters
        low, high = ax.get_ylim()
        ax.set_ylim(top=high + (0.05 + 0.11 * len(panel.columns)) * (high - low))
        ax.legend(fontsize=9, loc="upper right")  # in the room above the lines
    return fig


def covariance_course(log: pd.DataFrame) -> str:
    """How VICReg's covariance went, in less than the 50 characters that a table shows.

    In the thesis (4.2.3) it fell in the first epochs and rose while the other two terms fell.
    """
    if len(log) < 3:
        return "too few epochs to say"
    lowest = int(log["covariance"].argmin())
    if lowest == len(log) - 1:
        return "falls to the end"
    others = log[["invariance", "variance"]]
    if (others.iloc[-1] < others.iloc[lowest]).all():
        return f"rises after epoch {lowest + 1} while both others fall"
    return f"rises after epoch {lowest + 1}, the others do not both fall"


def describe_replacements(folder: Path) -> str:
    """How many clips of a run could not be read and were replaced; '' when there is none."""
    lines = list(read_ledger(folder))
    if not lines:
        return ""
    videos = sorted({line["video"] for line in lines})
    some = ", ".join(f"`{video}`" for video in videos[:3])
    plural = "" if len(videos) == 1 else "s"
    return (
        f"**{len(lines)} clips of {len(videos)} video{plural}** could not be read ({some}); "
        f"others of their batches took their place. `{LEDGER}` in the run's folder says why."
    )


MEASURES = {  # of a log: what a method says of itself
    "loss": "loss",
    "cosine_own": "cosine with its own row",
    "cosine_other": "cosine with other rows",
    "invariance": "invariance",
    "variance": "variance",
    "covariance": "covariance",
    "accuracy": "training accuracy",
    "validation_accuracy": "validation accuracy",
}


def learnt_table(logs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The methods' own measures and effective ranks in the first epoch and in the last.

    Methods that were not trained are left out.
    """
    lines = []
    for method, log in logs.items():
        ranks = [name for name in map(str, log) if name.endswith("_rank")]
        titles = MEASURES | {n: f"effective rank, {n.removesuffix('_rank')}" for n in ranks}
        for name, title in titles.items():
            if len(log) and name in log:
                ends = {"first epoch": log[name].iloc[0], "last epoch": log[name].iloc[-1]}
                line = {"method": method_title(method), "measure": title}
                line |= {end: f"{value:.2f}" for end, value in ends.items()}
                course = covariance_course(log) if name == "covariance" else ""
                lines.append(line | {"course": course})
    columns = ["method", "measure", "first epoch", "last epoch", "course"]
    return pd.DataFrame(lines, columns=columns).set_index(columns[:2])


def learnt(method: str, log: pd.DataFrame) -> tuple[str, str]:
    """The measure that tells what a method has learnt, and its value."""
    first, last, under = log.iloc[0], log.iloc[-1], f"under {title_in_text(method)}"
    if "cosine_own" in log:
        own, other = f"{last['cosine_own']:.2f}", f"{last['cosine_other']:.2f}"
        value = f"{own} with the row of its own video and {other} with those of others {under}"
        return "in the end an embedding has a mean cosine of", value
    if "invariance" in log:
        value = f"from {first['invariance']:.2f} to {last['invariance']:.2f} {under}"
        return "the mean squared difference between two views goes", value
    if "validation_accuracy" in log:
        best = percent(100 * log["validation_accuracy"].max())
        return "in the best epoch", f"{best} of the validation clips are classified right {under}"
    return "the loss goes", f"from {first['loss']:.2f} to {last['loss']:.2f} {under}"


def describe_pretraining(logs: Mapping[str, pd.DataFrame]) -> str:
    """What each method has learnt by its own measure, and which runs collapsed."""
    trained = {method: log for method, log in logs.items() if len(log)}
    if not trained:
        return "Nothing was trained: the encoders stay as they were initialised."
    found: dict[str, list[str]] = {}
    for measure, value in (learnt(method, log) for method, log in trained.items()):
        found.setdefault(measure, []).append(value)
    said = [f"{measure} {listed(values)}" for measure, values in found.items()]
    short = [
        title_in_text(method)
        for method, log in trained.items()
        if "variance" in log and log["variance"].iloc[-1] > SHORT_OF_HINGE
    ]
    if short:
        said.append(f"the embeddings of {listed(short)} vary less than the loss asks for")
    lost = {m: warning for m, log in trained.items() if (warning := last_warning(log))}
    said += [f"{title_in_text(m)}: {warning}" for m, warning in lost.items()]
    return " ".join(map(sentence, said if lost else [*said, "no embeddings collapsed"]))


def last_warning(log: pd.DataFrame) -> str:
    """The last warning of a collapse in a log, '' if there is none."""
    rows = log.to_dict("records")
    return next((text for row in reversed(rows) if (text := collapse_warning(row))), "")

"""Figure, table and reading on the choices of the released code (`evaluation.probe_choices`)."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from avnb.book.style import RED, in_method_order, method_colour, method_title
from avnb.book.wording import (
    agreeing,
    listed,
    percent,
    records,
    rows_where,
    sentence,
    side,
    title_in_text,
    with_interval,
)
from avnb.config import Evaluation
from avnb.evaluation.probe_choices import CHOICES

COLUMNS = {  # of the table, in the order shown
    "video, top1": "whole videos, top-1",
    "clip, top1": "single clips, top-1",
    "seconds": "seconds",
}


def choice_names(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `probe.choice_rows` with the name of the choice that their protocol is."""
    title = {Evaluation().changed(**c).protocol_title: name for name, c in CHOICES.items()}
    return rows.assign(choice=rows["protocol"].map(title))


def plot_choices(rows: pd.DataFrame, level: str = "video", metric: str = "top1") -> Figure:
    """Accuracy of each encoder under each choice, with its interval and that of the first."""
    table = rows_where(choice_names(rows), level=level, metric=metric)
    methods, choices = in_method_order(table["method"]), list(table["choice"].unique())
    size = (9, 0.9 + 0.32 * len(choices))
    fig, axes = plt.subplots(1, len(methods), figsize=size, sharey=True, squeeze=False)
    for ax, method in zip(axes[0], methods, strict=True):
        line = table[table["method"] == method].set_index("choice").loc[choices]
        ax.axvspan(line["low"].iloc[0], line["high"].iloc[0], color="#e9ebee", zorder=0)
        spread = [line["value"] - line["low"], line["high"] - line["value"]]
        look: dict[str, Any] = {"color": method_colour(method), "fmt": "o", "capsize": 3}
        ax.errorbar(line["value"], choices, xerr=spread, **look)
        ax.axvline(line["chance"].iloc[0], color=RED, lw=1, ls="--")
        ax.set(xlabel="accuracy, %", title=method_title(method), xlim=(0, None))
    axes[0, 0].invert_yaxis()
    return fig


def choice_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Top-1 accuracy of every choice at both levels, and the seconds to train a layer."""
    table = choice_names(rows)
    table = table[table["metric"] != "top5"]
    table = table.assign(
        what=[f"{row['level']}, {row['metric']}".strip(", ") for row in table.to_dict("records")],
        method=table["method"].map(method_title),
        cell=[with_interval(row) for row in table.to_dict("records")],
    )
    wide = table.pivot(index=["method", "choice"], columns="what", values="cell")
    methods, choices = (table[name].unique() for name in ("method", "choice"))
    order = pd.MultiIndex.from_product([methods, choices], names=["method", "choice"])
    wide = wide.reindex(order)[[*COLUMNS]].rename(columns=COLUMNS)
    return wide.rename_axis(columns=None)


def describe_choices(rows: pd.DataFrame, level: str = "video", metric: str = "top1") -> str:
    """Which choices change an accuracy beyond the intervals."""
    said, open_for = [], []
    table = rows_where(choice_names(rows), level=level, metric=metric)
    for method in in_method_order(table["method"]):
        usual, *others = records(table[table["method"] == method])
        groups = {way: [row for row in others if side(row, usual) == way] for way in (1, -1)}
        for way, verb in (1, "raise"), (-1, "lower"):
            if found := groups[way]:
                cells = [f"{row['choice']} (to {percent(row['value'])})" for row in found]
                verbs = agreeing(cells, f"{verb}s", verb)
                own = f"{title_in_text(method)} ({percent(usual['value'])})"
                said.append(sentence(f"{verbs} the accuracy of {own} beyond its interval"))
        if not groups[1] and not groups[-1]:
            open_for.append(title_in_text(method))
    if open_for:
        names = listed(open_for, "or")
        said.append(f"No choice changes the accuracy of {names} beyond the intervals.")
    return " ".join(said)

"""Figures, tables and readings on few-shot probes."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from avnb.evaluation.few_shot import PARTS
from avnb.profiles import SIZES
from avnb.report.style import METHOD_COLOURS, METHOD_TITLES
from avnb.report.wording import with_interval

LEVELS = tuple((level, metric) for level in ("clip", "video") for metric in ("top1", "top5"))


def few_shot_panels(percents: Sequence[float]) -> tuple[Figure, dict[tuple[str, str, str], Axes]]:
    """A line of panels a level and metric, a column a part: by (level, metric, part)."""
    fig, axes = plt.subplots(len(LEVELS), len(PARTS), figsize=(9, 9.6), sharex=True, sharey="row")
    panels = {}
    for line, (level, metric) in zip(axes, LEVELS, strict=True):
        for ax, part in zip(line, PARTS, strict=True):
            panels[level, metric, part] = ax
            ax.set_title(f"{part} classes, {level} level, top-{metric[3:]}", fontsize=10)
            ax.set_xscale("log")
            ax.set_xticks(percents, [f"{percent:g}" for percent in percents], minor=False)
            ax.minorticks_off()
            ax.set_xlim(percents[0] * 0.75, percents[-1] / 0.75)
    for ax in axes[-1]:
        ax.set_xlabel("training videos of each class, %")
    return fig, panels


def rows_where(rows: pd.DataFrame, **values: str) -> pd.DataFrame:
    """The rows whose columns have these values; there may be none."""
    for name, value in values.items():
        rows = rows[rows[name] == value]
    return rows


def method_lines(ax: Axes, rows: pd.DataFrame) -> None:
    """A line a method with its intervals, set apart a little so that these can be told apart."""
    for i, (method, name) in enumerate(METHOD_TITLES.items()):
        some = rows[rows["method"] == method].sort_values("percent")
        if len(some):
            spread = [some["value"] - some["low"], some["high"] - some["value"]]
            ax.errorbar(
                some["percent"] * 1.03 ** (i - 2),
                some["value"],
                yerr=spread,
                label=name,
                color=METHOD_COLOURS[method],
                marker="o",
                ms=4,
                lw=1.6,
                elinewidth=0.9,
                capsize=2,
            )


def plot_few_shot(rows: pd.DataFrame) -> Figure:
    """Accuracy on a logarithmic axis against the share of training videos (Figures 4.1, 4.3).

    Args:
        rows: of one data set, as `fewshot.over_seeds` gives them.
    """
    fig, panels = few_shot_panels(sorted(set(rows["percent"])))
    for (level, metric, part), ax in panels.items():
        some = rows_where(rows, level=level, metric=metric, part=part)
        ax.set_yscale("log")
        # Zero has no place on such an axis: what reaches it ends at half of what else is least.
        lowest = min(some["chance"].min(), some["value"].replace(0, np.nan).min()) / 2
        shown = some[["value", "low", "high"]].clip(lower=lowest)
        method_lines(ax, some.assign(**{str(name): shown[name] for name in shown}))
        ax.axhline(some["chance"].iloc[0], color="#b3261e", lw=1, ls="--", label="chance")
        if ax.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            ax.set_ylabel("accuracy, %")
    for line in LEVELS:
        logarithmic_ticks([panels[*line, part] for part in PARTS])
    handles, labels = panels[*LEVELS[0], PARTS[0]].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    return fig


def logarithmic_ticks(axes: Sequence[Axes]) -> None:
    """Round numbers in percent on axes that share their range; at most the range up to 100."""
    low, high = axes[0].get_ylim()
    ticks = [t for t in (0.5, 1, 2, 5, 10, 20, 30, 50, 70, 100) if low <= t <= max(high, 100)]
    for ax in axes:
        ax.set_yticks(ticks, [f"{t:g}" for t in ticks], minor=False)
        ax.minorticks_off()
        ax.set_ylim(low, min(high, 110))


BASE_SHADES = {"here": ("#fde3cf", "#d55e00"), "thesis": ("#fff6d6", "#b58900")}


def plot_few_shot_gaps(
    differences: pd.DataFrame, ours: pd.DataFrame, published: pd.DataFrame
) -> Figure:
    """Difference to `supervised`, whose accuracy stands in boxes (Figures 4.2, 4.4).

    Args:
        differences: of one data set, as `fewshot.gaps` gives them.
        ours: accuracies, as `fewshot.over_seeds` gives them.
        published: the thesis's, the same.
    """
    fig, panels = few_shot_panels(sorted(set(differences["percent"])))
    for (level, metric, part), ax in panels.items():
        ax.axhline(0, color=METHOD_COLOURS["supervised"], lw=1.6)
        method_lines(ax, rows_where(differences, level=level, metric=metric, part=part))
        line = rows_where(differences, level=level, metric=metric)
        low, high = min(line["low"].min(), 0), max(line["high"].max(), 0)
        ax.set_ylim(low - 0.05 * (high - low), high + 0.5 * (high - low))  # the boxes stand above
        for rows, name, height in ((ours, "here", 0.94), (published, "thesis", 0.79)):
            base = rows_where(rows, level=level, metric=metric, part=part, method="supervised")
            boxes(ax, base, name, height)
        if ax.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            ax.set_ylabel("difference, points")
    handles, labels = panels[*LEVELS[0], PARTS[0]].get_legend_handles_labels()
    for name, (face, edge) in BASE_SHADES.items():
        handles.append(Patch(facecolor=face, edgecolor=edge))
        labels.append(f"Supervised, {name}, %")
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    return fig


def boxes(ax: Axes, rows: pd.DataFrame, name: str, height: float) -> None:
    """Accuracies in boxes at their percentage, at a height in [0, 1] of the panel."""
    low, high = ax.get_xlim()
    face, edge = BASE_SHADES[name]
    for row in rows.to_dict("records"):
        if low <= row["percent"] <= high:
            ax.text(
                row["percent"],
                height,
                f"{row['value']:.1f}",
                transform=ax.get_xaxis_transform(),
                ha="center",
                va="center",
                fontsize=8,
                bbox={"boxstyle": "round,pad=0.22", "facecolor": face, "edgecolor": edge},
            )


def few_shot_table(
    ours: pd.DataFrame, published: pd.DataFrame, level: str = "video", metric: str = "top1"
) -> pd.DataFrame:
    """Accuracy with its interval, one line a part and percentage, one column a method.

    Args:
        ours: as `fewshot.over_seeds` gives them.
        published: the thesis's `supervised`, the same.
    """
    named = METHOD_TITLES.items()
    columns = {
        name: rows_where(ours[ours["method"] == m], level=level, metric=metric) for m, name in named
    }
    columns |= {"Supervised, thesis": rows_where(published, level=level, metric=metric)}
    lines: dict[tuple[str, float], dict[str, str]] = {}
    for name, rows in columns.items():
        for row in rows.to_dict("records"):
            lines.setdefault((row["part"], row["percent"]), {})[name] = with_interval(row)
    asked = {(row["part"], row["percent"]) for row in ours.to_dict("records")}
    order = sorted(asked, key=lambda key: (PARTS.index(key[0]), key[1]))
    table = pd.DataFrame(
        [{"classes": part, "%": f"{percent:g}"} | lines[part, percent] for part, percent in order]
    )
    return table.fillna("–").set_index(["classes", "%"])


def describe_few_shot(rows: pd.DataFrame, profile: str) -> str:
    """How far each method comes with the fewest and with all videos; video level, top-1."""
    some, lines = rows_where(rows, level="video", metric="top1"), []
    few, many = some["percent"].min(), some["percent"].max()
    for part in PARTS:
        mine = some[some["part"] == part]
        said = []
        for method, name in METHOD_TITLES.items():
            at = {r["percent"]: r for r in mine[mine["method"] == method].to_dict("records")}
            if at:
                said.append(f"{name} from {with_interval(at[few])} to {with_interval(at[many])}")
        first = mine.iloc[0]
        lines.append(
            f"- **{part} classes** (n = {int(first['n'])} test videos, chance "
            f"{first['chance']:.1f} %), from {few:g} % to {many:g} % of the training videos: "
            f"{'; '.join(said)}."
        )
    return "\n".join([*lines, "", seeds_said(rows), SIZES.get(profile, "")])


def seeds_said(rows: pd.DataFrame) -> str:
    """What the intervals are made of."""
    seeds = int(rows["seeds"].min())
    if seeds == 1:
        return "Intervals: bootstrap over test videos, of a single draw; another may differ more."
    return (
        f"Intervals: the wider of Student's t over {seeds} seeds (draw and start of the layer) and "
        "the bootstrap over test videos."
    )


def side(row: Mapping[Any, Any]) -> int:
    """1 or -1 where a difference's interval lies wholly on one side of zero, else 0."""
    return int(row["low"] > 0) - int(row["high"] < 0)


def describe_gaps(differences: pd.DataFrame) -> str:
    """In how many settings a method is above `supervised`, below, or not to be told from it."""
    lines = []
    for part in PARTS:
        said = []
        for method, some in differences[differences["part"] == part].groupby("method", sort=False):
            sides = [side(row) for row in some.to_dict("records")]
            said.append(
                f"{METHOD_TITLES[str(method)]} is above in {sides.count(1)}, below in "
                f"{sides.count(-1)}, not to be told apart in {sides.count(0)}"
            )
        total = len(sides) if said else 0
        lines.append(
            f"- **{part} classes**, {total} settings (level, top-k, %): {'; '.join(said)}."
        )
    return "\n".join(lines)


def describe_unseen(differences: pd.DataFrame) -> str:
    """Whether the lead over `supervised` is another on unseen classes; all videos, top-1."""
    some = rows_where(differences, level="video", metric="top1")
    some, lines = some[some["percent"] == some["percent"].max()], []
    for method, both in some.groupby("method", sort=False):
        unseen, seen = (both[both["part"] == part].iloc[0] for part in PARTS)
        if unseen["low"] > seen["high"]:
            said = "it gains more where pre-training gave no name"
        elif unseen["high"] < seen["low"]:
            said = "it gains *less* where pre-training gave no name"
        else:
            said = "the intervals overlap, so the two cannot be told apart"
        lines.append(
            f"- **{METHOD_TITLES[str(method)]}** against Supervised: {with_interval(unseen)} "
            f"points on unseen classes, {with_interval(seen)} on seen ones; {said}."
        )
    return "\n".join(lines)


def describe_halves(ours: pd.DataFrame, published: pd.DataFrame) -> str:
    """Accuracy of `supervised` on either half, here and in the thesis."""
    said = []
    for where, rows in ("here", ours), ("in the thesis", published):
        some = rows_where(rows[rows["method"] == "supervised"], level="video", metric="top1")
        at = {
            r["part"]: r for r in some[some["percent"] == some["percent"].max()].to_dict("records")
        }
        if len(at) == len(PARTS):
            unseen, seen = (with_interval(at[part]) for part in PARTS)
            said.append(f"{where} {unseen} % on the unseen classes and {seen} % on the seen ones")
    return f"Supervised, with all training videos (video level, top-1): {'; '.join(said)}."

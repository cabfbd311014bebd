"""Figures, tables and readings on few-shot probes."""

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator

from avnb.book.style import chance_line, fig_legend, in_method_order, method_colour, method_title
from avnb.book.wording import (
    Record,
    agreeing,
    bullets,
    listed,
    literal,
    number,
    percent,
    records,
    rows_where,
    sentence,
    side,
    span,
    title_in_text,
    with_interval_below,
)
from avnb.evaluation.class_splits import PARTS, ClassSplit

LEVELS = tuple((level, metric) for level in ("clip", "video") for metric in ("top1", "top5"))
HEADLINE = {"level": "video", "metric": "top1"}  # what the readings are about
ZERO = {"low": 0.0, "high": 0.0}
ALONE = "only one method was evaluated, so there is nothing to compare it with"
BASE_SHADES = {"here": ("#fde3cf", "#d55e00"), "thesis": ("#fff6d6", "#b58900")}


RULES = {
    "published": "the lists of the thesis's code",
    "thesis": "names matched by the rule of the thesis",
    "synthetic": "the object and the motion that each class of the synthetic world is made of",
    "file": "the list of unseen classes that was given",
}


def describe_split(split: ClassSplit) -> str:
    """How the classes were split into unseen and seen ones, and which are which."""
    rule, matched = RULES[split.rule], split.matched
    if matched is not None:
        rule += f" (threshold {matched.pair.threshold:g}, top {matched.top}, by {matched.method})"
    parts = [
        f"{len(names)} {part}: {', '.join(map(literal, names))}"
        for part, names in split.classes.items()
    ]
    return f"**{split.title}**, {rule}:\n\n{bullets(parts)}"


def few_shot_panels(
    rows: pd.DataFrame, unit: str
) -> tuple[Figure, list[tuple[dict[str, str], list[Axes]]]]:
    """A row of panels per level and metric, a column per part, against the share of videos.

    Returns the figure, and each row's values of `level` and `metric` with its axes.
    """
    fig, axes = plt.subplots(len(LEVELS), len(PARTS), figsize=(9, 9.6), sharex=True, sharey="row")
    percents = sorted(rows["percent"].unique())
    for (level, metric), line in zip(LEVELS, axes, strict=True):
        line[0].set_ylabel(unit)
        for ax, part in zip(line, PARTS, strict=True):
            ax.set_title(f"{part} classes, {level} level, top-{metric[3:]}", fontsize=10)
            ax.set(xscale="log", xlim=(percents[0] * 0.75, percents[-1] / 0.75))
            ax.set_xticks(percents, [f"{percent:g}" for percent in percents])
            ax.minorticks_off()
    for ax in axes[-1]:
        ax.set_xlabel("training videos of each class, %")
    settings = [{"level": level, "metric": metric} for level, metric in LEVELS]
    return fig, list(zip(settings, axes.tolist(), strict=True))


def method_lines(ax: Axes, rows: pd.DataFrame) -> None:
    """A line per method with its intervals, shifted a little so that intervals do not overlap."""
    methods = in_method_order(rows["method"])
    style: dict[str, Any] = {"marker": "o", "ms": 4, "lw": 1.6, "elinewidth": 0.9, "capsize": 2}
    for i, method in enumerate(methods):
        line = rows_where(rows, method=method).sort_values("percent")
        x = line["percent"] * 1.03 ** (i - (len(methods) - 1) / 2)
        spread = [line["value"] - line["low"], line["high"] - line["value"]]
        look = {"label": method_title(method), "color": method_colour(method), **style}
        ax.errorbar(x, line["value"], yerr=spread, **look)


def plot_few_shot(rows: pd.DataFrame) -> Figure:
    """Accuracy on a logarithmic axis against the share of training videos (Figures 4.1, 4.3).

    `rows` are those of one data set, averaged by `few_shot.over_seeds`.
    """
    fig, panels = few_shot_panels(rows, "accuracy, %")
    for setting, axes in panels:
        for ax, part in zip(axes, PARTS, strict=True):
            group = rows_where(rows, part=part, **setting)
            # A logarithmic axis has no zero: such values end at half of the lowest other one.
            lowest = min(group["chance"].min(), group["value"].replace(0, np.nan).min()) / 2
            shown = group[["value", "low", "high"]].clip(lower=lowest)
            method_lines(ax, group.drop(columns=shown.columns).join(shown))
            chance_line(ax, group)
            ax.set_yscale("log")
            ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}")
            ax.yaxis.set_minor_locator(NullLocator())
        axes[0].set_ylim(top=min(110, axes[0].get_ylim()[1]))  # of the whole row
    fig_legend(fig, fig.axes[0])
    return fig


def plot_few_shot_gaps(
    differences: pd.DataFrame, ours: pd.DataFrame, published: pd.DataFrame, base: str = "supervised"
) -> Figure:
    """Differences to `base`, whose accuracies are given in boxes (Figures 4.2, 4.4).

    Args:
        differences: of one data set, from `few_shot.gaps`; none where there is one method.
        ours: accuracies, averaged by `few_shot.over_seeds`.
        published: the thesis's, likewise.
        base: the method that the differences are to.
    """
    fig, panels = few_shot_panels(ours, "difference, points")
    for setting, axes in panels:
        line = rows_where(differences, **setting)
        low, high = min([0, *line["low"]]), max([1, *line["high"]])
        for ax, part in zip(axes, PARTS, strict=True):
            ax.axhline(0, color=method_colour(base), lw=1.6)
            method_lines(ax, rows_where(line, part=part))
            ax.set_ylim(low - 0.05 * (high - low), high + 0.5 * (high - low))  # room for the boxes
            for rows, place, height in ((ours, "here", 0.94), (published, "thesis", 0.79)):
                boxes(ax, rows_where(rows, part=part, method=base, **setting), place, height)
    handles, labels = fig.axes[0].get_legend_handles_labels()
    for place, (face, edge) in BASE_SHADES.items():
        handles.append(Patch(facecolor=face, edgecolor=edge))
        labels.append(f"{method_title(base)}, {place}, %")
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    return fig


def boxes(ax: Axes, rows: pd.DataFrame, place: str, height: float) -> None:
    """Accuracies in boxes at their percentage, at a height in [0, 1] of the panel."""
    low, high = ax.get_xlim()
    face, edge = BASE_SHADES[place]
    box = {"boxstyle": "round,pad=0.22", "facecolor": face, "edgecolor": edge}
    text: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "bbox": box}
    for row in rows[rows["percent"].between(low, high)].to_dict("records"):
        value, transform = f"{row['value']:.1f}", ax.get_xaxis_transform()
        ax.text(row["percent"], height, value, transform=transform, **text)


def few_shot_table(
    ours: pd.DataFrame,
    published: pd.DataFrame,
    level: str = "video",
    metric: str = "top1",
    base: str = "supervised",
) -> pd.DataFrame:
    """Accuracy with its interval, one line per part and percentage, one column per method.

    `ours` and the thesis's rows of `base` are both averaged by `few_shot.over_seeds`.
    """
    columns = {method_title(m): rows_where(ours, method=m) for m in in_method_order(ours["method"])}
    columns[f"{method_title(base)}, thesis"] = rows_where(published, method=base)
    cells = [
        (row["part"], row["percent"], title, with_interval_below(row))
        for title, rows in columns.items()
        for row in rows_where(rows, level=level, metric=metric).to_dict("records")
        if row["percent"] in set(ours["percent"])
    ]
    table = pd.DataFrame(cells, columns=["classes", "%", "title", "cell"])
    table = table.pivot(index=["classes", "%"], columns="title", values="cell")
    table = table.reindex(columns=list(columns)).astype(object).fillna("–")
    table = table.loc[[part for part in PARTS if part in table.index]]  # unseen classes first
    return table.rename(index="{:g}".format, level="%").rename_axis(columns=None)


def with_all_videos(rows: pd.DataFrame) -> dict[str, dict[str, Record]]:
    """Method -> part -> video-level top-1 row with all training videos."""
    table: dict[str, dict[str, Record]] = {}
    rows = rows_where(rows, **HEADLINE)
    for row in records(rows[rows["percent"] == rows["percent"].max()]):
        table.setdefault(row["method"], {})[row["part"]] = row
    return table


def describe_intervals(rows: pd.DataFrame) -> str:
    """What the intervals of `few_shot.over_seeds` cover."""
    if (seeds := int(rows["seeds"].min())) > 1:
        return (
            f"Intervals are the wider of Student's t over {number(seeds)} seeds, each with its own "
            "draw of videos and initial weights, and the interval over test videos."
        )
    return "Intervals are those over test videos, for one draw; another draw may differ by more."


def gaps_table(differences: pd.DataFrame) -> pd.DataFrame:
    """In how many settings a method is above the base, below it, or not apart from it."""
    lines = []
    for part in PARTS:
        for method in in_method_order(differences["method"]):
            group = rows_where(differences, part=part, method=method).to_dict("records")
            sides = [side(row, ZERO) for row in group]
            line: dict[str, Any] = {"classes": part, "method": method_title(method)}
            line |= {"above": sides.count(1), "below": sides.count(-1)}
            lines.append(line | {"not apart": sides.count(0), "settings": len(group)})
    columns = ["classes", "method", "above", "below", "not apart", "settings"]
    return pd.DataFrame(lines, columns=columns).set_index(["classes", "method"])


def gaps_in_words(rows: Iterable[Record], base: str) -> str:
    """Which of some differences to `base` lie above zero, and which below."""
    parts, name = list[str](), title_in_text(base)
    for way, one, several in (1, "leads", "lead"), (-1, "trails", "trail"):
        if found := [row for row in rows if side(row, ZERO) == way]:
            names = [title_in_text(row["method"]) for row in found]
            points = span(abs(row["value"]) for row in found)
            it = "it" if parts else name
            parts.append(f"{agreeing(names, one, several)} {it} by {points} points")
    return listed(parts) if parts else f"no method can be told apart from {name}"


def enough(ours: pd.DataFrame) -> str:
    """With which share of the training videos the best method is as good, or not told apart."""
    rows, found = rows_where(ours, **HEADLINE), dict[tuple[str, float], list[str]]()
    for part in PARTS:
        half = rows_where(rows, part=part)
        whole = records(half[half["percent"] == half["percent"].max()])
        best = max(whole, key=lambda row: row["value"])
        line = rows_where(half, method=best["method"]).to_dict("records")
        short = max((row["percent"] for row in line if side(best, row)), default=0)
        least = min(row["percent"] for row in line if row["percent"] > short)
        found.setdefault((best["method"], least), []).append(part)
    said = []
    for (method, least), parts in found.items():
        where = f"on {parts[0]} classes" if len(parts) == 1 else "on either half"
        said.append(f"{title_in_text(method)} needs {least:g} % of them {where}")
    what = "an accuracy that cannot be told apart from that with all training videos"
    return f"for {what}, {listed(said)}"


def describe_unseen(differences: pd.DataFrame, ours: pd.DataFrame, base: str = "supervised") -> str:
    """Leads over `base` on both halves, whether they differ, and how few videos are enough."""
    if differences.empty:
        return sentence(f"{ALONE}; {enough(ours)}")
    table = with_all_videos(differences)
    halves = {
        part: gaps_in_words([parts[part] for parts in table.values() if part in parts], base)
        for part in PARTS
    }
    said = [", and ".join(f"on {part} classes {text}" for part, text in halves.items())]
    if len(set(halves.values())) == 1:
        said = [f"on either half, {next(iter(halves.values()))}"]
    apart: dict[int, list[str]] = {1: [], -1: []}
    for method, parts in table.items():
        if way := side(*(parts[part] for part in PARTS)):
            apart[way].append(title_in_text(method))
    for way, more in (1, "better"), (-1, "worse"):
        if names := apart[way]:
            does = f"{agreeing(names, 'does', 'do')} {more} on unseen than on seen classes"
            said.append(f"against {title_in_text(base)}, {does}")
    if not any(apart.values()):
        said.append(
            "no method's lead or lag on unseen classes can be told apart from that on seen ones"
        )
    return " ".join(map(sentence, [*said, enough(ours)]))


def describe_halves(ours: pd.DataFrame, published: pd.DataFrame, base: str = "supervised") -> str:
    """Accuracy of `base` on unseen and seen classes, here and in the thesis; '' without either."""
    said = []
    for place, rows in ("here", ours), ("in the thesis", published):
        parts = with_all_videos(rows).get(base, {})
        if set(PARTS) <= set(parts):
            unseen, seen = (percent(parts[part]["value"]) for part in PARTS)
            said.append(f"{unseen} on unseen and {seen} on seen classes {place}")
    return sentence(f"{title_in_text(base)} reaches {'; '.join(said)}") if said else ""

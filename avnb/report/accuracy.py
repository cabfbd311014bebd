"""Figures, tables and readings on accuracy: probes, fine-tuning and retrieval."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from avnb.profiles import SIZES
from avnb.report.style import (
    LINES,
    chance_line,
    in_method_order,
    line_panels,
    method_colour,
    method_title,
)
from avnb.report.wording import (
    bullets,
    label,
    level_title,
    literal,
    metric_title,
    records,
    rows_where,
    side,
    standing,
    with_interval,
    with_spread,
)

Panels = Sequence[tuple[str, str]]  # (level, metric)


def plot_tuning(logs: Mapping[str, Sequence[Mapping[str, float]]], warmup_epochs: int) -> Figure:
    """Loss and accuracy on training clips, one line per method; the warm-up is shaded."""
    order = in_method_order(logs)
    table = pd.concat([pd.DataFrame(logs[m]).assign(method=method_title(m)) for m in order])
    table = table.assign(epoch=table.index + 1, accuracy=100 * table["accuracy"])
    panels = {"loss": "loss, cross-entropy", "accuracy": "accuracy, %"}
    colours = [method_colour(method) for method in order]
    fig = line_panels(table, "epoch", "method", panels, 3, palette=colours, marker="o")
    for ax in fig.axes if warmup_epochs else ():
        ax.axvspan(0.5, warmup_epochs + 0.5, color="#e9ebee", zorder=0)
    return fig


def plot_bars(rows: pd.DataFrame, panels: Panels, unit: str = "%") -> Figure:
    """A bar per method with its 95 % interval, and chance; one panel per (level, metric)."""
    columns = len(panels) if len(panels) <= 4 else 3
    lines = -(-len(panels) // columns)
    fig, axes = plt.subplots(lines, columns, figsize=(9, 3.1 * lines), squeeze=False, sharey=True)
    for ax, (level, metric) in zip(axes.flat, panels, strict=False):
        table = pd.DataFrame(records(rows_where(rows, level=level, metric=metric)))
        names, colours = table["method"].map(method_title), table["method"].map(method_colour)
        spread = [table["value"] - table["low"], table["high"] - table["value"]]
        ax.bar(names, table["value"], 0.6, color=colours, yerr=spread, capsize=3)
        text: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 9 - len(table) // 2}
        for x, row in enumerate(table.to_dict("records")):
            ax.text(x, row["high"] + 1, f"{row['value']:.1f}", **text)
        chance_line(ax, table)
        if len(table) > 2:
            ax.tick_params(axis="x", labelrotation=55, labelsize=9)
        ax.set_title(f"{level_title(level)}, {metric_title(metric)}", fontsize=10)
    axes[0, 0].set_ylim(0, 112)  # of all panels
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel(unit)
    axes[0, -1].legend(fontsize=8, loc="upper left")
    return fig


def plot_losses(curves: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Training loss of each method's probes by epoch, one line per seed."""
    fig, ax = plt.subplots(figsize=(7, 2.8))
    for method, seeds in curves.items():
        epochs = np.arange(1, len(seeds[0]) + 1)
        lines = ax.plot(epochs, np.transpose(seeds), color=method_colour(method))
        lines[0].set_label(method_title(method))
    ax.set(xlabel="epoch of the linear layer", ylabel="cross-entropy")
    ax.legend(fontsize=9)
    return fig


def plot_confusion(counts: Tensor, classes: Sequence[str]) -> Figure:
    """Percentage of each class's videos (row) assigned to each class (column)."""
    import seaborn as sns

    share = 100 * counts / counts.sum(dim=1, keepdim=True).clamp_min(1)
    fig, ax = plt.subplots(figsize=(6.4, 5.6))
    names = [*map(label, classes)] if len(classes) <= 30 else 20
    bar = {"label": "% of the class's videos", "shrink": 0.8}
    options = {"cmap": "Blues", "vmin": 0, "vmax": 100, "square": True, "cbar_kws": bar}
    sns.heatmap(share.numpy(), xticklabels=names, yticklabels=names, ax=ax, **options)
    ax.tick_params(labelsize=8)
    ax.tick_params(axis="y", labelrotation=0)
    ax.set(xlabel="predicted class", ylabel="class")
    return fig


def plot_gains(table: pd.DataFrame, title: str, most: int = 8, base: str = "random") -> Figure:
    """The classes at both ends of `gains_table`, the largest gain on top."""
    ends = table if len(table) <= 2 * most else pd.concat([table.head(most), table.tail(most)])
    fig, ax = plt.subplots(figsize=(7, 0.26 * len(ends) + 1.1))
    colours = np.where(ends["gain"] < 0, LINES[1], LINES[2])
    ax.barh([label(str(name)) for name in ends.index], ends["gain"], color=colours)
    ax.axvline(0, color="black", lw=0.8)
    ax.invert_yaxis()
    ax.set(xlabel=f"points against {method_title(base)}", title=title)
    return fig


def published_table(
    ours: pd.DataFrame, published: pd.DataFrame, task: str, dataset: str
) -> pd.DataFrame:
    """Our numbers beside the thesis's for one task and data set, by level, metric and method.

    `difference`, ours less the thesis's in points, is there only where the data are the real ones
    and the profile is the thesis's: other numbers have another level of chance. `ours` are result
    rows, or their `results.over_seeds`.
    """
    theirs = {
        (row["level"], row["metric"], row["method"]): row
        for row in rows_where(published, task=task, dataset=dataset).to_dict("records")
    }
    index = ["level", "metric", "method"]
    lines = []
    for _, group in rows_where(ours, task=task, dataset=dataset).groupby(index[:2], sort=False):
        for row in records(group):
            line = {"level": level_title(row["level"]), "metric": metric_title(row["metric"])}
            line |= {"method": method_title(row["method"]), "here": with_spread(row)}
            if thesis := theirs.get((row["level"], row["metric"], row["method"])):
                line["thesis"] = with_interval(thesis)
                if row["profile"] == "thesis" and row["data"].startswith("real"):
                    line["difference"] = f"{row['value'] - thesis['value']:+.1f}"
            lines.append(line | {"chance": f"{row['chance']:.1f}", "n": str(int(row["n"]))})
    columns = [*index, "here", "thesis", "difference", "chance", "n"]
    if not any("difference" in line for line in lines):
        columns.remove("difference")
    return pd.DataFrame(lines, columns=columns, dtype=object).fillna("–").set_index(index)


def comparisons(
    rows: pd.DataFrame, panels: Panels, base: str
) -> Iterator[tuple[str, dict[str, dict[Any, Any]], list[str]]]:
    """Heading, row of each method, and sentences on the others against `base`, per panel."""
    for level, metric in panels:
        group = records(rows_where(rows, level=level, metric=metric))
        methods = {row["method"]: row for row in group}
        others = [row for name, row in methods.items() if name != base]
        sentences = [against(methods[base], others)] if base in methods and others else []
        heading = f"{level_title(level)}, {metric_title(metric)}"
        yield f"- **{heading}** (chance {group[0]['chance']:.1f} %):", methods, sentences


def against(base: dict[Any, Any], others: Sequence[dict[Any, Any]]) -> str:
    """Which of the others lie above `base`, below it, or within reach of the intervals."""
    groups: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for row in sorted(others, key=lambda row: -row["value"]):
        way = side(row, base)
        gap = f" by {abs(row['value'] - base['value']):.1f} points" if way else ""
        groups[way].append(f"{method_title(row['method'])} ({with_interval(row)} %){gap}")
    name = f"{method_title(base['method'])} ({with_interval(base)} %)"
    words = {1: f"above {name}: ", -1: f"below {name}: ", 0: f"not told apart from {name}: "}
    parts = [words[way] + ", ".join(found) for way, found in groups.items() if found]
    text = "; ".join(parts)
    return text[0].upper() + text[1:]


def footnote(rows: pd.DataFrame, profile: str) -> str:
    """What the numbers rest on: test videos, seeds and the size of the profile."""
    seeds = int(rows["seeds"].max()) if "seeds" in rows else 1
    means = f" Values and interval ends are means over {seeds} seeds." if seeds > 1 else ""
    return f"\n\nn = {int(rows['n'].iloc[0])} test videos.{means} {SIZES.get(profile, '')}"


def describe_accuracy(
    rows: pd.DataFrame, panels: Panels, profile: str, base: str = "random", focus: str = "xid"
) -> str:
    """Every method against `base`, and `focus` against the other trained ones, per panel.

    A base or a focus that was not measured is left out.
    """
    lines = []
    for heading, methods, sentences in comparisons(rows, panels, base):
        others = [row for name, row in methods.items() if name not in (base, focus)]
        if focus in methods and others:
            sentences.append(standing(methods[focus], others))
        if not sentences:
            sentences = [f"{method_title(m)} {with_interval(row)} %" for m, row in methods.items()]
        lines += [heading, *(f"  - {sentence}." for sentence in sentences)]
    return "\n".join(lines) + footnote(rows, profile)


def describe_finetuning(
    rows: pd.DataFrame,
    panels: Panels,
    logs: Mapping[str, Sequence[Mapping[str, float]]],
    profile: str,
    base: str = "random",
) -> str:
    """The best method and every method against `base`, per panel, and how training went."""
    lines = []
    for heading, methods, verdicts in comparisons(rows, panels, base):
        best = max(methods.values(), key=lambda row: row["value"])
        lines.append(
            f"{heading} {method_title(best['method'])} is highest, {with_interval(best)} %."
        )
        lines += [f"  - {sentence}." for sentence in verdicts]
    lines += [
        f"- {method_title(method)}, {len(log)} epochs: accuracy on training clips went from "
        f"{100 * log[0]['accuracy']:.1f} % to {100 * log[-1]['accuracy']:.1f} %."
        for method, log in logs.items()
    ]
    return "\n".join(lines) + footnote(rows, profile)


def gains_table(ours: Tensor, base: Tensor, label: Tensor, classes: Sequence[str]) -> pd.DataFrame:
    """Accuracy per class of two predictions [V], and what `ours` gains over `base`.

    In percent, the largest gain first; classes without a video are left out.
    """
    right = {"here": 100.0 * (ours == label).numpy(), "against": 100.0 * (base == label).numpy()}
    groups = pd.DataFrame(right).groupby([classes[i] for i in label.tolist()])
    table = groups.mean().assign(n=groups.size()).rename_axis("class")
    table["gain"] = table["here"] - table["against"]
    return table.sort_values("gain", ascending=False, kind="stable")


def describe_gains(table: pd.DataFrame, method: str, against: str = "random", most: int = 3) -> str:
    """How many classes gain and lose in `gains_table`, and which gain most and least."""
    if method == against:
        return f"There is no baseline for {method_title(method)}: add `random` to `methods`."
    gained, lost = int((table["gain"] > 0).sum()), int((table["gain"] < 0).sum())
    top, bottom = (
        ", ".join(f"{literal(str(name))} ({gain:+.1f})" for name, gain in end.items())
        for end in (table["gain"].head(most), table["gain"].tail(most)[::-1])
    )
    return (
        f"Under {method_title(method)}, {gained} of {len(table)} classes are recognised more often "
        f"than under {method_title(against)}, {lost} less often. The largest gains, in points: "
        f"{top}; the smallest: {bottom}. One video is {100 / table['n'].median():.1f} points of a "
        "class, so a single class says little."
    )


def describe_confusion(counts: Tensor, classes: Sequence[str], method: str) -> str:
    """How many videos a confusion matrix [classes, classes] gets right, and the worst mistakes."""
    right, total = counts.diagonal(), counts.sum(dim=1)
    perfect, present = int(((right == total) & (total > 0)).sum()), int((total > 0).sum())
    lines = [
        f"{method_title(method)} classifies {right.sum()} of {total.sum()} test videos correctly "
        f"({100 * right.sum() / total.sum():.1f} %), and every video of {perfect} of {present} "
        "classes."
    ]
    wrong = counts - right.diag()
    for cell in wrong.flatten().argsort(descending=True, stable=True)[:3].tolist():
        true, predicted = divmod(cell, len(classes))
        if number := int(wrong[true, predicted]):
            names = literal(classes[true]), literal(classes[predicted])
            count = f"{number} of {total[true]} videos"
            lines.append(f"{names[0]} is classified as {names[1]} in {count}.")
    return bullets(lines)

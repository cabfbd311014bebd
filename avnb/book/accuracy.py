"""Figures and tables on accuracy, of probes, fine-tuning and retrieval; classes one by one."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from avnb.book.style import (
    LINES,
    chance_line,
    in_method_order,
    line_panels,
    method_colour,
    method_title,
)
from avnb.book.wording import (
    counted,
    label,
    level_title,
    literal,
    metric_title,
    number,
    records,
    rounded,
    rows_where,
    sentence,
    side,
    title_in_text,
    with_interval,
    with_spread,
)

Panels = Sequence[tuple[str, str]]  # (level, metric)
CLASSES = ("class", "classes")
LEAST_VIDEOS = 5  # of a class that is singled out in a sentence


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
    rows, or their `results.over_seeds`. A dot marks the best of a block, and all whose interval
    reaches its interval.
    """
    theirs = {
        (row["level"], row["metric"], row["method"]): row
        for row in rows_where(published, task=task, dataset=dataset).to_dict("records")
    }
    index = ["level", "metric", "method"]
    lines = []
    for _, group in rows_where(ours, task=task, dataset=dataset).groupby(index[:2], sort=False):
        block = records(group)
        best = max(block, key=lambda row: row["value"])
        for row in block:
            mark = "•\N{NO-BREAK SPACE}" if len(block) > 1 and side(best, row) == 0 else ""
            line = {"level": level_title(row["level"]), "metric": metric_title(row["metric"])}
            line |= {"method": method_title(row["method"]), "here": mark + with_spread(row)}
            if thesis := theirs.get((row["level"], row["metric"], row["method"])):
                line["thesis"] = with_interval(thesis)
                if row["profile"] == "thesis" and row["data"].startswith("real"):
                    line["difference"] = f"{row['value'] - thesis['value']:+.1f}"
            lines.append(line | {"chance": f"{row['chance']:.1f}", "n": str(int(row["n"]))})
    columns = [*index, "here", "thesis", "difference", "chance", "n"]
    if not any("difference" in line for line in lines):
        columns.remove("difference")
    return pd.DataFrame(lines, columns=columns, dtype=object).fillna("–").set_index(index)


def gains_table(ours: Tensor, base: Tensor, label: Tensor, classes: Sequence[str]) -> pd.DataFrame:
    """Accuracy per class of two predictions [V], and what `ours` gains over `base`.

    In percent, the largest gain first; classes without a video are left out.
    """
    right = {"here": 100.0 * (ours == label).numpy(), "against": 100.0 * (base == label).numpy()}
    groups = pd.DataFrame(right).groupby([classes[i] for i in label.tolist()])
    table = groups.mean().assign(n=groups.size()).rename_axis("class")
    table["gain"] = table["here"] - table["against"]
    return table.sort_values("gain", ascending=False, kind="stable")


def describe_gains(table: pd.DataFrame, method: str, against: str = "random") -> str:
    """How many classes gain and lose in `gains_table`, and which gains most if its videos allow."""
    if method == against:
        return "There is no untrained encoder to compare with: add `random` to `methods`."
    gained, lost = int((table["gain"] > 0).sum()), int((table["gain"] < 0).sum())
    text = (
        f"{title_in_text(method)} recognises {number(gained)} of {counted(len(table), *CLASSES)} "
        f"more often than {title_in_text(against)} does, and {number(lost)} less often"
    )
    top = table.iloc[0]
    if top["gain"] > 0 and top["n"] >= LEAST_VIDEOS:
        text += (
            f"; {literal(str(table.index[0]))} gains most, {rounded(top['gain'])} points over "
            f"{int(top['n'])} videos"
        )
    return sentence(text)


def describe_confusion(counts: Tensor, classes: Sequence[str], method: str) -> str:
    """How many classes a confusion matrix [classes, classes] has right, and the worst mistake.

    A mistake is named only where its class has enough videos, and the same one is made more than
    once.
    """
    right, total = counts.diagonal(), counts.sum(dim=1)
    perfect, present = int(((right == total) & (total > 0)).sum()), int((total > 0).sum())
    none = int(((right == 0) & (total > 0)).sum())
    text = f"of {counted(present, *CLASSES)}, {title_in_text(method)} gets "
    text += f"{number(perfect) if perfect else 'none'} wholly right"
    said = [sentence(text + (f" and {number(none)} wholly wrong" if none else ""))]
    wrong = counts - right.diag()
    wrong[total < LEAST_VIDEOS] = 0
    true, predicted = divmod(int(wrong.flatten().argmax()), len(classes))
    if (times := int(wrong[true, predicted])) > 1:
        videos = f"{number(times)} of {number(int(total[true]))} videos"
        said.append(
            f"Its most frequent mistake is to take {literal(classes[true])} for "
            f"{literal(classes[predicted])}, in {videos}."
        )
    return " ".join(said)

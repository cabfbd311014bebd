"""Figures, tables and readings on accuracy: probe and fine-tuning."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from avnb.profiles import SIZES
from avnb.report.style import METHOD_COLOURS, METHOD_TITLES
from avnb.report.wording import in_order, measured, standing, verdict, with_interval


def plot_tuning(logs: Mapping[str, Sequence[Mapping[str, float]]], warmup_epochs: int) -> Figure:
    """Loss and accuracy on training clips against epochs, a line a method; the warm-up shaded."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3))
    for ax, term, unit in zip(axes, ("loss", "accuracy"), ("cross-entropy", "%"), strict=True):
        for method in (name for name in METHOD_TITLES if name in logs):
            log = logs[method]
            values = [row[term] * (100 if unit == "%" else 1) for row in log]
            ax.plot(
                range(1, len(log) + 1),
                values,
                marker="o",
                ms=3,
                color=METHOD_COLOURS[method],
                label=METHOD_TITLES[method],
            )
        if warmup_epochs:
            ax.axvspan(0.5, warmup_epochs + 0.5, color="#e9ebee", zorder=0)
        ax.set(title=f"{term}, {unit}", xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend(fontsize=8)
    return fig


def plot_bars(rows: pd.DataFrame, panels: Sequence[tuple[str, str]], unit: str = "%") -> Figure:
    """A bar a method with its 95 % interval and a line at chance; one panel a (level, metric)."""
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    fig, axes = plt.subplots(lines, columns, figsize=(9, 3.1 * lines), squeeze=False, sharey=True)
    for ax, (level, metric) in zip(axes.flat, panels, strict=True):
        some = rows[(rows["level"] == level) & (rows["metric"] == metric)]
        bar_panel(ax, some)
        ax.set_title(f"{level}, {metric}", fontsize=11)
    for ax in axes[:, 0]:
        ax.set_ylabel(unit)
    axes[0, -1].legend(fontsize=8, loc="upper left")
    return fig


def bar_panel(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw one panel of `bars`."""
    rows = rows.sort_values("method", key=lambda m: m.map(list(METHOD_TITLES).index))
    names = [METHOD_TITLES[m] for m in rows["method"]]
    spread = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
    ax.bar(names, rows["value"], color=[METHOD_COLOURS[m] for m in rows["method"]], width=0.6)
    ax.errorbar(names, rows["value"], yerr=spread, fmt="none", color="black", capsize=3, lw=1.2)
    size = 9 if len(names) < 4 else 7
    for x, (value, high) in enumerate(zip(rows["value"], rows["high"], strict=True)):
        ax.text(x, high + 1, f"{value:.1f}", ha="center", va="bottom", fontsize=size)
    ax.axhline(rows["chance"].iloc[0], color="#b3261e", lw=1, ls="--", label="chance")
    if len(names) > 2:
        ax.tick_params(axis="x", labelrotation=55, labelsize=9)
    ax.set_ylim(0, 112)


def plot_protocols(rows: pd.DataFrame) -> Figure:
    """Accuracies of both protocols with their intervals, and the seconds that each took."""
    shades = {"cached": "#0b6e99", "released": "#d98324"}
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), width_ratios=(3, 1))
    timed = rows["metric"] == "seconds"
    for shift, (protocol, colour) in zip((-0.19, 0.19), shades.items(), strict=True):
        some = rows[~timed & (rows["protocol"] == protocol)]
        at = np.arange(len(some)) + shift
        spread = [some["value"] - some["low"], some["high"] - some["value"]]
        left.bar(at, some["value"], 0.36, color=colour, label=protocol)
        left.errorbar(at, some["value"], yerr=spread, fmt="none", color="black", capsize=3, lw=1.2)
    names = some["level"] + ", " + some["metric"]
    left.set_xticks(np.arange(len(some)), names.tolist())
    left.set(ylabel="accuracy, %", ylim=(0, 112))
    left.legend(fontsize=9, ncols=2, loc="upper left")
    seconds = rows[timed].set_index("protocol")["value"].reindex(list(shades))
    drawn = right.bar(list(shades), seconds, 0.6, color=list(shades.values()))
    right.bar_label(drawn, fmt="%.1f", fontsize=9, padding=2)
    right.set_ylabel("seconds of training")
    right.margins(y=0.15)
    return fig


def plot_losses(curves: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Training loss of each method's probes, epoch by epoch, a line a seed."""
    fig, ax = plt.subplots(figsize=(7, 2.8))
    for method, seeds in curves.items():
        for i, curve in enumerate(seeds):
            ax.plot(
                range(1, len(curve) + 1),
                curve,
                color=METHOD_COLOURS[method],
                label=None if i else METHOD_TITLES[method],
            )
    ax.set(xlabel="epoch of the linear layer", ylabel="cross-entropy")
    ax.legend(fontsize=9)
    return fig


def plot_confusion(counts: Tensor, classes: Sequence[str]) -> Figure:
    """Share of each class's videos (row) that are taken for each class (column), in percent."""
    share = 100 * counts / counts.sum(dim=1, keepdim=True).clamp_min(1)
    fig, ax = plt.subplots(figsize=(6.4, 5.6))
    picture = ax.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=100)
    if len(classes) <= 30:
        ax.set_xticks(range(len(classes)), classes, rotation=60, ha="right", fontsize=8)
        ax.set_yticks(range(len(classes)), classes, fontsize=8)
    ax.set(xlabel="taken for", ylabel="class")
    fig.colorbar(picture, ax=ax, label="% of the class's videos", shrink=0.8)
    return fig


def plot_gains(table: pd.DataFrame, title: str, most: int = 8) -> Figure:
    """The classes at both ends of `tables.gains`, the largest gain on top."""
    some = table if len(table) <= 2 * most else pd.concat([table.head(most), table.tail(most)])
    fig, ax = plt.subplots(figsize=(7, 0.26 * len(some) + 1.1))
    colours = ["#009e73" if gain >= 0 else "#b3261e" for gain in some["gain"]]
    ax.barh([str(name) for name in some.index], some["gain"], color=colours)
    ax.axvline(0, color="black", lw=0.8)
    ax.invert_yaxis()
    ax.set(xlabel="points against Random", title=title)
    return fig


def published_table(
    ours: pd.DataFrame, published: pd.DataFrame, task: str, dataset: str
) -> pd.DataFrame:
    """Our numbers beside the thesis's, one line a level, metric and method.

    `difference` is ours less the thesis's, in points; `run` is the end of the id of the run
    whose encoder was measured; the id names its folder.

    Args:
        ours: result rows, or what `results.over_seeds` makes of them.
        published: the thesis's.
        task: of the rows that are shown.
        dataset: of the rows that are shown.
    """
    mine = ours[(ours["task"] == task) & (ours["dataset"] == dataset)]
    theirs = published[(published["task"] == task) & (published["dataset"] == dataset)]
    known = {(r["level"], r["metric"], r["method"]): r for r in theirs.to_dict("records")}
    lines = []
    for (level, metric), some in mine.groupby(["level", "metric"], sort=False):
        for row in in_order(some):
            line = {"level": level, "metric": metric, "method": METHOD_TITLES[row["method"]]}
            line["here"] = measured(row)
            if same := known.get((level, metric, row["method"])):
                line["thesis"] = with_interval(same)
                line["difference"] = f"{row['value'] - same['value']:+.1f}"
            line |= {"chance": f"{row['chance']:.1f}", "n": str(int(row["n"]))}
            run = row["run"].rpartition("-")[2]  # the rest of the id stands in the row already
            lines.append(line | {"profile": row["profile"], "run": run})
    columns = ["level", "metric", "method", "here", "thesis", "difference", "chance", "n"]
    table = pd.DataFrame(lines, columns=[*columns, "profile", "run"]).fillna("–")
    return table.set_index(["level", "metric", "method"])


def describe_accuracy(rows: pd.DataFrame, pairs: list[tuple[str, str]], profile: str) -> str:
    """Sentences that read a figure aloud, for each (level, metric).

    Each trained method is held against Random, and xID against the other trained ones.
    """
    lines = []
    for level, metric in pairs:
        some = rows[(rows["level"] == level) & (rows["metric"] == metric)]
        of = {row["method"]: row for row in in_order(some)}
        lines.append(f"- **{level}, {metric}** (chance {some['chance'].iloc[0]:.1f} %):")
        trained = [row for method, row in of.items() if method != "random"]
        said = [verdict(row, of["random"]) for row in trained] if "random" in of else []
        others = [row for row in trained if row["method"] != "xid"]
        if "xid" in of and others:
            said.append(standing(of["xid"], others))
        if not said:
            said = [f"{METHOD_TITLES[m]} {with_interval(row)} %" for m, row in of.items()]
        lines += [f"  - {sentence}." for sentence in said]
    n, seeds = int(rows["n"].iloc[0]), int(rows.get("seeds", pd.Series([1])).max())
    several = f" Values and interval ends are means over {seeds} seeds." if seeds > 1 else ""
    return "\n".join([*lines, "", f"n = {n} test videos.{several} {SIZES.get(profile, '')}"])


def gains_table(one: Tensor, other: Tensor, label: Tensor, classes: Sequence[str]) -> pd.DataFrame:
    """Share of each class's videos that two predictions [V] get right, and the gain of `one`.

    In percent, the largest gain first; classes without a video are left out.
    """
    table = pd.DataFrame(
        {
            "class": [classes[i] for i in label.tolist()],
            "here": 100.0 * (one == label).numpy(),
            "against": 100.0 * (other == label).numpy(),
        }
    )
    groups = table.groupby("class", sort=True)
    found = groups.mean().assign(n=groups.size())
    found["gain"] = found["here"] - found["against"]
    return found.sort_values("gain", ascending=False, kind="stable")


def describe_confusion(counts: Tensor, classes: Sequence[str], method: str) -> str:
    """How many videos a confusion matrix [classes, classes] has right, and its largest mistakes."""
    total, right = int(counts.sum()), int(counts.diagonal().sum())
    of_class = counts.sum(dim=1)
    lines = [
        f"{METHOD_TITLES[method]} names {right} of {total} test videos rightly "
        f"({100 * right / total:.1f} %), and every video of "
        f"{int(((counts.diagonal() == of_class) & (of_class > 0)).sum())} of "
        f"{int((of_class > 0).sum())} classes."
    ]
    wrong = counts - counts.diagonal().diag()
    for at in wrong.flatten().argsort(descending=True, stable=True)[:3].tolist():
        true, taken = divmod(at, len(classes))
        if wrong[true, taken]:
            lines.append(
                f"`{classes[true]}` is taken for `{classes[taken]}` in {int(wrong[true, taken])} "
                f"of {int(of_class[true])} videos."
            )
    return "\n".join(f"- {line}" for line in lines)


def describe_gains(table: pd.DataFrame, method: str, against: str = "random", most: int = 3) -> str:
    """Which classes `gains` has at its ends, and how many rise and fall."""
    if method == against:
        return (
            f"There is nothing to hold {METHOD_TITLES[method]} against: add `random` to `methods`."
        )
    rises, falls = int((table["gain"] > 0).sum()), int((table["gain"] < 0).sum())
    ends = [
        ", ".join(f"`{name}` ({row['gain']:+.1f})" for name, row in some.iterrows())
        for some in (table.head(most), table.tail(most)[::-1])
    ]
    step = 100 / table["n"].median()
    return (
        f"Under {METHOD_TITLES[method]}, {rises} of {len(table)} classes are recognised more often "
        f"than under {METHOD_TITLES[against]}, {falls} less often. Most is gained by {ends[0]}, "
        f"least by {ends[1]}, in points. One video is {step:.1f} points of a class, so a single "
        "class says little."
    )


def protocol_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and seconds of both protocols, one line a level and metric."""
    lines = []
    for (level, metric), some in rows.groupby(["level", "metric"], sort=False):
        line: dict[str, Any] = {"level": level or "training", "metric": metric}
        line |= {row["protocol"]: with_interval(row) for row in some.to_dict("records")}
        n = some["n"].iloc[0]
        lines.append(line | {"n": "–" if pd.isna(n) else str(int(n))})
    return pd.DataFrame(lines).set_index(["level", "metric"])


def describe_protocols(rows: pd.DataFrame) -> str:
    """Whether cached and fresh clips lead to the same accuracy, and what each took."""
    lines = []
    timed = rows["metric"] == "seconds"
    for (level, metric), some in rows[~timed].groupby(["level", "metric"], sort=False):
        of = {row["protocol"]: row for row in some.to_dict("records")}
        one, other = of["cached"], of["released"]
        apart = one["low"] > other["high"] or one["high"] < other["low"]
        said = "the intervals are *apart*" if apart else "the intervals overlap"
        lines.append(
            f"- **{level}, {metric}**: {with_interval(one)} % cached, {with_interval(other)} % "
            f"with fresh clips; {said}."
        )
    seconds = rows[timed].set_index("protocol")["value"]
    times = seconds["released"] / seconds["cached"]
    return "\n".join(
        [
            *lines,
            f"- Cached, the clips and the layer took {seconds['cached']:.1f} s; with fresh clips "
            f"{seconds['released']:.1f} s, {times:.1f} times as long.",
        ]
    )


def describe_finetuning(
    rows: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    logs: Mapping[str, Sequence[Mapping[str, float]]],
    profile: str,
) -> str:
    """Every method against Random for each (level, metric), and how far training came."""
    lines = []
    for level, metric in pairs:
        some = rows[(rows["level"] == level) & (rows["metric"] == metric)]
        of = {row["method"]: row for row in some.to_dict("records")}
        best = max(of.values(), key=lambda row: row["value"])
        lines.append(
            f"- **{level}, {metric}** (chance {best['chance']:.1f} %): "
            f"{METHOD_TITLES[best['method']]} is highest, {with_interval(best)} %."
        )
        if "random" in of:
            others = [of[name] for name in METHOD_TITLES if name in of and name != "random"]
            lines += [f"  - {verdict(row, of['random'])}." for row in others]
    for method, log in logs.items():
        first, last = (100 * log[at]["accuracy"] for at in (0, -1))
        lines.append(
            f"- {METHOD_TITLES[method]}, {len(log)} epochs: accuracy on training clips went from "
            f"{first:.1f} % to {last:.1f} %."
        )
    return "\n".join(
        [*lines, "", f"n = {int(rows['n'].iloc[0])} test videos. {SIZES.get(profile, '')}"]
    )

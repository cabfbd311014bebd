"""Figures, table and reading of the bench's rows."""

from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avnb.report.style import LINES, RED, fig_legend
from avnb.report.wording import bullets

BenchRow = Mapping[str, Any]


def compared(rows: Iterable[BenchRow], *stages: str) -> list[BenchRow]:
    """The rows with a ratio, of the given stages or of all."""
    return [r for r in rows if "ratio" in r and (not stages or r["stage"] in stages)]


def speed_table(rows: Iterable[BenchRow]) -> pd.DataFrame:
    """Every comparison: milliseconds an item, the ratio and its quartiles, the limit."""
    table = [
        {
            "stage": r["stage"],
            "what": r["what"],
            "way": r["way"],
            "against": r["against"],
            "ms": f"{r['ms']:.3g}",
            "its ms": f"{r['against_ms']:.3g}",
            "ratio": f"{r['ratio']:.2f} [{r['ratio_low']:.2f}, {r['ratio_high']:.2f}]",
            "limit, ms": "" if r["limit_ms"] is None else f"{r['limit_ms']:.3g}",
        }
        for r in compared(rows)
    ]
    return pd.DataFrame(table).set_index(["stage", "what", "way", "against"])


def ratio_points(ax: Axes, rows: Iterable[BenchRow], places: list[str], colour: str) -> None:
    """Medians and quartiles of the ratios of one way, each at the place of its `what`."""
    for r in rows:
        spread = [[r["ratio"] - r["ratio_low"]], [r["ratio_high"] - r["ratio"]]]
        at = places.index(r["what"])
        ax.errorbar(r["ratio"], at, xerr=spread, fmt="o", color=colour, label=r["way"], capsize=3)


def plot_clip_ratios(rows: Iterable[BenchRow]) -> Figure:
    """How many times faster whole clips are, by kind of file; a panel for each other way."""
    clips = compared(rows, "clip")
    kinds, panels, ways = (
        list(dict.fromkeys(r[k] for r in clips)) for k in ("what", "against", "way")
    )
    height = 1.3 + 0.5 * len(kinds)
    fig, axes = plt.subplots(1, len(panels), figsize=(9, height), sharey=True, squeeze=False)
    for ax, against in zip(axes[0], panels, strict=True):
        for way, colour in zip(ways, LINES, strict=False):
            chosen = [r for r in clips if (r["against"], r["way"]) == (against, way)]
            ratio_points(ax, chosen, kinds, colour)
        ax.axvline(1, color=RED, lw=1, ls="--")
        ax.set(yticks=range(len(kinds)), yticklabels=kinds, xlabel="times as fast", xlim=(0, None))
        ax.set_title(f"against the {against}", fontsize=10)
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    fig.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=3, fontsize=9)
    return fig


def plot_clip_parts(rows: Iterable[BenchRow]) -> Figure:
    """Milliseconds of the parts of one clip, stacked, a bar for each kind of file."""
    parts = [r for r in rows if r["stage"] == "parts"]
    kinds, ways = (list(dict.fromkeys(r[k] for r in parts)) for k in ("what", "way"))
    ms = {(r["what"], r["way"]): max(r["ms"], 0.0) for r in parts}  # differences of two timings
    fig, ax = plt.subplots(figsize=(9, 1 + 0.4 * len(kinds)))
    begin = np.zeros(len(kinds))
    for way, colour in zip(ways, LINES, strict=False):
        width = np.array([ms[kind, way] for kind in kinds])
        ax.barh(kinds, width, left=begin, color=colour, label=way)
        begin += width
    ax.invert_yaxis()
    ax.set_xlabel("processor milliseconds a clip")
    fig_legend(fig, ax)
    return fig


def plot_loader(rows: Iterable[BenchRow]) -> Figure:
    """Clips a second by number of workers, and memory over a soak where one was measured."""
    rows = list(rows)
    rates, soak = ([r for r in rows if r["stage"] == name] for name in ("loader", "soak"))
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
    workers = [r["workers"] for r in rates]
    left.plot(workers, [r["clips_per_second"] for r in rates], "o-", color=LINES[0])
    left.set(xlabel="workers", ylabel="clips a second", xticks=workers, ylim=(0, None))
    for key, label, colour in (
        ("parent_mb", "training process", LINES[0]),
        ("worker_mb", "largest worker", LINES[1]),
    ):
        right.plot([r["clips"] for r in soak], [r[key] for r in soak], color=colour, label=label)
    right.set(xlabel="clips read", ylabel="memory of its own, MB", ylim=(0, None))
    if soak:
        right.legend(fontsize=9)
    return fig


def plot_stage_ratios(rows: Iterable[BenchRow], *stages: str) -> Figure:
    """How many times faster stages on tensors are, with what their limit would allow."""
    chosen = compared(rows, *stages)
    labels = [f"{r['stage']}\n{r['what']}" for r in chosen]
    fig, ax = plt.subplots(figsize=(9, 1 + 0.6 * len(labels)))
    for i, r in enumerate(chosen):
        spread = [[r["ratio"] - r["ratio_low"]], [r["ratio_high"] - r["ratio"]]]
        ours = ax.errorbar(r["ratio"], i, xerr=spread, fmt="o", color=LINES[0], capsize=3)
        ours.set_label("ours" if i == 0 else "")
        if r["limit_ms"]:
            most = r["against_ms"] / r["limit_ms"]
            ax.plot(most, i, "|", color=LINES[4], ms=18, label="limit" if i == 0 else "")
    ax.axvline(1, color=RED, lw=1, ls="--")
    ax.set(yticks=range(len(labels)), yticklabels=labels, xscale="log", xlabel="times as fast")
    ax.invert_yaxis()
    fig_legend(fig, ax)
    return fig


def loader_sentences(rows: Iterable[BenchRow]) -> list[str]:
    """How the loader scales, and whether its memory grows."""
    rows, sentences = list(rows), []
    for r in rows:
        if r["stage"] == "loader" and r["workers"] > 1:
            sentences.append(
                f"{r['workers']} workers deliver {r['clips_per_second']:.0f} clips a second, "
                f"{100 * r['scaling']:.0f} % of as many times one worker's; the training process "
                f"spends {r['parent_ms_per_clip']:.2f} ms on each."
            )
    if soak := [r for r in rows if r["stage"] == "soak"]:
        half, last = soak[len(soak) // 2], soak[-1]
        sentences.append(
            f"Over {last['clips']} clips the largest worker has {last['worker_mb']:.0f} MB of its "
            f"own, and had {half['worker_mb']:.0f} MB half-way."
        )
    return sentences


def describe_speed(rows: Iterable[BenchRow]) -> str:
    """Each comparison in a sentence, no stronger than its quartiles; the largest part of a clip."""
    rows, sentences = list(rows), []
    for r in compared(rows):
        numbers = f"({r['ratio']:.2f} times, quartiles {r['ratio_low']:.2f} to "
        numbers += f"{r['ratio_high']:.2f}; {r['ms']:.3g} against {r['against_ms']:.3g} ms)"
        verb = "cannot be told apart from"
        if r["ratio_low"] > 1 or r["ratio_high"] < 1:
            verb = "is faster than" if r["ratio"] > 1 else "is *slower* than"
        sentences.append(
            f"{r['stage']}, {r['what']}: {r['way']} {verb} the {r['against']} {numbers}."
        )
    parts = [r for r in rows if r["stage"] == "parts"]
    for kind in dict.fromkeys(r["what"] for r in parts):
        own = [r for r in parts if r["what"] == kind]
        most = max(own, key=lambda r: r["ms"])
        share = 100 * most["ms"] / most["against_ms"]
        sentences.append(f"{kind}: most of a clip's time is {most['way']} ({share:.0f} %).")
    sentences += loader_sentences(rows)
    absent = sorted({r["way"] for r in rows if r["note"] == "not installed"})
    sentences += [f"{name} is not installed here, so it was not measured." for name in absent]
    machines = {f"{r['machine']['cpu']}, {r['machine']['cores']} cores" for r in rows}
    return bullets([*sentences, f"Measured on: {'; '.join(sorted(machines))}."])

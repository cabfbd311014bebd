"""Figures, table and reading of the bench's rows."""

from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avnb.bench.clip_stages import TORCHCODEC
from avnb.book.style import LINES, RED, fig_legend
from avnb.book.wording import counted, listed, number, sentence, span

BenchRow = Mapping[str, Any]
AGAINST = {"2022 recipe, decoding and crop only": "recipe without its augmentation"}  # in sentences
STAGES = {
    "spectrogram": "spectrograms",
    "bank": "memory banks",
    "vicreg": "the loss of VICReg",
    "retrieval": "the search for neighbours",
    "probe": "the clips of a linear probe",
}


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
            "against, ms": f"{r['against_ms']:.3g}",
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
    fig, axes = plt.subplots(1, 2 if soak else 1, figsize=(9 if soak else 5, 3), squeeze=False)
    left, right = axes[0, 0], axes[0, -1]
    workers = [r["workers"] for r in rates]
    left.plot(workers, [r["clips_per_second"] for r in rates], "o-", color=LINES[0])
    left.set(xlabel="workers", ylabel="clips a second", xticks=workers, ylim=(0, None))
    if soak:
        clips, names = [r["clips"] for r in soak], ("training process", "largest worker")
        for key, name, colour in zip(("parent_mb", "worker_mb"), names, LINES, strict=False):
            right.plot(clips, [r[key] for r in soak], color=colour, label=name)
        right.set(xlabel="clips read", ylabel="memory of its own, MB", ylim=(0, None))
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
            (mark,) = ax.plot(most, i, "|", color=LINES[4], ms=18)
            mark.set_label("" if "limit" in ax.get_legend_handles_labels()[1] else "limit")
    ax.axvline(1, color=RED, lw=1, ls="--")
    ax.set(yticks=range(len(labels)), yticklabels=labels, xscale="log", xlabel="times as fast")
    ax.invert_yaxis()
    fig_legend(fig, ax)
    return fig


def is_from_source(row: BenchRow) -> bool:
    """Whether clips are read by us and from their own file."""
    return row["way"] != TORCHCODEC and "cache" not in row["way"]


def verdict(row: BenchRow) -> int:
    """1 or -1 where the quartiles of a ratio lie wholly above or below 1, else 0."""
    return int(row["ratio_low"] > 1) - int(row["ratio_high"] < 1)


def faster(rows: Iterable[BenchRow]) -> str:
    """How many times as fast some comparisons are, and how many are no faster, or slower."""
    groups: dict[int, list[float]] = {1: [], 0: [], -1: []}
    for row in rows:
        groups[verdict(row)].append(row["ratio"])
    total = sum(map(len, groups.values()))
    parts = [f"{span(groups[1])} times as fast"] if groups[1] else []
    for way, words in (0, "neither faster nor slower"), (-1, "slower"):
        if found := groups[way]:
            times = f" ({span(found)} times as fast)" if way else ""
            cases = f" in {number(len(found))} of {counted(total, 'case')}"
            parts.append(words + times + (cases if len(found) < total else ""))
    return listed(parts)


def describe_speed(rows: Iterable[BenchRow]) -> str:
    """How fast clips and stages are against the recipe, and what most of a clip's time is."""
    rows, said = list(rows), []
    for against in dict.fromkeys(r["against"] for r in compared(rows, "clip")):
        clips = [r for r in compared(rows, "clip") if r["against"] == against]
        cached = [r for r in clips if "cache" in r["way"]]
        other = [r for r in clips if r["way"] == TORCHCODEC]
        plain = faster(filter(is_from_source, clips))
        text = f"against the {AGAINST.get(against, against)}, clips are {plain}"
        text += f"; from a cache, {faster(cached)}" if cached else ""
        said.append(text + (f"; by torchcodec, {faster(other)}" if other else ""))
    said += describe_limit(rows)
    if stages := [r for r in compared(rows) if r["stage"] != "clip"]:
        names = list(dict.fromkeys(STAGES.get(r["stage"], str(r["stage"])) for r in stages))
        said.append(f"the other stages ({listed(names)}) are {faster(stages)}")
    parts = [r for r in rows if r["stage"] == "parts"]
    largest: dict[str, list[float]] = {}
    for kind in dict.fromkeys(r["what"] for r in parts):
        most = max((r for r in parts if r["what"] == kind), key=lambda r: r["ms"])
        largest.setdefault(most["way"], []).append(100 * most["ms"] / most["against_ms"])
    if shares := [f"{way} ({span(found)} %)" for way, found in largest.items()]:
        said.append(f"the largest part of a clip's time is now {listed(shares, 'or')}")
    return " ".join(map(sentence, [*said, *describe_loader(rows)]))


def describe_limit(rows: Iterable[BenchRow]) -> list[str]:
    """How near clips from their own files are to what decoding alone takes."""
    ways: dict[str, dict[str, float]] = {}
    for r in compared(rows, "clip"):
        if r["limit_ms"] and is_from_source(r):
            times = ways.setdefault(r["way"].removeprefix("ours, "), {})
            times[r["what"]] = r["ms"] / r["limit_ms"]
    near = [f"{span(times.values())} times as long with {way}" for way, times in ways.items()]
    limit = (
        "decoding its frames with FFmpeg, and nothing else, is the limit of a clip from its file"
    )
    return [f"{limit}: it takes {listed(near)}"] if near else []


def describe_loader(rows: Iterable[BenchRow]) -> list[str]:
    """What the most workers bring, and how memory goes over many clips."""
    rates, soak = ([r for r in rows if r["stage"] == name] for name in ("loader", "soak"))
    said = []
    if most := max(rates, key=lambda r: r["workers"], default=None):
        said.append(
            f"{counted(most['workers'], 'decoding worker')} "
            f"{'bring' if most['workers'] > 1 else 'brings'} {most['clips_per_second']:.3g} clips "
            f"a second, {100 * most['scaling']:.0f} % of what so many times one would; the "
            f"training process itself spends {most['parent_ms_per_clip']:.2g} ms on a clip"
        )
    if soak:
        first, middle, last = soak[0], soak[len(soak) // 2], soak[-1]
        own, worker = (
            f"{last[key] - first[key]:+.0f} MB ({last[key] - middle[key]:+.0f} in its second half)"
            for key in ("parent_mb", "worker_mb")
        )
        said.append(
            f"from clip {first['clips']} to clip {last['clips']}, the memory of the training "
            f"process changed by {own}, that of the largest worker by {worker}"
        )
    return said


def measured_on(rows: Iterable[BenchRow]) -> str:
    """The machines of some rows, and what could not be measured there."""
    rows = list(rows)
    machines = {f"{r['machine']['cpu']}, {r['machine']['cores']} cores" for r in rows}
    absent = sorted(
        {f"{r['way']} ({r['note']})" for r in rows if r["stage"] == "clip" and r["note"]}
    )
    missing = f", without {listed(absent)}" if absent else ""
    return f"measured on {'; '.join(sorted(machines))}{missing}"

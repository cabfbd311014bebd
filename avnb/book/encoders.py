"""Figures and tables on the encoders."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from avnb.book.style import BLUE, GREY, ORANGE
from avnb.config import Pretrain
from avnb.models import architecture
from avnb.models.architecture import Layer
from avnb.models.encoders import AudioEncoder, VideoEncoder


def by_stage(layers: Sequence[Layer]) -> pd.DataFrame:
    """Parameters and MACs of conv1 and of each block; pools have neither."""
    rows = [(layer.name.partition(".")[0], layer.parameters, layer.macs) for layer in layers]
    table = pd.DataFrame(rows, columns=["stage", "parameters", "MACs"])
    return table[table["stage"] != "max-pool"].groupby("stage", sort=False).sum()


def plot_costs(encoders: Mapping[str, Sequence[Layer]]) -> Figure:
    """Share of each stage in the parameters and MACs of an encoder, one panel per encoder."""
    fig, axes = plt.subplots(1, len(encoders), figsize=(9, 3.2), squeeze=False, sharex=True)
    for ax, (title, layers) in zip(axes[0], encoders.items(), strict=True):
        table = by_stage(layers)
        share = 100 * table / table.sum()
        share.plot.barh(ax=ax, width=0.76, color=[BLUE, ORANGE], legend=ax is axes[0, -1])
        for bars in ax.containers:
            ax.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.set_title(title, fontsize=11)
        ax.set(xlabel="share of the encoder, %", ylabel="")
    axes[0, -1].legend(fontsize=9, loc="center right")
    return fig


def plot_grouped_bars(table: pd.DataFrame, unit: str) -> Figure:
    """A group of bars per row, a colour per column, each bar with its value."""
    fig, ax = plt.subplots(figsize=(7, 3.2))
    table.plot.bar(ax=ax, rot=0, width=0.75, color=[BLUE, ORANGE, GREY])
    for bars in ax.containers:
        ax.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)  # type: ignore[arg-type]
    ax.set(xlabel="", ylabel=unit)
    ax.legend(fontsize=9, loc="upper left")
    return fig


def plot_growth(table: pd.DataFrame, marked: Mapping[str, int]) -> Figure:
    """Columns of `table` against its index on logarithmic axes; `marked` labels some points."""
    fig, axes = plt.subplots(1, table.shape[1], figsize=(9, 3.2), squeeze=False)
    offset: dict[str, Any] = {"xytext": (6, -10), "textcoords": "offset points", "fontsize": 9}
    for ax, (name, column) in zip(axes[0], table.items(), strict=True):
        ax.loglog(column.index, column, marker="o", ms=4, color=BLUE)
        for label, x in marked.items():
            ax.annotate(label, (x, column[x]), **offset)
        ax.set_xticks(column.index, column.index.astype(str))
        ax.minorticks_off()
        ax.yaxis.set_major_formatter("{x:g}")
        ax.margins(x=0.15, y=0.15)
        ax.set_xlabel(str(table.index.name))
        ax.set_title(str(name), fontsize=11)
    return fig


def architecture_table(layers: Sequence[Layer], shape: tuple[int, ...]) -> pd.DataFrame:
    """Thesis Table 4.1 or 4.2 with parameters and MACs: size, channels, kernel, stride per layer.

    `shape` is the input's: [3, T, S, S] for video with the axes s (space, one side of the square)
    and t (time), [1, M, t] for audio with f (frequency) and t.
    """
    axes = {"s": -1, "t": 0} if len(shape) == 4 else {"f": 0, "t": 1}

    def along_axes(symbol: str, values: Sequence[int]) -> dict[str, Any]:
        return {f"{symbol}_{axis}": values[i] for axis, i in axes.items()}

    lines = [{"layer": "input", **along_axes("X", shape[1:]), "C": shape[0]}]
    for layer in layers:
        line = {"layer": layer.name, **along_axes("X", layer.shape[1:]), "C": layer.shape[0]}
        line |= along_axes("K", layer.kernel) | along_axes("S", layer.stride)
        cost = {"parameters": f"{layer.parameters:,}", "MMAC": f"{layer.macs / 1e6:,.1f}"}
        lines.append(line | cost)
    table = pd.DataFrame(lines, dtype=object).set_index("layer").rename_axis(None)
    return table.fillna("–")


def clip_cost_table(runs: Mapping[str, Pretrain]) -> pd.DataFrame:
    """Shape of one pre-training clip of each run, and its cost in both encoders together."""
    lines = {}
    for name, run in runs.items():
        video = (3, run.clip.frames, run.clip.frame_px, run.clip.frame_px)
        audio = (1, run.spectrogram.mels, run.spectrogram.frames(run.clip.samples))
        layers = architecture.layers(VideoEncoder(run.width), video)
        layers += architecture.layers(AudioEncoder(run.width), audio)
        lines[name] = {
            "width": run.width,
            "video": " x ".join(map(str, video[1:])),
            "audio": " x ".join(map(str, audio[1:])),
            "parameters": sum(layer.parameters for layer in layers),
            "GMAC": sum(layer.macs for layer in layers) / 1e9,
        }
    return pd.DataFrame.from_dict(lines, orient="index")

"""Figures and tables on the encoders."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from avnb.config import Pretrain
from avnb.models.architecture import Layer, layers
from avnb.models.encoders import AudioEncoder, VideoEncoder


def by_stage(layers: Sequence[Layer]) -> pd.DataFrame:
    """Parameters and MACs of conv1 and of each block; pools have neither."""
    table = pd.DataFrame(
        {
            "stage": [layer.name.partition(".")[0] for layer in layers],
            "parameters": [layer.parameters for layer in layers],
            "MACs": [layer.macs for layer in layers],
        }
    )
    return table[table["stage"] != "max-pool"].groupby("stage", sort=False).sum()


def plot_costs(encoders: Mapping[str, Sequence[Layer]]) -> Figure:
    """Share of each stage in an encoder's parameters and in its MACs, one panel an encoder."""
    fig, axes = plt.subplots(1, len(encoders), figsize=(9, 3.2), squeeze=False, sharex=True)
    for ax, (title, rows) in zip(axes[0], encoders.items(), strict=True):
        table = by_stage(rows)
        share = 100 * table / table.sum()
        at = np.arange(len(share))
        for name, shift, colour in (("parameters", -0.2, "#0b6e99"), ("MACs", 0.2, "#d98324")):
            drawn = ax.barh(at + shift, share[name], 0.38, color=colour, label=name)
            ax.bar_label(drawn, fmt="%.1f", fontsize=8, padding=2)
        ax.set_yticks(at, share.index)
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("share of the encoder, %")
    axes[0, -1].legend(fontsize=9, loc="center right")
    return fig


def plot_grouped_bars(table: pd.DataFrame, unit: str) -> Figure:
    """A group of bars a row, a colour a column, each bar with its value."""
    fig, ax = plt.subplots(figsize=(7, 3.2))
    table.plot.bar(ax=ax, rot=0, width=0.75, color=["#0b6e99", "#d98324", "#8a8f98"])
    for drawn in ax.containers:
        ax.bar_label(drawn, fmt="%.2f", fontsize=8, padding=2)  # type: ignore[arg-type]
    ax.set_xlabel("")
    ax.set_ylabel(unit)
    ax.legend(fontsize=9, loc="upper left")
    return fig


def plot_growth(table: pd.DataFrame, marked: Mapping[str, int]) -> Figure:
    """Columns of `table` against its index on logarithmic axes; `marked` names some places."""
    fig, axes = plt.subplots(1, table.shape[1], figsize=(9, 3.2), squeeze=False)
    for ax, (name, column) in zip(axes[0], table.items(), strict=True):
        ax.loglog(column.index, column, marker="o", ms=4, color="#0b6e99", base=2)
        for word, at in marked.items():
            ax.annotate(
                word, (at, column[at]), xytext=(6, -10), textcoords="offset points", fontsize=9
            )
        ax.set_xticks(column.index, [str(i) for i in column.index])
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.margins(x=0.15, y=0.15)
        ax.set_xlabel(str(table.index.name))
        ax.set_title(str(name), fontsize=11)
    return fig


def architecture_table(found: list[Layer], shape: tuple[int, ...]) -> pd.DataFrame:
    """Thesis Table 4.1 or 4.2 with parameters and MACs: size, channels, kernel, stride a layer.

    `shape` is the input's. Axes are s (space, one side of a square) and t (time) of a video, f
    (frequency) and t of a sound.
    """
    axes = {"s": -1, "t": 0} if len(shape) == 4 else {"f": 0, "t": 1}
    lines: list[dict[str, Any]] = [{"layer": "input", **sizes(shape, axes)}]
    for layer in found:
        line = {"layer": layer.name, **sizes(layer.shape, axes)}
        line |= {f"K_{axis}": layer.kernel[at] for axis, at in axes.items()}
        line |= {f"S_{axis}": layer.stride[at] for axis, at in axes.items()}
        cost = {"parameters": f"{layer.parameters:,}", "MMAC": f"{layer.macs / 1e6:,.1f}"}
        lines.append(line | cost)
    table = pd.DataFrame(lines, dtype=object).set_index("layer").rename_axis(None)
    return table.fillna("–")


def sizes(shape: tuple[int, ...], axes: dict[str, int]) -> dict[str, int]:
    """Size along each axis, and channels."""
    return {f"X_{axis}": shape[1:][at] for axis, at in axes.items()} | {"C": shape[0]}


def clip_cost_table(runs: Mapping[str, Pretrain]) -> pd.DataFrame:
    """What one pre-training clip of each run is, and costs in both encoders together."""
    lines = {}
    for name, run in runs.items():
        picture = (3, run.clip.frames, run.clip.frame_px, run.clip.frame_px)
        audio = (1, run.spectrogram.mels, run.spectrogram.frames(run.clip.samples))
        both = layers(VideoEncoder(run.width), picture) + layers(AudioEncoder(run.width), audio)
        lines[name] = {
            "width": run.width,
            "picture": " x ".join(map(str, picture[1:])),
            "audio": " x ".join(map(str, audio[1:])),
            "parameters": sum(layer.parameters for layer in both),
            "GMAC": sum(layer.macs for layer in both) / 1e9,
        }
    return pd.DataFrame.from_dict(lines, orient="index")

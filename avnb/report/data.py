"""Figures, tables and readings on data sets and clips."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from avnb.data.manifest import Manifest


def plot_film_strips(clips: Tensor, titles: Sequence[str]) -> Figure:
    """One row a clip, its frames side by side; clips [C, 3, T, S, S] uint8 or in [0, 1]."""
    count, _, frames, _, _ = clips.shape
    width = 9.0
    fig, axes = plt.subplots(
        count, 1, figsize=(width, count * (width / frames + 0.25)), squeeze=False
    )
    for ax, clip, title in zip(axes[:, 0], clips, titles, strict=True):
        ax.imshow(torch.cat(list(clip.permute(1, 2, 3, 0)), dim=1).numpy())  # [S, T * S, 3]
        ax.set_title(title, loc="left", fontsize=10)
        ax.axis("off")
    return fig


def plot_film_table(
    films: Sequence[Sequence[np.ndarray]], titles: Sequence[str], columns: int = 2
) -> Figure:
    """Frames [H, W, 3] of each video side by side, the videos in columns; sizes may differ."""
    rows = -(-len(films) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(9, 1.05 * rows), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
        ax.set_anchor("NW")
    for ax, film, title in zip(axes.flat, films, titles, strict=False):
        ax.imshow(np.concatenate(film, axis=1))
        ax.set_title(title, loc="left", fontsize=8, pad=2)
    return fig


SPLIT_COLOURS = {"train": "#0b6e99", "test": "#d98c2b"}


def plot_extents(rows: pd.DataFrame) -> Figure:
    """How long, how large and how fast the videos of a manifest are, stacked by split."""
    sizes = rows["width"].astype(str) + " x " + rows["height"].astype(str)
    fig, (long, large, fast) = plt.subplots(1, 3, figsize=(9, 3))
    parts = [rows.loc[rows["split"] == split, "seconds"] for split in SPLIT_COLOURS]
    colours, names = list(SPLIT_COLOURS.values()), list(SPLIT_COLOURS)
    long.hist(parts, bins=30, stacked=True, color=colours, label=names)
    long.set(xlabel="seconds", ylabel="videos", title="length")
    long.legend(fontsize=8)
    rates = rows["fps"].map("{:.4g}".format)
    for ax, values, title in (large, sizes, "frame size"), (fast, rates, "frames a second"):
        table = pd.crosstab(commonest(values), rows["split"]).reindex(columns=names)
        table = table.loc[table.sum(axis=1).sort_values().index].fillna(0)
        left = np.zeros(len(table))
        for split, colour in SPLIT_COLOURS.items():
            ax.barh(table.index, table[split], left=left, color=colour)
            left = left + table[split].to_numpy()
        ax.set(xlabel="videos", title=title, ylim=(len(table) - 8.5, len(table) - 0.4))
    return fig


def commonest(values: pd.Series, count: int = 7) -> pd.Series:
    """Values as words, all but the commonest few as `other`."""
    words = values.astype(str)
    return words.where(words.isin(words.value_counts().index[:count]), "other")


def plot_contents(rows: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Videos a class, in the order of the labels, with and without an audio stream."""
    heard = rows["audio_hz"] > 0
    fig, ax = plt.subplots(figsize=(9, 3.2))
    bottom, places = np.zeros(len(classes)), np.arange(len(classes))
    parts = {"with sound": (heard, "#0b6e99"), "without an audio stream": (~heard, "#c3c8cf")}
    for name, (mask, colour) in parts.items():
        counts = rows.loc[mask, "label"].value_counts().reindex(list(classes)).fillna(0).to_numpy()
        ax.bar(places, counts, bottom=bottom, color=colour, label=name, width=0.85)
        bottom = bottom + counts
    if len(classes) <= 30:
        ax.set_xticks(places, classes, rotation=60, ha="right", fontsize=8)
    else:
        ax.set_xlabel("class, by its label")
    ax.set_ylabel("videos")
    ax.set_ylim(0, 1.25 * bottom.max())
    ax.legend(fontsize=8, ncols=2, loc="upper right")
    return fig


def plot_spectrograms(waveforms: Tensor, titles: Sequence[str], seconds: float) -> Figure:
    """Standardised log-mel spectrograms [C, 1, M, t] side by side."""
    fig, axes = plt.subplots(
        1, len(waveforms), figsize=(9, 2.8), squeeze=False, sharey=True, sharex=True
    )
    for ax, audio, title in zip(axes[0], waveforms, titles, strict=True):
        picture = ax.imshow(
            audio[0].numpy(),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=-2.5,
            vmax=2.5,
            extent=(0, seconds, 0, audio.shape[1]),
            interpolation="nearest",
        )
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("seconds")
    axes[0, 0].set_ylabel("mel band")
    fig.colorbar(picture, ax=axes[0, -1], label="deviations from the band's mean")
    return fig


def subset_table(manifest: Manifest, train: Manifest, validation: Manifest) -> pd.DataFrame:
    """How many videos there are, and how many of them a run uses."""
    lines = {}
    for name, some in (
        ("training split", manifest.split("train")),
        ("used for training", train),
        ("used for validation", validation),
    ):
        each = pd.Series([v.label for v in some.videos]).value_counts()
        lines[name] = {
            "videos": len(some),
            "without sound": len(some) - len(some.with_audio()),
            "classes": len(each),
            "a class": f"{each.min()} to {each.max()}" if len(each) else "–",
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def extents_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Counts, lengths and share of sound of a manifest's videos, one line a split and in all."""
    lines = {}
    for name in ("train", "test", "all"):
        some = rows if name == "all" else rows[rows["split"] == name]
        if len(some):
            seconds = some["seconds"]
            lines[name] = {
                "videos": len(some),
                "classes": some["label"].nunique(),
                "hours": round(seconds.sum() / 3600, 2),
                "shortest, s": round(seconds.min(), 2),
                "median, s": round(seconds.median(), 2),
                "longest, s": round(seconds.max(), 2),
                "with sound, %": round(100 * (some["audio_hz"] > 0).mean(), 1),
            }
    return pd.DataFrame(lines).T.astype({"videos": int, "classes": int})


def describe_data(
    manifest: Manifest, rows: pd.DataFrame, mismatches: pd.DataFrame, ledger: pd.DataFrame
) -> str:
    """What a data set's tables say: what is missing, short, silent, and of what sizes."""
    kinds = mismatches["what"].value_counts()
    missing, stray = kinds.get("listed, but not there", 0), kinds.get("there, but in no list", 0)
    seconds, heard = rows["seconds"], rows["audio_hz"] > 0
    shortest, longest = rows.iloc[seconds.argmin()], rows.iloc[seconds.argmax()]
    loud = heard.groupby(rows["label"]).any()
    sizes = (rows["width"].astype(str) + " x " + rows["height"].astype(str)).value_counts()
    rates = rows["fps"].map("{:.4g}".format).value_counts()
    most = [100 * counts.iloc[0] / len(rows) for counts in (sizes, rates)]
    lines = [
        f"The lists name {manifest.listed} videos; {len(rows)} can be used. {missing} are missing, "
        f"{len(ledger)} cannot be read to their end, and {stray} files stand in no list. "
        f"{len(manifest.classes) - len(loud)} of {len(manifest.classes)} classes have no video.",
        f"A video lasts {seconds.median():.1f} s in the median. The shortest, "
        f"`{shortest['id']}`, has {shortest['seconds']:.2f} s and the longest, "
        f"`{longest['id']}`, {longest['seconds']:.2f} s; {100 * (seconds < 1).mean():.1f} % are "
        "shorter than one second, and a clip of one second shows those over again.",
        f"{100 * heard.mean():.1f} % have an audio stream. Classes without sound in any video: "
        f"{int((~loud).sum())} of {len(loud)}.",
        f"Sizes of frames: {len(sizes)}, the commonest {sizes.index[0]} in {most[0]:.0f} % of the "
        f"videos. Rates: {len(rates)}, the commonest {rates.index[0]} frames a second in "
        f"{most[1]:.0f} %.",
    ]
    return "\n".join(f"- {line}" for line in lines)

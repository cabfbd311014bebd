"""Figures, tables and readings on data sets and clips."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from avnb.book.style import BLUE, ORANGE
from avnb.book.wording import counted, label, listed, number, percent, sentence
from avnb.data.manifest import Manifest

SPLITS = {"test": ORANGE, "train": BLUE}  # the last one is drawn next to the axis


def plot_film_strips(
    films: Tensor | Sequence[Sequence[np.ndarray]], titles: Sequence[str], columns: int = 1
) -> Figure:
    """The frames of each video side by side, videos in columns.

    `films` are clips [C, 3, T, S, S], uint8 or in [0, 1], or frames [H, W, 3] of any size by video.
    """
    frames = films.permute(0, 2, 3, 4, 1).numpy() if isinstance(films, Tensor) else films
    strips = [np.concatenate(film, axis=1) for film in frames]  # [H, T * W, 3] each
    height = 9 / columns * max(strip.shape[0] / strip.shape[1] for strip in strips) + 0.25
    rows = -(-len(strips) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(9, rows * height), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
        ax.set_anchor("NW")
    for ax, strip, title in zip(axes.flat, strips, titles, strict=False):
        ax.imshow(strip)
        ax.set_title(title, loc="left", fontsize=9, pad=3)
    return fig


def frame_formats(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Frame size, `320 x 240`, and rate, `29.97`, of every video of a manifest table."""
    sizes = rows["width"].astype(str) + " x " + rows["height"].astype(str)
    return sizes, rows["fps"].map("{:.4g}".format)


def plot_extents(rows: pd.DataFrame) -> Figure:
    """Distributions of length, frame size and frame rate of a manifest's videos, by split."""
    import seaborn as sns

    fig, axes = plt.subplots(1, 3, figsize=(9, 3))
    hue = {"hue": rows["split"], "hue_order": list(SPLITS), "palette": SPLITS}
    options: dict[str, Any] = {"multiple": "stack", "alpha": 1, **hue}
    sns.histplot(x=rows["seconds"], bins=30, ax=axes[0], **options)
    axes[0].set(ylabel="videos", title="length")
    axes[0].get_legend().set_title("")
    axes[0].set_ylim(top=1.45 * axes[0].get_ylim()[1])  # room for the legend above the bars
    titles = ("frame size", "frames per second")
    for ax, title, values in zip(axes[1:], titles, frame_formats(rows), strict=True):
        sns.histplot(y=most_common(values), shrink=0.8, legend=False, ax=ax, **options)
        ax.set(xlabel="videos", ylabel="", title=title, ylim=(7.6, -0.6))
    return fig


def most_common(values: pd.Series, count: int = 7) -> pd.Series:
    """The most common values as ordered categories, all others as `other`."""
    names = values.value_counts().index[:count]
    kept = values.where(values.isin(names), "other")
    order = [*names, "other"] if (kept == "other").any() else list(names)
    return kept.astype(pd.CategoricalDtype(order))


def plot_contents(rows: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Videos per class in label order, with and without an audio stream."""
    names = {False: "without an audio stream", True: "with audio"}
    table = pd.crosstab(rows["label"], rows["audio_hz"] > 0).reindex(list(classes)).fillna(0)
    table = table.reindex(columns=[True, False], fill_value=0).rename(columns=names)
    fig, ax = plt.subplots(figsize=(9, 3.2))
    table.plot.bar(stacked=True, ax=ax, width=0.85, color=[BLUE, "#c3c8cf"])
    ax.set(xlabel="", ylabel="videos", ylim=(0, 1.25 * table.sum(axis=1).max()))
    if len(classes) <= 30:
        ax.set_xticks(
            range(len(classes)),
            [label(name) for name in classes],
            rotation=60,
            ha="right",
            fontsize=8,
        )
    else:
        ticks = range(0, len(classes), 20)
        ax.set_xticks(ticks, [str(tick) for tick in ticks], rotation=0)
        ax.set_xlabel("class, by its label")
    ax.legend(fontsize=8, ncols=2, loc="upper right")
    return fig


def plot_spectrograms(spectrograms: Tensor, titles: Sequence[str], seconds: float) -> Figure:
    """Standardised log-mel spectrograms [C, 1, M, t] side by side."""
    count, _, mels, _ = spectrograms.shape
    fig, axes = plt.subplots(1, count, figsize=(9, 2.8), squeeze=False, sharey=True, sharex=True)
    options: dict[str, Any] = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    options |= {"cmap": "magma", "vmin": -2.5, "vmax": 2.5, "extent": (0, seconds, 0, mels)}
    for ax, spectrogram, title in zip(axes[0], spectrograms, titles, strict=True):
        image = ax.imshow(spectrogram[0].numpy(), **options)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("seconds")
    axes[0, 0].set_ylabel("mel band")
    fig.colorbar(image, ax=axes[0, -1], label="standard deviations")
    return fig


def subset_table(manifest: Manifest, train: Manifest, validation: Manifest) -> pd.DataFrame:
    """How many training videos were found usable, and how many of them a run uses."""
    parts = {"usable, of those looked at": manifest.split("train"), "used for training": train}
    lines = {}
    for name, part in {**parts, "used for validation": validation}.items():
        per_class = pd.Series([video.label for video in part.videos]).value_counts()
        lines[name] = {
            "videos": len(part),
            "without audio": len(part) - len(part.with_audio()),
            "classes": len(per_class),
            "per class": f"{per_class.min()} to {per_class.max()}" if len(per_class) else "–",
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def extents_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Counts, lengths and share of audio of a manifest's videos, per split and in total."""
    groups = pd.concat([rows, rows.assign(split="all")]).groupby("split", sort=False)
    seconds = groups["seconds"]
    table = {
        "videos": groups.size(),
        "classes": groups["label"].nunique(),
        "hours": (seconds.sum() / 3600).round(2),
        "shortest, s": seconds.min().round(2),
        "median, s": seconds.median().round(2),
        "longest, s": seconds.max().round(2),
        "with audio, %": (100 * groups["audio_hz"].agg(lambda hz: (hz > 0).mean())).round(1),
    }
    order = [name for name in ("train", "test", "all") if name in groups.groups]
    return pd.DataFrame(table).loc[order].rename_axis(None)


def describe_data(
    manifest: Manifest, rows: pd.DataFrame, mismatches: pd.DataFrame, ledger: pd.DataFrame
) -> str:
    """What a data set lacks, how long its videos are, and how many can be heard."""
    kinds = mismatches["what"].value_counts()
    missing, stray = kinds.get("listed, but not there", 0), kinds.get("there, but in no list", 0)
    usable = f"all {manifest.listed} listed videos can be used"
    if len(rows) < manifest.listed:
        lost = [f"{counted(missing, 'file')} missing"] if missing else []
        lost += [f"{number(len(ledger))} not decodable to the end"] if len(ledger) else []
        usable = f"{len(rows)} of {manifest.listed} listed videos can be used"
        usable += f" ({listed(lost)})" if lost else ""
    usable += f"; {counted(stray, 'file')} in no list" if stray else ""
    seconds, audible = rows["seconds"], rows["audio_hz"] > 0
    length = f"their median length is {seconds.median():.1f} s, the shortest lasts "
    length += f"{seconds.min():.1f} s and the longest {seconds.max():.1f} s"
    if (seconds < 1).any():
        short = percent(100 * (seconds < 1).mean())
        length += f"; {short} are shorter than the one second of a clip"
    sound = heard(audible, rows["label"], manifest.classes)
    return " ".join(map(sentence, (usable, length, sound)))


def heard(audible: pd.Series, labels: pd.Series, classes: Sequence[str]) -> str:
    """How many videos have audio, and in how many classes none has, or there is no video."""
    by_class = audible.groupby(labels).any()
    silent, empty = int((~by_class).sum()), len(classes) - len(by_class)
    text = "every one has an audio stream"
    if not audible.all():
        text = f"{percent(100 * audible.mean())} have an audio stream"
    if silent:
        verb = "has" if silent == 1 else "have"
        text += f"; {number(silent)} of {counted(len(classes), 'class', 'classes')} {verb} none"
    if empty:
        text += f"; there is no video of {counted(empty, 'class', 'classes')}"
    return text

"""Figures and readings on where the video resembles the audio."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from avnb.book.comparisons import titles
from avnb.book.galleries import in_a_row, player
from avnb.book.style import method_title
from avnb.book.wording import (
    agreeing,
    label,
    listed,
    percent,
    records,
    sentence,
    side,
    with_interval,
)
from avnb.config import digest
from avnb.data.previews import FPS, Shown, scaled, write_small
from avnb.evaluation.localisation import SimilarityMap

STRENGTH = 0.55  # of the map over the frame


def overlaid(frame: np.ndarray, similarity: np.ndarray, low: float, high: float) -> np.ndarray:
    """A frame [H, W, 3] under a map of any size, coloured from `low` to `high`; uint8."""
    height, width, _ = frame.shape
    x = torch.from_numpy(similarity)[None, None].float()
    wide = F.interpolate(x, (height, width), mode="bilinear", align_corners=True)[0, 0].numpy()
    share = np.clip((wide - low) / max(high - low, 1e-6), 0, 1)
    colours = plt.get_cmap("inferno")(share)[..., :3] * 255
    weight = STRENGTH * share[..., None]
    return ((1 - weight) * frame + weight * colours).round().astype(np.uint8)


def limits(maps: Sequence[SimilarityMap]) -> tuple[float, float]:
    """The least and the highest cosine of a video's maps."""
    values = np.concatenate([found.cosine.ravel() for found in maps])
    return float(values.min()), float(values.max())


def plot_similarity_maps(
    videos: Sequence[Shown],
    maps: Sequence[Sequence[SimilarityMap]],
    boxes: Sequence[Sequence[np.ndarray]] | None = None,
) -> Figure:
    """Film strips: the middle frame of every clip under its map, one line per video.

    A cross marks the most similar place; a box, where it is known, the object that is heard.
    The colours of a line go from its least to its highest cosine, which are given at its left.
    """
    columns = max(map(len, maps))
    fig, axes = plt.subplots(len(videos), columns, figsize=(9, 1.75 * len(videos)), squeeze=False)
    for line, (shown, found) in enumerate(zip(videos, maps, strict=True)):
        low, high = limits(found)
        middles = np.array([m.times[len(m.times) // 2] for m in found])
        for j, (ax, frame, m) in enumerate(
            zip(axes[line], shown.frames(middles), found, strict=True)
        ):
            height, width, _ = frame.shape
            ax.imshow(overlaid(frame, m.cosine.mean(axis=0), low, high))
            x, y = m.peak()
            place = x * (width - 1), y * (height - 1)
            for colour, line_width in (("black", 4), ("white", 2)):  # seen on any ground
                ax.plot(*place, "x", color=colour, ms=7, mew=line_width, clip_on=False)
            if boxes is not None:
                left, top, right, bottom = boxes[line][j] * [width, height, width, height]
                box = Rectangle((left, top), right - left, bottom - top, fill=False)
                box.set(edgecolor="#56b4e9", linewidth=1.6)
                ax.add_patch(box)
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{middles[j]:.1f} s", fontsize=7.5, pad=2)
        axes[line, 0].set_ylabel(
            f"{label(shown.video.label)}\n{low:.2f} to {high:.2f}", fontsize=7.5
        )
    return fig


def plot_similarity_over_time(
    videos: Sequence[Shown], maps: Sequence[Sequence[SimilarityMap]]
) -> Figure:
    """The highest cosine of every clip over the time of its video, one line per video."""
    fig, ax = plt.subplots(figsize=(7, 2.8))
    for shown, found in zip(videos, maps, strict=True):
        times = [m.times.mean() for m in found]
        ax.plot(times, [m.cosine.max() for m in found], "o-", ms=4, label=label(shown.video.label))
    ax.set(xlabel="seconds", ylabel="highest cosine")
    ax.legend(fontsize=8, ncols=2)
    return fig


def overlay_file(shown: Shown, maps: Sequence[SimilarityMap], folder: Path) -> Path:
    """A small mp4 of a video under its maps, with its sound; made once in `folder`."""
    stat = shown.path.stat()
    values = [found.cosine.tolist() for found in maps]
    out = folder / f"{digest([str(shown.path), stat.st_size, stat.st_mtime_ns, values])}.mp4"
    if not out.exists():
        low, high = limits(maps)
        times = np.arange(max(1, int(shown.video.seconds * FPS))) / FPS
        centres = np.array([found.times.mean() for found in maps])
        nearest = np.abs(times[:, None] - centres).argmin(axis=1)
        images = [
            overlaid(scaled(frame), maps[i].cosine.mean(axis=0), low, high)
            for frame, i in zip(shown.frames(times), nearest, strict=True)
        ]
        write_small(out, images, shown.sound())
    return out


def playing_overlays(
    videos: Sequence[Shown], maps: Sequence[Sequence[SimilarityMap]], folder: Path
) -> str:
    """HTML in which the videos play under their maps; nothing is loaded before that."""
    cells = []
    for shown, found in zip(videos, maps, strict=True):
        name, file = shown.video.label, overlay_file(shown, found, folder)
        cells.append(player(file, f"similarity map of {name}", name))
    return in_a_row(cells)


def localisation_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The pointing game by method, beside always pointing to the middle, and chance."""
    lines = {}
    for row in [
        *records(rows[rows["method"] != "centre"]),
        *records(rows[rows["method"] == "centre"]),
    ]:
        name = "middle of the frame" if row["method"] == "centre" else method_title(row["method"])
        cells = {"on the object, %": with_interval(row), "chance": f"{row['chance']:.1f}"}
        lines[name] = cells | {"n": str(int(row["n"]))}
    return pd.DataFrame.from_dict(lines, orient="index")


def describe_localisation(rows: pd.DataFrame) -> str:
    """Whose map points to the object more often than chance, or than the middle of the frame."""
    (middle,) = records(rows[rows["method"] == "centre"])
    found = records(rows[rows["method"] != "centre"])
    groups = {way: [row for row in found if against_chance(row) == way] for way in (1, 0, -1)}
    words = {1: "more often", 0: "no more often", -1: "less often"}
    parts: list[str] = []
    for way, group in groups.items():
        names = titles(group, values=True)
        if names and parts:
            parts.append(f"{listed(names)} {words[way]}")
        elif names:
            than = f"{words[way]} than chance ({percent(group[0]['chance'])})"
            parts.append(f"{agreeing(names, 'points', 'point')} to the object {than}")
    better = titles(row for row in found if side(row, middle) == 1)
    who = f"only {agreeing(better, 'does', 'do')}" if better else "no method does"
    verdict = f"{who} better than always pointing to the middle ({percent(middle['value'])})"
    return " ".join(map(sentence, (", ".join(parts), verdict)))


def against_chance(row: dict[Any, Any]) -> int:
    """1 or -1 where the interval lies wholly above or below chance, else 0."""
    return int(row["low"] > row["chance"]) - int(row["high"] < row["chance"])

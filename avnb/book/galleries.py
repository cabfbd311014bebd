"""Galleries of retrieved videos: as figures, and as small files that play in the page."""

import html
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avnb.book.wording import counted, label, level_title, listed
from avnb.data.previews import MelSpectrogram, Shown, mel_spectrogram, small_file
from avnb.evaluation.galleries import Gallery
from avnb.evaluation.retrieval import DIRECTIONS

MARKS = {  # sign, colour, line of the border, what is said to those who do not see it
    "query": ("query:", "#444444", "-", "query"),
    "right": ("✓", "#2e7d32", "-", "same class"),
    "wrong": ("✗", "#b3261e", (0, (4, 2)), "other class"),
    "unknown": ("", "#444444", "-", "answer"),
}
RANGE_DB = 60  # of levels that are told apart in a spectrogram


def cells(gallery: Gallery) -> Iterator[tuple[int, int, Shown, str]]:
    """Line, column, video, and its name in MARKS; the query comes first."""
    lines = zip(gallery.queries, gallery.answers, gallery.right.tolist(), strict=True)
    for i, (query, answers, right) in enumerate(lines):
        yield i, 0, query, "query"
        for j, (answer, fits) in enumerate(zip(answers, right, strict=True), 1):
            mark = ("right" if fits else "wrong") if gallery.is_judged else "unknown"
            yield i, j, answer, mark


def heading(shown: Shown, mark: str) -> tuple[str, str]:
    """What is written over a video, with its sign, and the colour."""
    sign, colour, *_ = MARKS[mark]
    return f"{sign} {label(shown.video.label)}".strip(), colour


def draw_frame(ax: Axes, shown: Shown, mark: str) -> None:
    """The middle frame; a dashed border where the class is another than the query's."""
    ax.imshow(shown.frame())
    ax.set(xticks=[], yticks=[])
    _, colour, line, _ = MARKS[mark]
    ax.spines[:].set(visible=True, color=colour, linewidth=2.0, linestyle=line)


def draw_spectrogram(ax: Axes, mel: MelSpectrogram, *, axes: bool) -> None:
    """Levels over seconds and hertz; the mel scale makes bands equally wide."""
    bands = len(mel.hertz)
    extent = (mel.seconds[0], mel.seconds[-1], -0.5, bands - 0.5)
    options: dict[str, Any] = {"origin": "lower", "aspect": "auto", "vmin": -RANGE_DB, "vmax": 0}
    ax.imshow(mel.levels, extent=extent, interpolation="nearest", cmap="magma", **options)
    ticks = [250, 1000, 4000, 10_000]
    ax.set_yticks(np.interp(ticks, mel.hertz, np.arange(bands)), ["0.25", "1", "4", "10"])
    ax.tick_params(labelsize=6, length=2, pad=1.5)
    if axes:
        ax.set_ylabel("kHz", fontsize=7, labelpad=1)
        ax.set_xlabel("s", fontsize=7, labelpad=0)
    else:
        ax.set_yticklabels([])


def draw_sound(ax: Axes, shown: Shown, mark: str, *, axes: bool) -> None:
    """The spectrogram of a video's audio, with the border of its answer."""
    sound = shown.sound()
    if sound is None:
        ax.text(0.5, 0.5, "no audio", ha="center", va="center", transform=ax.transAxes)
        ax.set(xticks=[], yticks=[])
    else:
        draw_spectrogram(ax, mel_spectrogram(sound), axes=axes)
    _, colour, line, _ = MARKS[mark]
    ax.spines[:].set(visible=True, color=colour, linewidth=1.6, linestyle=line)


def grid(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """Axes in even rows and columns: finding room for a hundred, one by one, takes seconds."""
    room = {"left": 0.05, "right": 0.99, "top": 1 - 0.25 / height, "bottom": 0.3 / height}
    options |= {"wspace": 0.16, **room}
    return plt.subplots(
        rows, columns, figsize=(9, height), squeeze=False, layout="none", gridspec_kw=options
    )


def plot_gallery(gallery: Gallery) -> Figure:
    """Queries (left) and their nearest videos, after thesis Figures A.1 to A.4.

    A video that is compared by its frames is shown as its middle frame, one that is compared by
    its audio as its spectrogram. A tick and a whole border mark the query's class, a cross and a
    dashed border another one.
    """
    asked, searched = DIRECTIONS[gallery.direction]
    count, k = gallery.right.shape
    fig, axes = grid(count, k + 1, 1.5 * count, hspace=0.42)
    for i, j, shown, mark in cells(gallery):
        modality, ax = searched if j else asked, axes[i, j]
        text, colour = heading(shown, mark)
        ax.set_title(text, fontsize=7, pad=3, color=colour)
        if modality == "audio":
            draw_sound(ax, shown, mark, axes=not j)
        else:
            draw_frame(ax, shown, mark)
    return fig


def plot_gallery_with_sound(gallery: Gallery) -> Figure:
    """The same with frame and spectrogram of every video, after thesis Figures A.5 and A.6."""
    count, k = gallery.right.shape
    fig, axes = grid(2 * count, k + 1, 2.6 * count, hspace=0.32, height_ratios=[1.2, 1] * count)
    for i, j, shown, mark in cells(gallery):
        text, colour = heading(shown, mark)
        axes[2 * i, j].set_title(text, fontsize=7, pad=3, color=colour)
        draw_frame(axes[2 * i, j], shown, mark)
        draw_sound(axes[2 * i + 1, j], shown, mark, axes=not j)
    return fig


def describe_galleries(galleries: Sequence[Gallery]) -> str:
    """How many of the answers shown have the class of their query, by direction, the most first."""
    queries, k = galleries[0].right.shape
    ordered = sorted(galleries, key=lambda gallery: -int(gallery.right.sum()))
    counts = [f"{gallery.right.sum()} from {level_title(gallery.direction)}" for gallery in ordered]
    asked = counted(queries, "random query", "random queries")
    answers = f"the {queries * k} answers to {asked} in each direction"
    return f"Of {answers}, these have the query's class: {listed(counts)}."


def playing_gallery(gallery: Gallery, media: Path) -> str:
    """The gallery as HTML whose videos play, with their sound; nothing is loaded before that.

    Small copies are written into the folder `media`, which the book carries along.
    """
    lines: dict[int, list[str]] = {}
    for i, _, shown, mark in cells(gallery):
        sign, colour, _, said = MARKS[mark]
        border = f"2px {'dashed' if mark == 'wrong' else 'solid'} {colour}"
        file, name = small_file(shown, media), shown.video.label
        lines.setdefault(i, []).append(player(file, f"{name}, {said}", f"{sign} {name}", border))
    return f'<div role="group" aria-label="gallery">{"".join(map(in_a_row, lines.values()))}</div>'


def player(file: Path, said: str, caption: str, border: str = "none") -> str:
    """HTML of one video that is loaded when it is played; `said` is for who does not see it."""
    source, poster = (
        html.escape(os.path.relpath(path)) for path in (file, file.with_suffix(".jpg"))
    )
    look = f"width:100%;aspect-ratio:4/3;object-fit:contain;border:{border}"
    return (
        '<figure style="margin:0;flex:1 1 6.5rem;max-width:11rem">'
        f'<video controls preload="none" playsinline src="{source}" poster="{poster}" '
        f'aria-label="{html.escape(said)}" style="{look}"></video>'
        f'<figcaption style="font-size:.75rem">{html.escape(caption)}</figcaption></figure>'
    )


def in_a_row(players: Sequence[str]) -> str:
    """Players side by side, as many as fit."""
    style = "display:flex;flex-wrap:wrap;gap:.5rem;margin-bottom:.8rem"
    return f'<div style="{style}">{"".join(players)}</div>'

"""The look of the book: titles, colours and order of the methods; figures of several panels.

seaborn takes longer to import than all else that a chapter needs but torch, so it is imported
where it draws.
"""

import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from avnb.config import unknown_name
from avnb.models.methods import METHODS

# Distinct for readers with any colour vision, and in print (Okabe & Ito 2008).
BLUE, ORANGE, GREY, RED = "#0b6e99", "#d98324", "#8a8f98", "#b3261e"
LINES = (BLUE, "#d55e00", "#009e73", "#cc79a7", GREY)
CLASS_COLOURS = (  # ten that stay apart (Okabe & Ito 2008; Tol 2021)
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00",
    "#56b4e9", "#882255", "#332288", "#999933", "#44aa99",
)  # fmt: skip
OTHER_METHODS = ("#e69f00", "#56b4e9", "#882255", "#332288", "#999933")


def method_title(name: str) -> str:
    """The method's title; the name itself for a method outside the registry."""
    return METHODS[name].title if name in METHODS else name


def method_colour(name: str) -> str:
    """The method's colour (hex); for a method outside the registry always the same of a few."""
    if name in METHODS:
        return METHODS[name].colour
    return OTHER_METHODS[zlib.crc32(name.encode()) % len(OTHER_METHODS)]


def in_method_order(names: Iterable[str]) -> list[str]:
    """Each name once: the registry's methods in its order, then all others by name."""
    registered = list(METHODS)
    return sorted(
        set(names),
        key=lambda name: (registered.index(name) if name in METHODS else len(METHODS), name),
    )


@dataclass(frozen=True)
class Style:
    """A style sheet over that of the book, and the size that a figure gets when it is kept."""

    sheet: str
    width: float  # inches; figures are drawn 9 inches wide
    text: float = 1.0  # factor of all text, beyond that of the width


STYLES = {
    "book": Style("", width=9.0),
    "paper": Style("paper.mplstyle", width=6.5, text=1.1),
    "slides": Style("slides.mplstyle", width=11.0, text=1.15),
}


def check_style(name: str) -> None:
    """Raise ValueError for a style that does not exist."""
    if name not in STYLES:
        raise ValueError(unknown_name("figure style", name, STYLES))


def set_style(name: str = "") -> None:
    """Set the look of all figures, once per notebook; '' for AVNB_STYLE, or else the book's.

    Raises:
        ValueError: for a style that does not exist.
    """
    name = name or os.environ.get("AVNB_STYLE", "book")
    check_style(name)
    sheets = ["book.mplstyle", STYLES[name].sheet]
    plt.style.use([Path(__file__).with_name(sheet) for sheet in sheets if sheet])
    draw_once()


def draw_once() -> None:
    """In a notebook: no figure is drawn a second time to cut off a rim, for layouts leave none."""
    from IPython.core.getipython import get_ipython

    if shell := get_ipython():
        from matplotlib_inline.config import InlineBackend

        inline: Any = InlineBackend.instance(parent=shell)
        inline.print_figure_kwargs = {"bbox_inches": None}


def fit_to_style(fig: Figure, name: str) -> None:
    """Scale a drawn figure and its text to a style's width."""
    style = STYLES[name]
    factor = style.width / 9
    width, height = fig.get_size_inches()
    fig.set_size_inches(width * factor, height * factor)
    for text in fig.findobj(Text):
        text.set_fontsize(float(text.get_fontsize()) * factor * style.text)


def fig_legend(fig: Figure, ax: Axes) -> None:
    """One legend for the whole figure, with the entries of one of its panels."""
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)


def chance_line(ax: Axes, rows: pd.DataFrame, *, upright: bool = False) -> None:
    """A dashed line at what guessing gives for these result rows; upright on a horizontal axis."""
    draw = ax.axvline if upright else ax.axhline
    draw(rows["chance"].iloc[0], color=RED, lw=1, ls="--", label="chance")


def line_panels(
    table: pd.DataFrame, x: str, hue: str, panels: Mapping[str, str], height: float, **options: Any
) -> Figure:
    """One panel per column of `panels` (column -> title) against `x`, one line per value of `hue`.

    `options` go to `seaborn.lineplot`; lines take the colours of `LINES` unless they name others.
    """
    import seaborn as sns

    fig, axes = plt.subplots(1, len(panels), figsize=(9, height), squeeze=False)
    options = {"palette": LINES[: table[hue].nunique()], "errorbar": None} | options
    for ax, (column, title) in zip(axes[0], panels.items(), strict=True):
        sns.lineplot(table, x=x, y=column, hue=hue, legend=ax is axes[0, 0], ax=ax, **options)
        ax.set_title(title, fontsize=11)
        ax.set_ylabel("")
        if x == "epoch":
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].legend(fontsize=8)
    return fig

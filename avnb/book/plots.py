"""The look of the book's figures, and what more than one notebook draws.

A notebook calls `set_style` once; `save` at the end of a cell writes its figure as files. Plots
take result rows (see `evaluation.results`): `value` with the ends `low` and `high` of its interval.
"""

import zlib
from collections.abc import Iterable, Sequence
from colorsys import hls_to_rgb
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.core.getipython import get_ipython
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.text import Text
from matplotlib_inline.backend_inline import set_matplotlib_formats
from scipy.special import stdtrit

from avnb.config import unknown_name
from avnb.models.methods import METHODS

# Of quantities: methods have colours of their own (after Okabe & Ito 2008), which nothing else has.
BLUE, ORANGE, GREY, RED = "#4060c8", "#f0b67f", "#c3c8cf", "#b3261e"
LINES = ("#1b1b1b", "#7b3fa0", "#8c5a2b", "#5cc8d0", "#c5d86d")  # of what is no method
TITLES = {
    "v->v": "video to video",
    "a->a": "audio to audio",
    "v->a": "video to audio",
    "a->v": "audio to video",
    "va->va": "both to both",
    "clip": "single clips",
    "video": "whole videos",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "R@1": "recall@1",
    "R@5": "recall@5",
}
# For class names in Chinese, Japanese or Korean; without any of these, matplotlib warns of glyphs.
CJK_FONTS = "Noto Sans CJK JP;Noto Sans JP;Noto Sans SC;Source Han Sans;IPAexGothic;Hiragino Sans;"
CJK_FONTS += "PingFang SC;Yu Gothic;Microsoft YaHei;WenQuanYi Zen Hei;Droid Sans Fallback;SimHei"
# The same bytes from run to run: files hold no date, no version, and no random names.
METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}


def title(name: str) -> str:
    """The title of a level or metric of result rows; the name itself where it has none."""
    return TITLES.get(name, name)


def method_title(name: str) -> str:
    """The method's title; the name itself for a method outside the registry.

    What follows a comma, as in `xid, seen`, stays.
    """
    method, *rest = name.split(", ")
    return ", ".join([METHODS[method].title if method in METHODS else method, *rest])


def method_colour(name: str) -> str:
    """The method's colour (hex); for a method outside the registry, a hue that its name gives."""
    if name in METHODS:
        return METHODS[name].colour
    return to_hex(hls_to_rgb(zlib.crc32(name.encode()) / 2**32, 0.4, 0.5))


def in_method_order(names: Iterable[str]) -> list[str]:
    """Each name once: the registry's methods in its order, then all others by name."""
    given = set(names)
    return [name for name in METHODS if name in given] + sorted(given - METHODS.keys())


def by_method(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of the methods."""
    order = in_method_order(rows["method"])
    return rows.sort_values("method", key=lambda names: names.map(order.index), kind="stable")


class Style(NamedTuple):
    """Form and size of saved figures; the look is that of `<style>.mplstyle` over the book's."""

    suffix: str
    width: float  # inches; figures are drawn 9 inches wide
    text: float  # factor of all text, beyond that of the width


STYLES = {
    "book": Style("svg", 9.0, 1.0),
    "paper": Style("pdf", 6.5, 1.1),
    "slides": Style("png", 11.0, 1.15),
}


@dataclass
class Output:
    """Where the notebook's figures and tables are written, and in which style."""

    folder: Path | None = None
    prefix: str = ""
    style: Style = STYLES["book"]

    def path(self, name: str, suffix: str) -> Path:
        """`<folder>/<prefix>-<name>.<suffix>`; RuntimeError before `set_style`."""
        if self.folder is None:
            raise RuntimeError("call plots.set_style(style, folder, prefix) before saving")
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{self.prefix}-{name}.{suffix}"


OUTPUT = Output()  # one per process, like matplotlib's own settings


def set_style(style: str, folder: Path, prefix: str) -> None:
    """Set the look of all figures, and where `save` writes; ValueError for an unknown style."""
    if style not in STYLES:
        raise ValueError(unknown_name("figure style", style, STYLES))
    plt.style.use([Path(__file__).with_name(f"{name}.mplstyle") for name in ("book", style)])
    installed = {*font_manager.get_font_names()}.intersection(CJK_FONTS.split(";"))
    plt.rcParams["font.family"] += sorted(installed)
    OUTPUT.folder, OUTPUT.prefix, OUTPUT.style = folder, prefix, STYLES[style]
    if get_ipython():  # no figure is drawn a second time to cut off a rim: layouts leave none
        set_matplotlib_formats("png", bbox_inches=None)


def save(name: str) -> None:
    """Write the current figure in the form and the size of the style; it is shown as well."""
    fig, suffix, factor = plt.gcf(), OUTPUT.style.suffix, OUTPUT.style.width / 9
    if factor != 1:
        width, height = fig.get_size_inches()
        fig.set_size_inches(width * factor, height * factor)
        for text in fig.findobj(Text):
            text.set_fontsize(float(text.get_fontsize()) * factor * OUTPUT.style.text)
    if layout := fig.get_layout_engine():  # laid out once, not again where it is shown
        layout.execute(fig)
        fig.set_layout_engine("none")
    fig.savefig(OUTPUT.path(name, suffix), metadata=METADATA[suffix])


def chance_line(ax: Axes, rows: pd.DataFrame, *, upright: bool = False) -> None:
    """A dashed line at what guessing gives for these result rows; upright on a horizontal axis."""
    draw = ax.axvline if upright else ax.axhline
    draw(rows["chance"].iloc[0], color=RED, lw=1, ls="--", label="chance")


def spread(rows: pd.DataFrame) -> np.ndarray:
    """[2, N] distances of the interval's ends from the values, as `errorbar` takes them."""
    return np.stack([rows["value"] - rows["low"], rows["high"] - rows["value"]])


def blocks(ax: Axes, rows: pd.DataFrame, column: str = "method", order: Sequence[str] = ()) -> None:
    """A dot per block and value of `column`, joined within a block, with the mean of the blocks.

    Its interval is Student's at 95 %. `data` and `seed` of the rows make a block.
    """
    order = order or in_method_order(rows[column])
    wide = rows.pivot(index=["data", "seed"], columns=column, values="value")[list(order)]
    places = np.arange(len(order))
    ax.plot(places, wide.to_numpy().T, color="black", lw=0.6, marker="o", ms=4.5, alpha=0.45)
    half = wide.sem() * stdtrit(wide.count() - 1, 0.975)
    for place, name in zip(places, order, strict=True):
        method = rows.loc[rows[column] == name, "method"].iloc[0]
        look: dict[str, Any] = {"marker": "D", "capsize": 4, "color": method_colour(method)}
        ax.errorbar([place], wide[name].mean(), half[[name]], **look)
    ax.set_xticks(places, [method_title(name).replace(", ", "\n") for name in order])
    chance_line(ax, rows)
    # From 0 up; a limit that is set would hold for what is drawn later on a shared axis, too.
    ax.axhline(0, lw=0).sticky_edges.y.append(0)

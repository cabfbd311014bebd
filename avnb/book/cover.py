"""The book's cover and the icon of its pages, drawn from result rows.

Both show the first result of the book: whole videos that a linear layer on frozen features
recognises, by pre-training method.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avnb.book.findings import PROBE
from avnb.book.style import RED, method_colour, method_title, set_style
from avnb.book.wording import records, rows_where, with_interval
from avnb.evaluation import results
from avnb.profiles import SIZES


def cover_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The last row of each method under the thesis's protocol; possibly none."""
    usual = rows_where(rows, protocol="thesis", **PROBE)
    return usual.drop_duplicates("method", keep="last")


def draw_bars(ax: Axes, rows: pd.DataFrame, title: str) -> None:
    """A horizontal bar per method, with its interval where there is one."""
    for row in records(rows):
        value, name = row["value"], method_title(row["method"])
        (bar,) = ax.barh(name, value, 0.66, color=method_colour(row["method"]))
        end = value
        if pd.notna(row["low"]):
            ax.plot([row["low"], row["high"]], [name, name], color="black", lw=1.2)
            end = row["high"]
        middle = bar.get_y() + bar.get_height() / 2
        ax.text(end + 1.2, middle, f"{value:.1f}", va="center", fontsize=9)
    ax.set(title=title, xlim=(0, 100), xlabel="top-1 accuracy, %")
    ax.spines[["left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)


def draw_cover(rows: pd.DataFrame, profile: str) -> Figure:
    """The linear probe here, and as the thesis published it, side by side."""
    published = rows_where(results.published(), **PROBE)
    fig, axes = plt.subplots(1, 2, figsize=(9, 2.7), sharey=True)
    draw_bars(axes[0], rows, f"this page's run, {profile} size")
    draw_bars(axes[1], published, "thesis, UCF-101")
    axes[0].axvline(rows["chance"].iloc[0], color=RED, lw=1, ls="--")
    axes[0].invert_yaxis()
    return fig


def draw_icon(rows: pd.DataFrame) -> Figure:
    """The same bars alone, in a square."""
    fig = plt.figure(figsize=(0.64, 0.64), layout="none")
    ax = fig.add_axes((0.0, 0.0, 1.0, 1.0))
    for place, row in enumerate(records(rows)):
        ax.bar(place, max(row["value"], 4), 0.8, color=method_colour(row["method"]))
    ax.axis("off")
    return fig


def cover_markdown(rows: pd.DataFrame, profile: str) -> str:
    """The cover as a figure of a page, with what it shows in words."""
    said = "; ".join(f"{method_title(r['method'])} {with_interval(r)}" for r in records(rows))
    size = SIZES.get(profile, "").replace("**", "")
    return (
        "```{image} assets/cover.svg\n:class: plot\n"
        f":alt: Top-1 accuracy in percent of linear probes, by method. {said}.\n```\n\n"
        ":::{container} cover\n"
        "**What was learnt.** Whole videos that a linear layer on frozen features recognises, with "
        "95 % intervals and chance (dashed): here, and as the thesis published it for real videos. "
        f"{size}\n:::"
    )


def draw(results_file: Path, profile: str, assets: Path) -> str:
    """Write `cover.svg` and `icon.svg` to `assets`; returns the cover as Markdown.

    Without a row of the probe there is no cover, and the icon stays the project's own.
    """
    rows = cover_rows(results.read(results_file))
    if rows.empty:
        return ""
    with plt.rc_context():
        set_style("book")
        for name, fig in (("cover", draw_cover(rows, profile)), ("icon", draw_icon(rows))):
            fig.savefig(assets / f"{name}.svg", metadata={"Date": None}, transparent=name == "icon")
            plt.close(fig)
    return cover_markdown(rows, profile)

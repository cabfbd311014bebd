"""The families of self-supervised methods, each as a small drawing of its two branches."""

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon

from avnb.book.style import BLUE, method_title

# What each part narrows (-1), widens (1) or keeps (0), and its colour.
PARTS = {
    "encoder": (-1, "#d8e8f0"),
    "projector": (-1, "#f7e3cc"),
    "expander": (1, "#f7e3cc"),
    "predictor": (0, "#d5ecdf"),
    "bank": (0, "#e9ebee"),
    "clusters": (0, "#e9ebee"),
}
INK, PALE = "#333333", "#777777"
# Inches in a panel: one column for each part, then the loss; two lines, the upper one first.
COLUMNS, PART, LINES = (0.35, 1.3, 2.25), (0.8, 0.5), (1.4, 0.66)
LOSS = (3.2, 1.2)  # left end and width
PANEL = (4.62, 2.36)


@dataclass(frozen=True, kw_only=True)
class Approach:
    """One family: what stands in its two branches, and why it does not collapse."""

    title: str
    works: str  # examples, as people call them
    upper: tuple[str, ...]  # PARTS from the clip to the loss
    lower: tuple[str, ...]
    weights: str  # of the lower branch
    loss: str
    guard: str  # what prevents collapse
    tied: str = "<->"  # how weights pass between the branches: both ways, down, or not at all
    frozen: bool = False  # no gradient passes the lower branch
    each: str = ""  # terms of the loss that see one branch alone
    here: tuple[str, ...] = ()  # methods of this book
    keys: tuple[str, ...] = ()  # of book/refs.bib


APPROACHES = (
    Approach(
        title="Contrast", works="NPID, AVID", here=("xid",),
        keys=("wu2018", "morgado2021"),
        upper=("encoder", "projector"), lower=("encoder", "projector", "bank"),
        weights="shared, or per modality", tied="", frozen=True,
        loss="InfoNCE:\nthe partner\namong many",
        guard="negatives are pushed away",
    ),
    Approach(
        title="Clustering", works="DeepCluster, SeLa, SwAV, XDC",
        keys=("caron2018", "asano2020", "caron2020", "alwassel2020"),
        upper=("encoder", "projector"), lower=("encoder", "projector", "clusters"),
        weights="shared; XDC: per modality", tied="", frozen=True,
        loss="cross-entropy:\nthe partner's\ncluster",
        guard="no cluster may stay empty",
    ),
    Approach(
        title="Distillation", works="BYOL", keys=("grill2020",),
        upper=("encoder", "projector", "predictor"), lower=("encoder", "projector"),
        weights="moving average", tied="->", frozen=True,
        loss="distance of\nunit vectors",
        guard="a slow target, and a predictor on one side",
    ),
    Approach(
        title="Stop-gradient", works="SimSiam", keys=("chen2021",),
        upper=("encoder", "projector", "predictor"), lower=("encoder", "projector"),
        weights="shared", frozen=True,
        loss="cosine\nsimilarity",
        guard="no gradient to the target, and a predictor",
    ),
    Approach(
        title="Decorrelation", works="Barlow Twins", keys=("zbontar2021",),
        upper=("encoder", "expander"), lower=("encoder", "expander"),
        weights="shared",
        loss="correlation\nof dimensions\n= identity",
        guard="dimensions must vary, and differ",
    ),
    Approach(
        title="Variance, invariance, covariance", works="VICReg", keys=("bardes2022",),
        here=("vicreg_av", "vicreg_v"),
        upper=("encoder", "expander"), lower=("encoder", "expander"),
        weights="shared, or per modality", tied="",
        loss="invariance:\nsquared\ndistance", each="variance\ncovariance",
        guard="a floor under each dimension's spread",
    ),
)  # fmt: skip


def plot_approaches() -> Figure:
    """A panel per family of methods, after what the thesis's Figure 2.1 compares."""
    fig, axes = plt.subplots(3, 2, figsize=(9, 7.6))
    for ax, approach in zip(axes.flat, APPROACHES, strict=True):
        ax.set(xlim=(0, PANEL[0]), ylim=(-0.08, PANEL[1]), aspect="equal")
        ax.axis("off")
        draw_heading(ax, approach)
        for y, parts, clip in zip(
            LINES, (approach.upper, approach.lower), ("$x$", "$x'$"), strict=True
        ):
            draw_branch(ax, y, parts, clip, dashed=approach.frozen and y == LINES[1])
        draw_between(ax, approach)
        draw_loss(ax, approach)
    return fig


def draw_heading(ax: Axes, approach: Approach) -> None:
    """Title, examples, the book's own methods of this kind, and what prevents collapse."""
    colour = BLUE if approach.here else INK
    ax.text(0, 2.2, approach.title, weight="bold", fontsize=12, color=colour)
    ax.text(0, 1.98, approach.works, fontsize=10.5, color=PALE)
    if approach.here:
        here = "here: " + ", ".join(map(method_title, approach.here))
        ax.text(sum(LOSS), 1.98, here, fontsize=10.5, color=colour, ha="right")
    ax.text(0, 0.02, f"No collapse: {approach.guard}", fontsize=10.5)


def draw_branch(ax: Axes, y: float, parts: tuple[str, ...], clip: str, *, dashed: bool) -> None:
    """One line from the clip through its parts to the loss."""
    ax.text(0.1, y, clip, ha="center", va="center", fontsize=11)
    width, height = PART
    ends = [0.2, *(x + width for x in COLUMNS[: len(parts)])]
    starts = [*COLUMNS[: len(parts)], LOSS[0]]
    line = "--" if dashed else "-"
    for end, start in zip(ends, starts, strict=True):
        arrow = {"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0, "ls": line}
        ax.annotate("", (start, y), (end, y), arrowprops=arrow)
    for x, name in zip(COLUMNS, parts, strict=False):
        way, colour = PARTS[name]
        left, right = ((1 - 0.2 * max(0, s)) * height / 2 for s in (way, -way))
        corners = [(x, y - left), (x, y + left), (x + width, y + right), (x + width, y - right)]
        ax.add_patch(Polygon(corners, facecolor=colour, edgecolor=INK, ls=line, lw=1))
        ax.text(x + width / 2, y, name, ha="center", va="center", fontsize=10.5)


def draw_between(ax: Axes, approach: Approach) -> None:
    """Whose weights the lower branch has, between the two."""
    middle, x = sum(LINES) / 2, COLUMNS[0] + PART[0] / 2
    if approach.tied:
        gap = PART[1] / 2 + 0.02
        ends = (x, LINES[1] + gap), (x, LINES[0] - gap)
        style = {"->": "-|>", "<->": "<|-|>"}[approach.tied]
        arrow = {"arrowstyle": style, "color": PALE, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", *ends, arrowprops=arrow)
    start = x + 0.12 if approach.tied else COLUMNS[0]
    ax.text(start, middle, f"weights: {approach.weights}", va="center", fontsize=10.2, color=PALE)


def draw_loss(ax: Axes, approach: Approach) -> None:
    """The loss over both branches, and what it asks of each alone."""
    (x, width), (top, bottom) = LOSS, LINES
    box = FancyBboxPatch(
        (x + 0.04, bottom - 0.18), width - 0.08, top - bottom + 0.36,
        boxstyle="round,pad=0.04", facecolor="white", edgecolor=INK, lw=1,
    )  # fmt: skip
    ax.add_patch(box)
    middle, centre = (top + bottom) / 2, x + width / 2
    ax.text(centre, middle, approach.loss, ha="center", va="center", fontsize=10.2)
    for y, side in ((top + 0.04, "bottom"), (bottom - 0.04, "top")):
        style: dict[str, Any] = {"ha": "center", "va": side, "fontsize": 10.2, "linespacing": 1.0}
        ax.text(COLUMNS[2] + 0.4, y, approach.each, **style)

"""What diagrams are drawn with: boxes, encoders, banks and arrows on a canvas in inches.

Colours are plain on white, and texts at least `SMALL`, so that a picture of 9 inches can still be
read where a page shows it smaller.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from avnb.book.style import BLUE, GREY, ORANGE

WIDTH = 9.0  # inches, of every figure
TEXT, SMALL = 10.5, 10.0  # points
VIDEO, AUDIO, GREEN, INK = BLUE, ORANGE, "#009e73", "#262626"
Point = tuple[float, float]


@dataclass(frozen=True)
class Svg:
    """A figure that a notebook shows as SVG, sharp at any size: `report.Svg(report.plot_xid())`.

    Letters are drawn as outlines, so that they take the same room in every browser. A figure that
    was shown is closed; otherwise the notebook would show it again as pixels.
    """

    figure: Figure

    def _repr_svg_(self) -> str:
        buffer = io.StringIO()
        with plt.rc_context({"svg.fonttype": "path"}):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        plt.close(self.figure)
        return buffer.getvalue()


@dataclass(frozen=True)
class Node:
    """The room that a part of a diagram takes, in inches: where arrows begin and end."""

    x: float  # of the centre
    y: float
    width: float
    height: float

    @property
    def left(self) -> Point:
        """Middle of the left side."""
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> Point:
        """Middle of the right side."""
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> Point:
        """Middle of the upper side."""
        return self.x, self.y + self.height / 2

    @property
    def bottom(self) -> Point:
        """Middle of the lower side."""
        return self.x, self.y - self.height / 2


def canvas(height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches, with axes over all of it, of which a unit is an inch."""
    fig = plt.figure(figsize=(WIDTH, height), layout="none")
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, height))
    ax.axis("off")
    return fig, ax


def tint(colour: str, share: float = 0.16) -> str:
    """A colour mixed with white."""
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def note(ax: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """A text, centred on a point."""
    usual: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL, "color": INK}
    ax.text(x, y, text, linespacing=1.25, **{**usual, **options})


def box(ax: Axes, node: Node, text: str, colour: str = "") -> Node:
    """A rectangle with round corners and a text; white where it has no colour of its own."""
    style: dict[str, Any] = {"fc": tint(colour) if colour else "white", "ec": colour or GREY}
    corner = node.x - node.width / 2, node.y - node.height / 2
    style |= {"boxstyle": "round,pad=0,rounding_size=0.07", "lw": 1.3}
    ax.add_patch(FancyBboxPatch(corner, node.width, node.height, **style))
    note(ax, node.x, node.y, text, fontsize=TEXT)
    return node


def encoder(ax: Axes, node: Node, text: str, colour: str, *, down: bool = False) -> Node:
    """A trapezoid that narrows to the right, or downwards: what encodes makes less of its input."""
    w, h = node.width / 2, node.height / 2
    corners = [(-w, h), (w, 0.66 * h), (w, -0.66 * h), (-w, -h)]
    if down:
        corners = [(-w, h), (w, h), (w - 0.55 * h, -h), (0.55 * h - w, -h)]
    style: dict[str, Any] = {"fc": tint(colour), "ec": colour, "lw": 1.3, "joinstyle": "round"}
    ax.add_patch(Polygon([(node.x + x, node.y + y) for x, y in corners], **style))
    note(ax, node.x, node.y, text, fontsize=TEXT)
    return node


def sphere(ax: Axes, node: Node, colour: str) -> Node:
    """A unit sphere with a point on it."""
    radius = node.width / 2
    ax.add_patch(Circle((node.x, node.y), radius, fc=tint(colour), ec=colour, lw=1.3))
    equator = (node.x, node.y), node.width, 0.3 * node.width
    ax.add_patch(Ellipse(*equator, fc="none", ec=colour, lw=0.8, ls="--"))
    point = node.x + 0.55 * radius, node.y + 0.6 * radius
    ax.add_patch(Circle(point, 0.04, fc=colour, ec="none"))
    return node


def bank(ax: Axes, node: Node, colour: str, rows: int = 9, own: int = 4) -> Node:
    """A matrix of rows, of which one is a video's own."""
    height = node.height / rows
    left, bottom = node.x - node.width / 2, node.y - node.height / 2
    for i in range(rows):
        face = colour if i == own else tint(colour)
        corner = left, bottom + i * height
        ax.add_patch(Rectangle(corner, node.width, height, fc=face, ec=colour, lw=0.9))
    return node


def arrow(ax: Axes, start: Point, end: Point, **options: Any) -> None:
    """An arrow from point to point."""
    usual: dict[str, Any] = {"arrowstyle": "-|>", "color": INK, "lw": 1.2}
    usual |= {"mutation_scale": 11, "shrinkA": 0, "shrinkB": 0}
    ax.add_patch(FancyArrowPatch(start, end, **{**usual, **options}))


def elbow(ax: Axes, points: Sequence[Point]) -> None:
    """A line with corners that ends as an arrow."""
    ax.plot(*zip(*points[:-1], strict=True), color=INK, lw=1.2, solid_capstyle="butt")
    arrow(ax, *points[-2:])

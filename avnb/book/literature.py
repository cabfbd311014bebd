"""What other works reached by fine-tuning, with the thesis among them: Tables 2.1 and 4.4."""

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from avnb.book.style import BLUE, GREY, ORANGE, in_method_order, method_title
from avnb.book.wording import Record, bullets, rows_where
from avnb.config import unknown_name
from avnb.evaluation.class_names import TITLES

HEADINGS = {"pretraining": "pre-trained on", **TITLES}
THESIS_DATA = "VGGSound, 50\N{NO-BREAK SPACE}000 videos"
MODALITIES = {"V": ("video", BLUE), "V+A": ("video and audio", ORANGE)}
# Where the label of a point may stand, in points from it, with its alignment; the first that is
# free is taken.
PLACES = (
    (7, 0, "left", "center"), (-7, 0, "right", "center"),
    (0, 7, "center", "bottom"), (0, -7, "center", "top"),
    (6, 6, "left", "bottom"), (6, -6, "left", "top"),
    (-6, 6, "right", "bottom"), (-6, -6, "right", "top"),
)  # fmt: skip


def all_works(literature: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The works of Table 2.1, then the thesis's fine-tuned encoders at video level (Table 4.4).

    Accuracies are top-1 in percent; `year` is that of the reference, `kind` tells `self-supervised`
    works from the `supervised` one and from the `thesis`.

    Args:
        literature: from `results.literature`.
        published: the thesis's rows.
    """
    others = literature.assign(year=literature["reference"].str.extract(r"(\d{4})", expand=False))
    labelled = others["method"] == "supervised"
    others["kind"] = labelled.map({True: "supervised", False: "self-supervised"})
    own = rows_where(published, task="finetune", level="video", metric="top1")
    wide = own.pivot_table(index="method", columns="dataset", values="value")
    wide = wide.loc[in_method_order(wide.index)].reset_index()
    ours = wide.assign(
        backbone="R(2+1)D-18", frames="8", year="2022", kind="thesis",
        pretraining=wide["method"].map({"random": "–"}).fillna(THESIS_DATA),
        modality=wide["method"].isin(["random", "vicreg_v"]).map({True: "V", False: "V+A"}),
    )  # fmt: skip
    return pd.concat([others.drop(columns="reference"), ours], ignore_index=True)


def literature_table(works: pd.DataFrame) -> pd.DataFrame:
    """The works of `all_works` as readers see them, by method."""
    own = works["kind"] == "thesis"
    names = works["method"].where(~own, works["method"].map(method_title) + ", thesis")
    table = works.drop(columns="kind").assign(method=names)
    for dataset in ("ucf101", "hmdb51"):
        table[dataset] = table[dataset].map("{:.1f}".format)
    return table.rename(columns=HEADINGS).set_index("method")


@dataclass(frozen=True)
class SortableTable:
    """A table that the script of the book lets readers sort by any column."""

    data: pd.DataFrame

    def _repr_html_(self) -> str:
        # One line of headers: the index's name stands over it, as that of the columns.
        one = self.data.rename_axis(None).rename_axis(columns=str(self.data.index.name))
        return one.to_html(classes="sortable", border=0)


def plot_literature(works: pd.DataFrame) -> Figure:
    """Accuracy on HMDB-51 against UCF-101, a point per work of `all_works`, coloured by modality.

    Circles are self-supervised, the square is supervised, diamonds are the thesis's encoders.
    """
    fig, ax = plt.subplots(figsize=(9, 5.2))
    markers = {"self-supervised": "o", "supervised": "s", "thesis": "D"}
    for (kind, modality), group in works.groupby(["kind", "modality"], sort=False):
        _, colour = MODALITIES[str(modality)]
        ax.scatter(group["ucf101"], group["hmdb51"], 45, marker=markers[str(kind)], color=colour)
    for title, colour in MODALITIES.values():
        ax.scatter([], [], 45, color=colour, label=title)
    for kind, marker in markers.items():
        ax.scatter([], [], 45, marker=marker, color=GREY, label=kind)
    ax.margins(0.12)
    ax.set(xlabel="UCF-101, top-1 accuracy, %", ylabel="HMDB-51, top-1 accuracy, %")
    ax.legend(fontsize=10.2, loc="upper left")
    label_points(fig, ax, works)
    return fig


def label_points(fig: Figure, ax: Axes, works: pd.DataFrame) -> None:
    """Write each work's name where it covers no other name and no point."""
    fig.draw_without_rendering()  # the layout is settled
    points = ax.transData.transform(works[["ucf101", "hmdb51"]].to_numpy())
    room = Bbox.from_extents(ax.bbox.x0, ax.bbox.y0, fig.bbox.x1, fig.bbox.y1)
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    style: dict[str, Any] = {"fontsize": 10.2, "textcoords": "offset points"}
    for work in works.to_dict("records"):
        for dx, dy, ha, va in PLACES:
            place: dict[str, Any] = {"xytext": (dx, dy), "ha": ha, "va": va}
            text = ax.annotate(short_name(work), (work["ucf101"], work["hmdb51"]), **place, **style)
            box = text.get_window_extent().padded(2)
            inside = room.contains(*box.min) and room.contains(*box.max)
            if inside and not box.count_overlaps(taken):
                break
            text.remove()
        taken.append(box)


def short_name(work: Record) -> str:
    """A work's name in the figure: with the data set where that is not the usual one."""
    if work["kind"] == "thesis":
        return method_title(work["method"])
    if work["kind"] == "supervised":
        return f"supervised {work['backbone']}"
    unusual = work["pretraining"] not in ("Kinetics-400", "–")
    return f"{work['method']} ({work['pretraining']})" if unusual else work["method"]


def describe_literature(works: pd.DataFrame, method: str = "xid") -> str:
    """Which works are highest by modality, and where the thesis's `method` stands among them.

    Raises:
        ValueError: for a method that the thesis does not have.
    """
    if method not in (own := set(rows_where(works, kind="thesis")["method"])):
        raise ValueError(unknown_name("method of the thesis", method, own))
    sentences = [describe_dataset(works, name, method) for name in ("ucf101", "hmdb51")]
    others = rows_where(works, kind="self-supervised")
    order = others["ucf101"].corr(others["hmdb51"], method="spearman")
    together = f"Spearman's rank correlation between the two data sets, over these {len(others)}"
    return bullets([*sentences, f"{together} results, is {order:.2f}."])


def describe_dataset(works: pd.DataFrame, dataset: str, method: str) -> str:
    """The same for one of the two data sets."""
    table = works.assign(name=works.apply(short_name, axis=1)).sort_values(dataset)
    others = rows_where(table, kind="self-supervised")
    best = [
        f"{with_value(rows_where(others, modality=modality).iloc[-1], dataset)} "
        f"among those from {title}"
        for modality, (title, _) in MODALITIES.items()
    ]
    labels = rows_where(table, kind="supervised")[dataset].iloc[-1]
    own, least = rows_where(table, kind="thesis", method=method).iloc[0], others.iloc[0]
    gap = own[dataset] - least[dataset]
    return (
        f"**{TITLES[dataset]}**: the highest of {len(others)} self-supervised results are "
        f"{' and '.join(best)}; the supervised network reaches {labels:.1f} %. The thesis's "
        f"{with_value(own, dataset)} is {abs(gap):.1f} points {'below' if gap < 0 else 'above'} "
        f"the lowest of them, {with_value(least, dataset)}."
    )


def with_value(work: pd.Series, dataset: str) -> str:
    """`XDC (84.2 %)`, or with a comma where the name has brackets of its own."""
    name, value = work["name"], f"{work[dataset]:.1f}\N{NO-BREAK SPACE}%"
    return f"{name[:-1]}, {value})" if name.endswith(")") else f"{name} ({value})"

"""Tables, figures and readings on retrieval, and on the spaces it takes place in."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from avnb.book.comparisons import ranking
from avnb.book.style import (
    CLASS_COLOURS,
    GREY,
    RED,
    chance_line,
    in_method_order,
    method_colour,
    method_title,
)
from avnb.book.wording import (
    agreeing,
    label,
    level_title,
    records,
    rows_where,
    sentence,
    title_in_text,
    with_interval,
    with_interval_below,
)
from avnb.evaluation.retrieval import COSINE, CROSS_MODAL, DIRECTIONS, PROJECTED, THESIS

MORE_OFTEN = " the right class more often than with shuffled classes"
MEASURES = ("R@1", "R@5", "R@10", "mAP", "median rank")


def measures_table(rows: pd.DataFrame, space: str = THESIS) -> pd.DataFrame:
    """Every measure of every method and direction in one space, and what chance gives."""
    chosen, lines = rows_where(rows, space=space), []
    for level in DIRECTIONS:
        for method in in_method_order(chosen["method"]):
            own = rows_where(chosen, level=level, method=method).set_index("metric")
            if "R@1" in own.index:
                value = own["value"]
                cells = {m: number(m, value[m]) for m in MEASURES if m in own.index}
                lines.append({"direction": level_title(level), "": method_title(method)} | cells)
        guess = rows_where(chosen, level=level).drop_duplicates("metric").set_index("metric")
        if "R@1" in guess.index:
            value = guess["chance"]
            cells = {m: number(m, value[m]) for m in MEASURES if m in guess.index}
            lines.append({"direction": level_title(level), "": "chance"} | cells)
    return pd.DataFrame(lines, dtype=object).fillna("–").set_index(["direction", ""])


def number(metric: str, value: float) -> str:
    """A rank without, a share in percent with one digit."""
    return f"{value:.0f}" if metric == "median rank" else f"{value:.1f}"


def plot_spaces(rows: pd.DataFrame, metric: str = "R@5") -> Figure:
    """Recall across modalities by method: of the encoders' features, and of the projected ones."""
    fig, axes = plt.subplots(1, len(CROSS_MODAL), figsize=(9, 3.1), sharey=True)
    spaces = {THESIS: 0.45, PROJECTED: 1.0}  # opacity
    order = in_method_order(rows["method"])
    for ax, level in zip(axes, CROSS_MODAL, strict=True):
        for side, (space, alpha) in zip((-0.19, 0.19), spaces.items(), strict=True):
            for row in records(rows_where(rows, level=level, metric=metric, space=space)):
                ends = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
                x, colour = order.index(row["method"]) + side, method_colour(row["method"])
                ax.bar(x, row["value"], 0.36, yerr=ends, color=colour, alpha=alpha, capsize=3)
        chance_line(ax, rows_where(rows, level=level, metric=metric))
        ax.set_xticks(range(len(order)), [method_title(m) for m in order], rotation=30, ha="right")
        ax.set_title(level_title(level), fontsize=11)
    axes[0].set_ylabel(f"{metric}, %")
    marks = [plt.Rectangle((0, 0), 1, 1, color=GREY, alpha=a) for a in spaces.values()]
    fig.legend(
        [*marks, Line2D([], [], color=RED, ls="--")],
        ["encoder features, as in the thesis", "after the heads", "chance"],
        loc="outside lower center", ncols=3, fontsize=9,
    )  # fmt: skip
    return fig


def alignment_table(rows: pd.DataFrame) -> pd.DataFrame:
    """How video and audio lie to each other, by method and space."""
    pairs = {"uniformity": "{:.2f}, {:.2f}", "effective rank": "{:.0f}, {:.0f}"}
    lines = []
    for method in in_method_order(rows["method"]):
        for space, title in {COSINE: "features", PROJECTED: "projected"}.items():
            own = rows_where(rows, method=method, space=space)
            if own.empty:
                continue
            value = own.set_index("metric")["value"]
            line = {"method": method_title(method), "space": title}
            line |= {"alignment": f"{value['alignment']:.2f}"}
            line |= {"gap": f"{value['modality gap']:.2f}"}
            for name, form in pairs.items():
                both = (value[f"{name} of {modality}"] for modality in ("video", "audio"))
                line[f"{name}, v and a"] = form.format(*both)
            for row in records(rows_where(own, metric="own video R@1")):
                line["own, " + row["level"].replace("->", " to ")] = with_interval_below(row)
            lines.append(line)
    return pd.DataFrame(lines, dtype=object).set_index(["method", "space"])


def describe_retrieval(rows: pd.DataFrame, base: str = "random") -> str:
    """Recall@1 within each modality against `base`, and recall@5 across them against chance."""
    said = []
    for level, where in {"v->v": "from video to video", "a->a": "from audio to audio"}.items():
        found = records(rows_where(rows, level=level, metric="R@1", space=THESIS))
        if found:
            first, *more = ranking(found, base)
            said += [f"{where}, {first}", *more]
    return " ".join([*map(sentence, said), describe_cross_modal(rows)]).strip()


def cross_modal_tests(rows: pd.DataFrame, space: str) -> pd.DataFrame:
    """Rows with the p-value of recall@5 across modalities, and it corrected (`holm`)."""
    tests = rows_where(rows, metric="p of R@5", space=space)
    return tests.assign(holm=holm(tests["value"].to_numpy()))


def cross_modal_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Recall@5 across modalities in both spaces, with chance and the corrected p-value."""
    lines = []
    for space, title in {THESIS: "features", PROJECTED: "after the heads"}.items():
        for test in records(cross_modal_tests(rows, space)):
            level, method = test["level"], test["method"]
            own = rows_where(rows, level=level, method=method, space=space, metric="R@5").iloc[0]
            line = {"space": title, "direction": level_title(level), "": method_title(method)}
            line |= {"recall@5, %": with_interval(own), "chance, %": f"{own['chance']:.1f}"}
            lines.append(line | {"p": f"{test['holm']:.3f}"})
    columns = ["space", "", "direction", "recall@5, %", "chance, %", "p"]
    return pd.DataFrame(lines, columns=columns).set_index(columns[:3])


def describe_cross_modal(rows: pd.DataFrame, chance_level: float = 0.05) -> str:
    """Whether video finds audio of its class more often than if classes were shuffled, by space.

    The p-values are Holm's, over all methods and directions of a space (Holm 1979).
    """
    places = {THESIS: "by the encoders' own features", PROJECTED: "after the heads of pre-training"}
    parts: list[str] = []
    for space, place in places.items():
        tests = cross_modal_tests(rows, space)
        if tests.empty:
            continue
        found: dict[str, list[str]] = {}
        for test in records(tests[tests["holm"] < chance_level]):
            found.setdefault(title_in_text(test["method"]), []).append(level_title(test["level"]))
        names = [
            f"{name} ({'both ways' if len(levels) == 2 else levels[0]})"
            for name, levels in found.items()
        ]
        verbs = ("does", "do") if parts else ("finds", "find")
        who = agreeing(names or ["no method"], *verbs)
        parts.append(f"{place}, {who}" + ("" if parts else MORE_OFTEN))
    return sentence(f"across modalities, {'; '.join(parts)}") if parts else ""


def holm(p: np.ndarray) -> np.ndarray:
    """p-values [N] corrected for testing N hypotheses at once."""
    order = p.argsort()
    scaled = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    corrected = np.empty_like(p)
    corrected[order] = scaled.clip(max=1)
    return corrected


def plot_by_class(table: pd.DataFrame, most: int = 30) -> Figure:
    """Recall@1 of each class and direction as a heat map; the largest classes where many."""
    import seaborn as sns

    shown = table if len(table) <= most else table.nlargest(most, "n").sort_index()
    shown = shown.drop(columns="n").rename(columns=level_title, index=lambda n: label(str(n)))
    fig, ax = plt.subplots(figsize=(7.4, 0.3 * len(shown) + 1.4))
    bar = {"label": "recall@1, %", "shrink": 0.8}
    sns.heatmap(
        shown, vmin=0, vmax=100, cmap="Blues", annot=True, fmt=".0f", ax=ax, cbar_kws=bar,
        annot_kws={"fontsize": 8},
    )  # fmt: skip
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="x", labelrotation=20, labelsize=9)
    ax.tick_params(axis="y", labelrotation=0, labelsize=9)
    return fig


def plot_embedding_maps(
    maps: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray, classes: Sequence[str]
) -> Figure:
    """Video (circles) and audio (triangles) of the same videos, one panel per space and map.

    Lines join video and audio of every class's first video. Of more than ten classes, all but the
    ten largest are grey.

    Args:
        maps: by space and kind of map, coordinates [2 V, 2]: of all videos, then of their audio.
        labels: [V] class of each video.
        classes: their names.
    """
    kinds = list(next(iter(maps.values())))
    fig, axes = plt.subplots(len(maps), len(kinds), figsize=(9, 3.7 * len(maps)), squeeze=False)
    largest = pd.Series(labels).value_counts().index[: len(CLASS_COLOURS)]
    colour_of = {c: CLASS_COLOURS[i] for i, c in enumerate(sorted(largest))}
    colours = [colour_of.get(c, "#c3c8cf") for c in labels]
    firsts = [int((labels == c).argmax()) for c in colour_of]
    for line, (space, panels) in zip(axes, maps.items(), strict=True):
        for ax, (kind, points) in zip(line, panels.items(), strict=True):
            v, a = np.split(points, 2)
            for i in firsts:
                ax.plot(*zip(v[i], a[i], strict=True), color=colours[i], lw=0.8, zorder=1)
            ax.scatter(*v.T, c=colours, marker="o", s=16, lw=0.3, edgecolors="white")
            ax.scatter(*a.T, c=colours, marker="^", s=18, lw=0.3, edgecolors="white")
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{space}: {kind}", fontsize=10)
    marks = [Line2D([], [], marker=m, ls="", color=GREY) for m in "o^"]
    marks += [Line2D([], [], marker="s", ls="", color=c) for c in colour_of.values()]
    names = ["video", "audio", *(label(classes[c]) for c in colour_of)]
    fig.legend(marks, names, loc="outside lower center", ncols=5, fontsize=8)
    return fig

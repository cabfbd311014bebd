"""Figures, tables and readings on seen concepts."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from avnb.book.style import BLUE, RED, fig_legend
from avnb.book.wording import Record, bullets, listed, literal, rows_where, sentence, span
from avnb.evaluation.class_names import TITLES
from avnb.evaluation.concepts import Matched, outliers, read_setting

DASHED: dict[str, Any] = {"color": RED, "lw": 1.2, "ls": "--"}


def pair_title(row: Record) -> str:
    """`VGGSound → UCF-101`, of a result row."""
    return " → ".join(TITLES.get(key, str(key)) for key in (row["level"], row["dataset"]))


def pair_titles(rows: pd.DataFrame) -> list[str]:
    """`pair_title` of every row."""
    return [pair_title(row) for row in rows.to_dict("records")]


def share(value: float, n: float) -> str:
    """`54 (53 %)`."""
    return f"{int(value)} ({100 * value / n:.0f} %)"


def plot_cosines(matched: Sequence[Matched]) -> Figure:
    """Cosines of all name pairs, and of each query with its best target, with the threshold."""
    columns = len({m.pair.queries.key for m in matched})
    lines = len(matched) // columns
    grid: dict[str, Any] = {"squeeze": False, "sharex": True, "sharey": True}
    fig, axes = plt.subplots(lines, columns, figsize=(9, 2.6 * lines), **grid)
    bins = np.linspace(-0.2, 1, 49).tolist()
    outline: dict[str, Any] = {"histtype": "step", "color": BLUE, "lw": 1.6}
    for ax, m in zip(axes.flat, matched, strict=True):
        best = m.primary.max(axis=1)
        ax.hist(m.primary.ravel(), bins, density=True, color="#c9ccd1", label="all pairs")
        ax.hist(best, bins, density=True, label="best of each class", **outline)
        ax.axvline(m.pair.threshold, label="threshold", **DASHED)
        above = f"{100 * (best > m.pair.threshold).mean():.0f} %\nabove"
        ax.text(0.98, 0.95, above, ha="right", va="top", transform=ax.transAxes)
        ax.set_title(m.pair.title, fontsize=10)
    for ax in axes[-1]:
        ax.set_xlabel(f"cosine, {matched[0].model}", fontsize=10)
    for ax in axes[:, 0]:
        ax.set_ylabel("density")
    fig_legend(fig, axes[0, 0])
    return fig


def plot_sensitivity(rows: pd.DataFrame, published: pd.DataFrame, own_top: int) -> Figure:
    """Seen concepts against the threshold, a line per top-k, and the published count.

    The title names the models, the line of `own_top` is thick, and the axis ends at the number
    of classes.

    Args:
        rows: result rows `seen` of one pair of models, at many settings.
        published: the thesis's rows `seen`.
        own_top: the top-k of the thesis's setting.
    """
    import seaborn as sns

    settings = [read_setting(split) for split in rows["split"]]
    table = rows.assign(threshold=[t for t, _ in settings], top=[k for _, k in settings])
    levels, datasets = table["level"].unique(), table["dataset"].unique()
    size = (9, 2.7 * len(datasets))
    fig, axes = plt.subplots(len(datasets), len(levels), figsize=size, squeeze=False, sharex=True)
    tops = sorted(table["top"].unique())
    shades = dict(zip(tops, sns.color_palette("crest", len(tops)), strict=True))
    for ax, (dataset, level) in zip(axes.flat, product(datasets, levels), strict=True):
        group = rows_where(table, level=level, dataset=dataset)
        for top, line in group.sort_values("threshold").groupby("top"):
            width = 3.0 if top == own_top else 1.3
            color = shades[top]
            ax.plot(line["threshold"], line["value"], color=color, lw=width, label=f"top {top}")
        first = group.iloc[0]
        for value in rows_where(published, level=level, dataset=dataset)["value"]:
            ax.axhline(value, label="thesis (phrase-bert), top 3", **DASHED)
        ax.set_title(f"{pair_title(first)} ({int(first['n'])})", fontsize=10)
        ax.set(ylim=(0, first["n"]), xlabel="threshold", ylabel="seen concepts")
        ax.label_outer()
    fig.suptitle(f"here: {table['method'].iloc[0]}", fontsize=9)
    fig_legend(fig, fig.axes[0])
    return fig


def plot_two_models(matched: Matched, rows: pd.DataFrame) -> Figure:
    """Cosines of one pair of data sets under both models, and how many top targets they share.

    Args:
        matched: the pair of the left panel; shown are the targets that the second model ranks.
        rows: result rows `shared 0`, `shared 1`, ... of all pairs.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7), width_ratios=(1, 1.25))
    density: dict[str, Any] = {"bins": "log", "cmap": "crest", "mincnt": 1, "linewidths": 0.1}
    if (second := matched.second) is None:
        raise ValueError(f"{matched.method}: there is no second text encoder to compare with")
    first = np.take_along_axis(matched.primary, second.targets, axis=1)
    left.hexbin(first.ravel(), second.cosines.ravel(), gridsize=45, **density)
    left.axvline(matched.pair.threshold, **DASHED)
    left.set_xlabel(f"cosine, {matched.model}", fontsize=9)
    left.set_ylabel(f"cosine, {second.title}", fontsize=9)
    left.set_title(matched.pair.title, fontsize=10)
    table = rows.assign(pair=pair_titles(rows), share=100 * rows["value"] / rows["n"])
    table["metric"] = table["metric"].str.removeprefix("shared ")
    wide = table.pivot(index="pair", columns="metric", values="share")
    wide.loc[table["pair"].unique()[::-1]].plot.barh(
        stacked=True, ax=right, width=0.72, colormap="Blues", edgecolor="#5a6068"
    )
    right.set(xlabel="classes of the pre-training set, %", ylabel="", xlim=(0, 100))
    right.tick_params(axis="y", labelsize=9)
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1)}
    small = {"fontsize": 8, "title_fontsize": 8}
    right.legend(title="targets shared", ncols=len(wide.columns), **place, **small)
    return fig


def plot_coverage(ours: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Share of each test set's classes that are seen in pre-training, here and in the thesis."""
    fig, ax = plt.subplots(figsize=(9, 0.5 * len(ours) + 1.3))
    titles, shares = pair_titles(ours), 100 * ours["value"] / ours["n"]
    models = ", ".join(ours["method"].unique())
    ax.barh(titles, shares, color=BLUE, height=0.6, label=f"here: {models}")
    thesis = published.assign(pair=pair_titles(published))
    thesis = thesis[thesis["pair"].isin(titles)]
    if len(thesis):
        diamonds: dict[str, Any] = {"color": "#f2a900", "mec": "black", "ms": 8}
        name = f"thesis: {published['method'].iloc[0]}"
        ax.plot(100 * thesis["value"] / thesis["n"], thesis["pair"], "D", label=name, **diamonds)
    ax.invert_yaxis()
    ax.set(xlabel="seen concepts, % of the test set's classes", xlim=(0, 100))
    fig.legend(loc="outside lower center", fontsize=8)
    return fig


def seen_table(ours: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Table 4.5: our counts beside the thesis's, columns headed by the models behind them.

    Both hold result rows `seen`, one per pair of data sets, of the same pairs or of others.
    """
    table = pd.DataFrame({"classes": ours["n"].astype(int).tolist()}, index=pair_titles(ours))
    for place, rows in ("here", ours), ("thesis", published):
        for models, group in rows.groupby("method", sort=False):
            percent = (100 * group["value"] / group["n"]).map("{:.0f} %".format)
            cells = group["value"].map("{:.0f}".format) + " (" + percent + ")"
            column = cells.astype(object).set_axis(pair_titles(group)).reindex(table.index)
            table[f"{place}: {models}"] = column.fillna("–")
    return table


def match_table(matched: Sequence[Matched]) -> pd.DataFrame:
    """Every class of a pre-training set that matches something, with its matches."""
    lines = []
    for m in matched:
        queries, targets = m.pair.queries, m.pair.targets
        for i, matches in enumerate(m.seen()[0]):
            if matches:
                names = ", ".join(targets.names[t] for t in matches)
                cosine = f"{m.primary[i].max():.3f}"
                lines.append((queries.title, queries.names[i], cosine, targets.title, names))
    columns = ["pre-training set", "class", "cosine", "test set", "matches"]
    return pd.DataFrame(lines, columns=columns)


# Rows without every typed word are hidden; without scripts the whole table stays visible.
SEARCH = """const words = this.value.toLowerCase().split(/\\s+/);
for (const row of this.parentElement.querySelectorAll('tbody tr')) {
  const text = row.textContent.toLowerCase();
  row.hidden = !words.every(word => text.includes(word));
}"""


@dataclass(frozen=True)
class SearchableTable:
    """A table below a field that filters its rows by all words typed in."""

    data: pd.DataFrame  # its index is left out
    note: str  # says what the table was made with
    rows_shown: int = 14  # approximate height in rows; the rest is reached by scrolling

    def _repr_html_(self) -> str:
        table = self.data.to_html(index=False, border=0)
        body = table.replace("<th>", '<th style="text-align: left">')
        return (
            f'<div class="tex2jax_ignore"><p>{html.escape(self.note)}</p>'
            '<input type="search" style="width: 20em" '
            f'placeholder="search {len(self.data)} rows" aria-label="search the table" '
            f'oninput="{html.escape(SEARCH)}">'
            f'<div tabindex="0" style="max-height: {self.rows_shown * 2.2:g}em; overflow: auto">'
            f"{body}</div></div>"
        )


def outlier_table(matched: Sequence[Matched]) -> pd.DataFrame:
    """The outliers removed by hand, why, and how many classes would match them here otherwise."""
    pairs = {(m.pair.queries.key, m.pair.targets.key): m for m in matched}
    lines = []
    for row in outliers():
        if m := pairs.get((row["queries"], row["targets"])):
            label = m.pair.targets.plain.index(row["target"])
            count = sum(label in matches for matches in m.seen(struck=False)[0])
            cells = (row["target"], row["reason"], row["reached_from"])
            lines.append((m.pair.title, *cells, count))
    columns = ["pair", "removed", "why", "reached from, e.g.", "matches here"]
    return pd.DataFrame(lines, columns=columns)


def describe_sensitivity(rows: pd.DataFrame, low: str, high: str) -> str:
    """How far the counts move between two settings, and which moves most; result rows `seen`."""
    table = rows.pivot_table(index=["dataset", "level"], columns="split", values="value")
    lost = (table[low] - table[high]).astype(int).sort_values()
    most = lost.index[-1]
    pair = pair_title(dict(zip(("dataset", "level"), most, strict=True)))
    ends = f"for {pair}, from {table[low][most]:.0f} to {table[high][most]:.0f}"
    counts = "the count falls"
    if len(lost) > 1:
        counts = f"the counts fall by {lost.iloc[0]} to {lost.iloc[-1]} classes, most"
    (least, top), (last, _) = read_setting(low), read_setting(high)
    return f"From a threshold of {least:g} to one of {last:g} (top {top}), {counts} {ends}."


def describe_text_encoders(matched: Sequence[Matched]) -> str:
    """Which text encoders compared the names, and how far a live ranking is the published one."""
    lines = list(dict.fromkeys(report for m in matched for report in m.reports))
    lines += [
        f"**{m.pair.title}**: {100 * m.as_published:.0f} % of the classes have the published "
        "ranking here as well."
        for m in matched
        if m.as_published is not None
    ]
    return bullets(lines)


def describe_models(rows: pd.DataFrame) -> str:
    """How often the two models share none of their top targets; result rows `shared k`."""
    none = rows[rows["metric"] == "shared 0"]
    if none.empty:
        return "The first model decided alone."
    shares = span(100 * none["value"] / none["n"])
    return f"For {shares} % of the classes the two models share none of their nearest test classes."


def describe_coverage(ours: pd.DataFrame, published: pd.DataFrame) -> str:
    """How many of all test classes each pre-training set covers, here and in the thesis."""
    counts = {str(level): group[["value", "n"]].sum() for level, group in ours.groupby("level")}
    ordered = sorted(counts, key=lambda level: -counts[level]["value"])
    names = [TITLES[level] if level in TITLES else literal(level) for level in ordered]
    shares = [f"{name} {share(*counts[level])}" for level, name in zip(ordered, names, strict=True)]
    total = int(counts[ordered[0]]["n"])
    shares[0] = f"{names[0]} contains {share(*counts[ordered[0]])} of {total} test classes"
    said = [f"by name, {listed(shares)}"]
    thesis = published[published["dataset"].isin(ours["dataset"].unique())]
    theirs = [rows_where(thesis, level=level)["value"].sum() for level in ordered]
    if all(theirs):
        same = theirs == [counts[level]["value"] for level in ordered]
        numbers = listed(f"{value:.0f}" for value in theirs)
        said[0] += ", as the thesis counted" if same else f"; the thesis counted {numbers}"
    for row in rows_where(ours, level="vggsound", dataset="ucf101").to_dict("records"):
        seen, n = int(row["value"]), int(row["n"])
        own = f"of {TITLES['ucf101']} alone, {seen} of {n} ({100 * seen / n:.0f} %) occur"
        said.append(f"{own} in {TITLES['vggsound']}, on which the thesis pre-trains")
    return " ".join(map(sentence, said))

"""Figures, tables and readings on seen concepts."""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avnb.evaluation.class_names import TITLES
from avnb.evaluation.concepts import Matched, outliers, read_setting


def pair_title(row: Any) -> str:
    """`VGGSound → UCF-101`, of a result row."""
    return " → ".join(TITLES.get(key, key) for key in (row["level"], row["dataset"]))


def pair_panels(rows: pd.DataFrame, height: float) -> tuple[Figure, Iterator[tuple[Axes, Any]]]:
    """A panel a pair of data sets, one line a test set: (axes, the pair's rows) one by one."""
    levels, sets = (list(dict.fromkeys(rows[name])) for name in ("level", "dataset"))
    fig, axes = plt.subplots(
        len(sets), len(levels), figsize=(9, height * len(sets)), squeeze=False, sharex=True
    )
    groups = ((level, name) for name in sets for level in levels)
    some = (rows[(rows["level"] == q) & (rows["dataset"] == t)] for q, t in groups)
    return fig, zip(axes.flat, some, strict=True)


def plot_cosines(matched: Sequence[Matched]) -> Figure:
    """Cosines of all name pairs, and of each query with its best target; the threshold in them."""
    columns = len({m.pair.queries.key for m in matched})
    lines = len(matched) // columns
    fig, axes = plt.subplots(
        lines, columns, figsize=(9, 2.6 * lines), squeeze=False, sharex=True, sharey=True
    )
    bins = np.linspace(-0.2, 1, 49).tolist()
    for ax, m in zip(axes.flat, matched, strict=True):
        best = m.primary.max(axis=1)
        ax.hist(m.primary.ravel(), bins, density=True, color="#c9ccd1", label="all pairs")
        ax.hist(
            best,
            bins,
            density=True,
            histtype="step",
            color="#0b6e99",
            lw=1.6,
            label="best of each class",
        )
        ax.axvline(m.pair.threshold, color="#b3261e", lw=1.2, ls="--", label="threshold")
        share = 100 * float((best > m.pair.threshold).mean())
        ax.text(0.98, 0.95, f"{share:.0f} %\nabove", ha="right", va="top", transform=ax.transAxes)
        ax.set_title(m.pair.title, fontsize=10)
    for ax in axes[-1]:
        ax.set_xlabel(f"cosine, {matched[0].models[0]}", fontsize=10)
    for ax in axes[:, 0]:
        ax.set_ylabel("density")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return fig


def plot_sensitivity(rows: pd.DataFrame, published: pd.DataFrame, own_top: int) -> Figure:
    """Seen concepts against the threshold, a line a top-k; the published count across.

    The title names the models. The line of `own_top` is the thick one, and the axis ends at the
    number of classes.

    Args:
        rows: result rows `seen` of one pair of models, at many settings.
        published: the thesis's rows `seen`.
    """
    settings = [read_setting(split) for split in rows["split"]]
    table = rows.assign(threshold=[t for t, _ in settings], top=[k for _, k in settings])
    fig, panels = pair_panels(table, 2.7)
    tops = sorted(set(table["top"]))
    shades = sns.color_palette("crest", len(tops))
    for ax, some in panels:
        for top, colour in zip(tops, shades, strict=True):
            line = some[some["top"] == top].sort_values("threshold")
            width = 3.0 if top == own_top else 1.3
            ax.plot(line["threshold"], line["value"], color=colour, lw=width, label=f"top {top}")
        one = some.iloc[0]
        same = (published["level"] == one["level"]) & (published["dataset"] == one["dataset"])
        for value in published[same]["value"]:
            ax.axhline(value, color="#b3261e", lw=1, ls="--", label="thesis (phrase-bert), top 3")
        ax.set_title(f"{pair_title(one)} ({int(one['n'])})", fontsize=10)
        ax.set_ylim(0, one["n"])
        if ax.get_subplotspec().is_last_row():  # type: ignore[union-attr]
            ax.set_xlabel("threshold")
        if ax.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            ax.set_ylabel("seen concepts")
    fig.suptitle(f"here: {table['method'].iloc[0]}", fontsize=9)
    handles, labels = fig.axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    return fig


def plot_two_models(matched: Matched, rows: pd.DataFrame) -> Figure:
    """Cosines of one pair of data sets under both models, and how many top targets they share.

    Args:
        matched: the pair of the left panel.
        rows: result rows `shared 0`, `shared 1`, ... of all pairs.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7), width_ratios=(1, 1.25))
    left.hexbin(
        matched.primary.ravel(),
        matched.secondary.ravel(),
        gridsize=45,
        bins="log",
        cmap="crest",
        mincnt=1,
        linewidths=0.1,
    )
    left.axvline(matched.pair.threshold, color="#b3261e", lw=1.2, ls="--")
    left.set_xlabel(f"cosine, {matched.models[0]}", fontsize=9)
    left.set_ylabel("cosine, " + matched.models[1].replace(" (", "\n("), fontsize=9)
    left.set_title(matched.pair.title, fontsize=10)
    table = rows.assign(pair=[pair_title(row) for row in rows.to_dict("records")])
    table["share"] = 100 * table["value"] / table["n"]
    wide = table.pivot_table(index="pair", columns="metric", values="share", sort=False)
    wide[::-1].plot.barh(stacked=True, ax=right, width=0.72, colormap="Blues", edgecolor="#5a6068")
    right.set(xlabel="classes of the pre-training set, %", ylabel="", xlim=(0, 100))
    right.tick_params(axis="y", labelsize=9)
    right.legend(
        labels=[name.removeprefix("shared ") for name in wide.columns],
        title="targets shared",
        ncols=len(wide.columns),
        fontsize=8,
        title_fontsize=8,
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
    )
    return fig


def plot_coverage(ours: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Share of each test set's classes that a pre-training set knows, here and in the thesis."""
    fig, ax = plt.subplots(figsize=(9, 0.5 * len(ours) + 1.3))
    titles = [pair_title(row) for row in ours.to_dict("records")]
    models = ", ".join(dict.fromkeys(ours["method"]))
    ax.barh(
        titles,
        100 * ours["value"] / ours["n"],
        color="#0b6e99",
        height=0.6,
        label=f"here: {models}",
    )
    theirs = {pair_title(row): row for row in published.to_dict("records")}
    known = [title for title in titles if title in theirs]
    shares = [100 * theirs[title]["value"] / theirs[title]["n"] for title in known]
    if known:
        named = f"thesis: {published['method'].iloc[0]}"
        ax.plot(shares, known, "D", color="#f2a900", mec="black", ms=8, ls="none", label=named)
    ax.invert_yaxis()
    ax.set(xlabel="seen concepts, % of the test set's classes", xlim=(0, 100))
    fig.legend(loc="outside lower center", fontsize=8)
    return fig


def seen_table(ours: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Table 4.5: our counts beside the thesis's, each column headed by the models it is made with.

    Args:
        ours: result rows `seen`, one a pair of data sets.
        published: the thesis's, of the same pairs or of others.
    """
    theirs = {pair_title(row): row for row in published.to_dict("records")}
    lines = []
    for row in ours.to_dict("records"):
        line = {"": pair_title(row), "classes": int(row["n"])}
        line[f"here: {row['method']}"] = counted(row)
        known = theirs.get(pair_title(row))
        name = f"thesis: {published['method'].iloc[0]}"
        line[name] = counted(known) if known else "–"
        lines.append(line)
    return pd.DataFrame(lines).fillna("–").set_index("").rename_axis(None)


def counted(row: Mapping[Any, Any]) -> str:
    """`54 (53 %)`, of a row that counts among n."""
    return f"{int(row['value'])} ({100 * row['value'] / row['n']:.0f} %)"


def match_table(matched: Sequence[Matched]) -> pd.DataFrame:
    """Every class of a pre-training set that matches something, with what it matches."""
    lines = []
    for m in matched:
        asked, against = m.pair.queries, m.pair.targets
        for i, found in enumerate(m.seen()[0]):
            if found:
                line = {"pre-training set": asked.title, "class": asked.names[i]}
                line |= {"cosine": f"{m.primary[i].max():.3f}", "test set": against.title}
                lines.append(line | {"matches": ", ".join(against.names[t] for t in found)})
    columns = ["pre-training set", "class", "cosine", "test set", "matches"]
    return pd.DataFrame(lines, columns=columns)


# Rows that do not hold every typed word are hidden; without scripts the whole table stays.
SEARCH = """const words = this.value.toLowerCase().split(/\\s+/);
for (const row of this.parentElement.querySelectorAll('tbody tr')) {
  const text = row.textContent.toLowerCase();
  row.hidden = !words.every(word => text.includes(word));
}"""


def searchable(table: pd.DataFrame, caption: str, rows_shown: int = 14) -> str:
    """The table as HTML with a field above that keeps the rows holding all words typed in.

    Args:
        table: any; its index is left out.
        caption: says what the table was made with.
        rows_shown: about so many at once; the others are scrolled to.
    """
    body = table.to_html(index=False, border=0).replace("<th>", '<th style="text-align: left">')
    return (
        f'<div><p>{html.escape(caption)}</p><input type="search" style="width: 20em" '
        f'placeholder="search {len(table)} rows" aria-label="search the table" '
        f'oninput="{html.escape(SEARCH)}">'
        f'<div style="max-height: {rows_shown * 2.2:g}em; overflow: auto">{body}</div></div>'
    )


def outlier_table(matched: Sequence[Matched]) -> pd.DataFrame:
    """The outliers struck by hand, why, and how many classes would match them here otherwise."""
    at = {(m.pair.queries.key, m.pair.targets.key): m for m in matched}
    lines = []
    for row in outliers():
        m = at.get((row["queries"], row["targets"]))
        if m is None:
            continue
        label = m.pair.targets.plain.index(row["target"])
        again = sum(label in found for found in m.seen(struck=False)[0])
        line = {"pair": m.pair.title, "struck": row["target"], "why": row["reason"]}
        lines.append(line | {"reached from, e.g.": row["reached_from"], "matches here": again})
    columns = ["pair", "struck", "why", "reached from, e.g.", "matches here"]
    return pd.DataFrame(lines, columns=columns)


def describe_cosines(rows: pd.DataFrame) -> str:
    """How many classes have a near enough relative; result rows `queries`."""
    lines = [
        f"- **{pair_title(row)}**: {int(row['value'])} of {int(row['n'])} classes "
        f"({100 * row['value'] / row['n']:.0f} %) have a target above the threshold."
        for row in rows.to_dict("records")
    ]
    return "\n".join(lines)


def describe_sensitivity(rows: pd.DataFrame, low: str, high: str) -> str:
    """How far each count moves between two settings; result rows `seen`."""
    lines = []
    for _, some in rows.groupby(["dataset", "level"], sort=False):
        value = {row["split"]: int(row["value"]) for row in some.to_dict("records")}
        lines.append(
            f"- **{pair_title(some.iloc[0])}**: {value[low]} at {low}, {value[high]} at {high}."
        )
    return "\n".join(lines)


def describe_models(rows: pd.DataFrame) -> str:
    """How often both models share nothing among their top targets; result rows `shared k`."""
    none = rows[rows["metric"] == "shared 0"]
    parts = [
        f"{pair_title(row)} {100 * row['value'] / row['n']:.0f} %"
        for row in none.to_dict("records")
    ]
    return "Share of classes for which the two models have no target in common: " + ", ".join(parts)


def describe_coverage(ours: pd.DataFrame, published: pd.DataFrame) -> str:
    """What each pre-training set knows of all test classes together, here and in the thesis."""
    lines = []
    for level, some in ours.groupby("level", sort=False):
        here = f"{counted_all(some)} here"
        theirs = published[published["level"] == level]
        beside = f", {counted_all(theirs)} in the thesis" if len(theirs) else ""
        lines.append(f"- **{pair_title(some.iloc[0]).split(' → ')[0]}**: {here}{beside}.")
    return "\n".join(lines)


def counted_all(rows: pd.DataFrame) -> str:
    """`127 of 152 classes (84 %)`, over all rows."""
    value, n = int(rows["value"].sum()), int(rows["n"].sum())
    return f"{value} of {n} classes ({100 * value / n:.0f} %)"

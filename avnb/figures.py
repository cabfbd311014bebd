"""Figures: functions of rows and arrays, in one style."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from avnb.concepts import Matched, read_setting
from avnb.encoders import Layer
from avnb.fewshot import PARTS
from avnb.losses import rince
from avnb.names import TITLES

Array = np.ndarray[Any, Any]
METHOD_NAMES = {
    "random": "Random", "supervised": "Supervised", "vicreg_av": "VICReg-AV",
    "vicreg_v": "VICReg-V", "xid": "xID",
}  # fmt: skip
# Told apart with any colour vision, and in print (Okabe & Ito 2008).
SHADES = ("#8a8f98", "#d55e00", "#cc79a7", "#009e73", "#0b6e99")
COLOURS = dict(zip(METHOD_NAMES, SHADES, strict=True))


def style() -> None:
    """Set the book's look; once a notebook."""
    sns.set_theme(context="notebook", style="ticks", font_scale=0.95)
    plt.rcParams.update({
        "figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False,
        "figure.constrained_layout.use": True, "legend.frameon": False,
    })  # fmt: skip


def film_strips(clips: Tensor, titles: Sequence[str]) -> Figure:
    """One row a clip, its frames side by side; clips [C, 3, T, S, S] uint8 or in [0, 1]."""
    count, _, frames, _, _ = clips.shape
    width = 9.0
    fig, axes = plt.subplots(
        count, 1, figsize=(width, count * (width / frames + 0.25)), squeeze=False
    )
    for ax, clip, title in zip(axes[:, 0], clips, titles, strict=True):
        ax.imshow(torch.cat(list(clip.permute(1, 2, 3, 0)), dim=1).numpy())  # [S, T * S, 3]
        ax.set_title(title, loc="left", fontsize=10)
        ax.axis("off")
    return fig


def film_table(films: Sequence[Sequence[Array]], titles: Sequence[str], columns: int = 2) -> Figure:
    """Frames [H, W, 3] of each video side by side, the videos in columns; sizes may differ."""
    rows = -(-len(films) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(9, 1.05 * rows), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
        ax.set_anchor("NW")
    for ax, film, title in zip(axes.flat, films, titles, strict=False):
        ax.imshow(np.concatenate(film, axis=1))
        ax.set_title(title, loc="left", fontsize=8, pad=2)
    return fig


SPLIT_COLOURS = {"train": "#0b6e99", "test": "#d98c2b"}


def extents(rows: pd.DataFrame) -> Figure:
    """How long, how large and how fast the videos of a manifest are, stacked by split."""
    sizes = rows["width"].astype(str) + " x " + rows["height"].astype(str)
    fig, (long, large, fast) = plt.subplots(1, 3, figsize=(9, 3))
    parts = [rows.loc[rows["split"] == split, "seconds"] for split in SPLIT_COLOURS]
    colours, names = list(SPLIT_COLOURS.values()), list(SPLIT_COLOURS)
    long.hist(parts, bins=30, stacked=True, color=colours, label=names)
    long.set(xlabel="seconds", ylabel="videos", title="length")
    long.legend(fontsize=8)
    rates = rows["fps"].map("{:.4g}".format)
    for ax, values, title in (large, sizes, "frame size"), (fast, rates, "frames a second"):
        table = pd.crosstab(commonest(values), rows["split"]).reindex(columns=names)
        table = table.loc[table.sum(axis=1).sort_values().index].fillna(0)
        left = np.zeros(len(table))
        for split, colour in SPLIT_COLOURS.items():
            ax.barh(table.index, table[split], left=left, color=colour)
            left = left + table[split].to_numpy()
        ax.set(xlabel="videos", title=title, ylim=(len(table) - 8.5, len(table) - 0.4))
    return fig


def commonest(values: pd.Series, count: int = 7) -> pd.Series:
    """Values as words, all but the commonest few as `other`."""
    words = values.astype(str)
    return words.where(words.isin(words.value_counts().index[:count]), "other")


def contents(rows: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Videos a class, in the order of the labels, with and without an audio stream."""
    heard = rows["sound_hz"] > 0
    fig, ax = plt.subplots(figsize=(9, 3.2))
    bottom, places = np.zeros(len(classes)), np.arange(len(classes))
    parts = {"with sound": (heard, "#0b6e99"), "without an audio stream": (~heard, "#c3c8cf")}
    for name, (mask, colour) in parts.items():
        counts = rows.loc[mask, "label"].value_counts().reindex(list(classes)).fillna(0).to_numpy()
        ax.bar(places, counts, bottom=bottom, color=colour, label=name, width=0.85)
        bottom = bottom + counts
    if len(classes) <= 30:
        ax.set_xticks(places, classes, rotation=60, ha="right", fontsize=8)
    else:
        ax.set_xlabel("class, by its label")
    ax.set_ylabel("videos")
    ax.set_ylim(0, 1.25 * bottom.max())
    ax.legend(fontsize=8, ncols=2, loc="upper right")
    return fig


def spectrograms(sounds: Tensor, titles: Sequence[str], seconds: float) -> Figure:
    """Standardised log-mel spectrograms [C, 1, M, t] side by side."""
    fig, axes = plt.subplots(
        1, len(sounds), figsize=(9, 2.8), squeeze=False, sharey=True, sharex=True
    )
    for ax, sound, title in zip(axes[0], sounds, titles, strict=True):
        picture = ax.imshow(
            sound[0].numpy(), origin="lower", aspect="auto", cmap="magma", vmin=-2.5, vmax=2.5,
            extent=(0, seconds, 0, sound.shape[1]), interpolation="nearest",
        )  # fmt: skip
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("seconds")
    axes[0, 0].set_ylabel("mel band")
    fig.colorbar(picture, ax=axes[0, -1], label="deviations from the band's mean")
    return fig


def landscape(q: float, lam: float, scores: Tensor) -> tuple[Array, Array]:
    """RINCE of one positive and one negative, and its pull |dL/ds+| on the positive.

    Both [s-, s+], on a grid of `scores` x `scores`.
    """
    neg, pos = torch.meshgrid(scores, scores, indexing="ij")
    pos = pos.flatten().requires_grad_()
    each = [
        rince(p[None], n[None, None], q=q, lam=lam) for p, n in zip(pos, neg.flatten(), strict=True)
    ]
    loss = torch.stack(each)
    (pull,) = torch.autograd.grad(loss.sum(), pos)
    size = (len(scores), len(scores))
    return loss.detach().reshape(size).numpy(), pull.abs().reshape(size).numpy()


def landscapes(qs: Sequence[float], lam: float, reach: float = 2.0, points: int = 33) -> Figure:
    """Loss and pull on the positive for several q, after thesis Figure 3.2."""
    scores = torch.linspace(-reach, reach, points, dtype=torch.double)
    fig, axes = plt.subplots(2, len(qs), figsize=(9, 5.4), sharex=True, sharey=True)
    for column, q in enumerate(qs):
        both = landscape(q, lam, scores)
        for ax, values, cmap in zip(axes[:, column], both, ("viridis", "magma"), strict=True):
            lines = ax.contourf(scores, scores, values, levels=14, cmap=cmap)
            fig.colorbar(lines, ax=ax, shrink=0.9)
        axes[0, column].set_title(f"$q = {q:g}$")
        axes[1, column].set_xlabel("positive score $s^+$")
    axes[0, 0].set_ylabel("loss\nnegative score $s^-$")
    axes[1, 0].set_ylabel("pull $|\\partial L/\\partial s^+|$\nnegative score $s^-$")
    return fig


def pulls(
    cosines: Tensor, qs: Sequence[float], *, temperature: float, lam: float, negatives: int
) -> Array:
    """How hard each q pulls a pair of each cosine together, [len(qs), len(cosines)].

    The pull is |dL/ds+| with `negatives` negatives at cosine 0.
    """
    rows = []
    for q in qs:
        pos = (cosines.double() / temperature).requires_grad_()
        neg = torch.zeros(len(pos), negatives, dtype=torch.double)
        (grad,) = torch.autograd.grad(rince(pos, neg, q=q, lam=lam) * len(pos), pos)
        rows.append(grad.abs().numpy())
    return np.stack(rows)


def terms_of(log: pd.DataFrame) -> dict[str, list[str]]:
    """The columns of a pre-training log that belong into one panel, by title."""
    panels = {
        "loss": ["loss", "validation_loss", "video_to_audio", "audio_to_video"],
        "cosine with bank rows": ["cosine_own", "cosine_other"],
        "terms of VICReg": ["invariance", "variance", "covariance"],
        "accuracy": ["accuracy", "validation_accuracy"],
        "spread of embeddings": [
            name for name in map(str, log.columns) if name.endswith("_spread")
        ],
        "effective rank": [name for name in map(str, log.columns) if name.endswith("_rank")],
    }
    there = {title: [n for n in names if n in log] for title, names in panels.items()}
    return {title: names for title, names in there.items() if names}


def curves(log: pd.DataFrame, panels: dict[str, list[str]]) -> Figure:
    """Means of an epoch against epochs, one panel a group of terms."""
    fig, axes = plt.subplots(1, max(1, len(panels)), figsize=(9, 3), squeeze=False)
    if log.empty:
        axes[0, 0].set_title("not trained: no curves")
        return fig
    for ax, (title, names) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            ax.plot(log["epoch"] + 1, log[name], marker="o", ms=3, label=name.replace("_", " "))
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(fontsize=9)
        if title in ("spread of embeddings", "effective rank"):
            ax.set_ylim(bottom=0)  # what matters is how far from collapse
    return fig


LINES = ("#0b6e99", "#d55e00", "#009e73", "#cc79a7", "#8a8f98")


def side_by_side(logs: Mapping[str, pd.DataFrame], panels: Mapping[str, str]) -> Figure:
    """A panel a column of the logs against steps, a line a log; `panels` gives titles."""
    fig, axes = plt.subplots(1, len(panels), figsize=(9, 3), squeeze=False)
    for ax, (column, title) in zip(axes[0], panels.items(), strict=True):
        for (name, log), colour in zip(logs.items(), LINES, strict=False):
            ax.plot(log["step"], log[column], color=colour, lw=1.6, label=name)
        ax.set_ylim(bottom=0)
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("step")
    axes[0, 0].legend(fontsize=8)
    return fig


def correlations(embedded: Mapping[str, Tensor]) -> Figure:
    """Correlation of each two dimensions of each embedding [B, D]."""
    fig, axes = plt.subplots(1, len(embedded), figsize=(3.4 * len(embedded), 3), squeeze=False)
    for ax, (name, z) in zip(axes[0], embedded.items(), strict=True):
        drawn = ax.imshow(torch.corrcoef(z.T).numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("dimension")
    axes[0, 0].set_ylabel("dimension")
    fig.colorbar(drawn, ax=axes[0, -1], label="correlation")
    return fig


def under_noise(rows: pd.DataFrame, panels: Mapping[str, str]) -> Figure:
    """A panel a column against the share of wrong pairs: mean over seeds, from least to most."""
    fig, axes = plt.subplots(1, len(panels), figsize=(9, 3.4), squeeze=False)
    for ax, (column, title) in zip(axes[0], panels.items(), strict=True):
        for (name, some), colour in zip(rows.groupby("loss", sort=False), LINES, strict=False):
            table = some.groupby("share")[column].agg(["mean", "min", "max"]).dropna()
            at = 100 * table.index.to_numpy()
            ax.plot(at, table["mean"], marker="o", ms=4, color=colour, label=str(name))
            ax.fill_between(at, table["min"], table["max"], color=colour, alpha=0.15, lw=0)
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("wrong pairs, %")
    axes[0, 0].legend(fontsize=9)
    return fig


def tuning(logs: Mapping[str, Sequence[Mapping[str, float]]], warmup_epochs: int) -> Figure:
    """Loss and accuracy on training clips against epochs, a line a method; the warm-up shaded."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3))
    for ax, term, unit in zip(axes, ("loss", "accuracy"), ("cross-entropy", "%"), strict=True):
        for method in (name for name in METHOD_NAMES if name in logs):
            log = logs[method]
            values = [row[term] * (100 if unit == "%" else 1) for row in log]
            ax.plot(
                range(1, len(log) + 1), values, marker="o", ms=3, color=COLOURS[method],
                label=METHOD_NAMES[method],
            )  # fmt: skip
        if warmup_epochs:
            ax.axvspan(0.5, warmup_epochs + 0.5, color="#e9ebee", zorder=0)
        ax.set(title=f"{term}, {unit}", xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend(fontsize=8)
    return fig


def bars(rows: pd.DataFrame, panels: Sequence[tuple[str, str]], unit: str = "%") -> Figure:
    """A bar a method with its 95 % interval and a line at chance; one panel a (level, metric)."""
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    fig, axes = plt.subplots(lines, columns, figsize=(9, 3.1 * lines), squeeze=False, sharey=True)
    for ax, (level, metric) in zip(axes.flat, panels, strict=True):
        some = rows[(rows["level"] == level) & (rows["metric"] == metric)]
        bar_panel(ax, some)
        ax.set_title(f"{level}, {metric}", fontsize=11)
    for ax in axes[:, 0]:
        ax.set_ylabel(unit)
    axes[0, -1].legend(fontsize=8, loc="upper left")
    return fig


def bar_panel(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw one panel of `bars`."""
    rows = rows.sort_values("method", key=lambda m: m.map(list(METHOD_NAMES).index))
    names = [METHOD_NAMES[m] for m in rows["method"]]
    spread = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
    ax.bar(names, rows["value"], color=[COLOURS[m] for m in rows["method"]], width=0.6)
    ax.errorbar(names, rows["value"], yerr=spread, fmt="none", color="black", capsize=3, lw=1.2)
    size = 9 if len(names) < 4 else 7
    for x, (value, high) in enumerate(zip(rows["value"], rows["high"], strict=True)):
        ax.text(x, high + 1, f"{value:.1f}", ha="center", va="bottom", fontsize=size)
    ax.axhline(rows["chance"].iloc[0], color="#b3261e", lw=1, ls="--", label="chance")
    if len(names) > 2:
        ax.tick_params(axis="x", labelrotation=55, labelsize=9)
    ax.set_ylim(0, 112)


def protocols(rows: pd.DataFrame) -> Figure:
    """Accuracies of both protocols with their intervals, and the seconds that each took."""
    shades = {"cached": "#0b6e99", "released": "#d98324"}
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), width_ratios=(3, 1))
    timed = rows["metric"] == "seconds"
    for shift, (protocol, colour) in zip((-0.19, 0.19), shades.items(), strict=True):
        some = rows[~timed & (rows["protocol"] == protocol)]
        at = np.arange(len(some)) + shift
        spread = [some["value"] - some["low"], some["high"] - some["value"]]
        left.bar(at, some["value"], 0.36, color=colour, label=protocol)
        left.errorbar(at, some["value"], yerr=spread, fmt="none", color="black", capsize=3, lw=1.2)
    names = some["level"] + ", " + some["metric"]
    left.set_xticks(np.arange(len(some)), names.tolist())
    left.set(ylabel="accuracy, %", ylim=(0, 112))
    left.legend(fontsize=9, ncols=2, loc="upper left")
    seconds = rows[timed].set_index("protocol")["value"].reindex(list(shades))
    drawn = right.bar(list(shades), seconds, 0.6, color=list(shades.values()))
    right.bar_label(drawn, fmt="%.1f", fontsize=9, padding=2)
    right.set_ylabel("seconds of training")
    right.margins(y=0.15)
    return fig


def losses(curves: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Training loss of each method's probes, epoch by epoch, a line a seed."""
    fig, ax = plt.subplots(figsize=(7, 2.8))
    for method, seeds in curves.items():
        for i, curve in enumerate(seeds):
            ax.plot(
                range(1, len(curve) + 1), curve, color=COLOURS[method],
                label=None if i else METHOD_NAMES[method],
            )  # fmt: skip
    ax.set(xlabel="epoch of the linear layer", ylabel="cross-entropy")
    ax.legend(fontsize=9)
    return fig


def confusion(counts: Tensor, classes: Sequence[str]) -> Figure:
    """Share of each class's videos (row) that are taken for each class (column), in percent."""
    share = 100 * counts / counts.sum(dim=1, keepdim=True).clamp_min(1)
    fig, ax = plt.subplots(figsize=(6.4, 5.6))
    picture = ax.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=100)
    if len(classes) <= 30:
        ax.set_xticks(range(len(classes)), classes, rotation=60, ha="right", fontsize=8)
        ax.set_yticks(range(len(classes)), classes, fontsize=8)
    ax.set(xlabel="taken for", ylabel="class")
    fig.colorbar(picture, ax=ax, label="% of the class's videos", shrink=0.8)
    return fig


def gains(table: pd.DataFrame, title: str, most: int = 8) -> Figure:
    """The classes at both ends of `tables.gains`, the largest gain on top."""
    some = table if len(table) <= 2 * most else pd.concat([table.head(most), table.tail(most)])
    fig, ax = plt.subplots(figsize=(7, 0.26 * len(some) + 1.1))
    colours = ["#009e73" if gain >= 0 else "#b3261e" for gain in some["gain"]]
    ax.barh([str(name) for name in some.index], some["gain"], color=colours)
    ax.axvline(0, color="black", lw=0.8)
    ax.invert_yaxis()
    ax.set(xlabel="points against Random", title=title)
    return fig


def gallery(frames: dict[int, Array], ranks: Array, names: Sequence[str], right: Array) -> Figure:
    """Queries and their nearest videos, after thesis Figures A.1 to A.4.

    Args:
        frames: middle frame [H, W, 3] of each video by its row; queries have negative keys -1 - i.
        ranks: [Q, k] gallery rows, nearest first.
        names: class of each picture, row by row: the query's, then its answers'.
        right: [Q, k] whether the answer has the query's class.
    """
    count, k = ranks.shape
    fig, axes = plt.subplots(count, k + 1, figsize=(9, 1.45 * count), squeeze=False)
    texts = iter(names)
    for row in range(count):
        keys = [-1 - row, *map(int, ranks[row])]
        for column, (ax, key) in enumerate(zip(axes[row], keys, strict=True)):
            ax.imshow(frames[key])
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_title(next(texts), fontsize=7.5, pad=3)
            colour = (
                "black" if column == 0 else ("#2e7d32" if right[row, column - 1] else "#b3261e")
            )
            for side in ax.spines.values():
                side.set(visible=True, color=colour, linewidth=2.2)
    return fig


def by_stage(layers: Sequence[Layer]) -> pd.DataFrame:
    """Parameters and MACs of conv1 and of each block; pools have neither."""
    table = pd.DataFrame({
        "stage": [layer.name.partition(".")[0] for layer in layers],
        "parameters": [layer.parameters for layer in layers],
        "MACs": [layer.macs for layer in layers],
    })  # fmt: skip
    return table[table["stage"] != "max-pool"].groupby("stage", sort=False).sum()


def costs(encoders: Mapping[str, Sequence[Layer]]) -> Figure:
    """Share of each stage in an encoder's parameters and in its MACs, one panel an encoder."""
    fig, axes = plt.subplots(1, len(encoders), figsize=(9, 3.2), squeeze=False, sharex=True)
    for ax, (title, layers) in zip(axes[0], encoders.items(), strict=True):
        table = by_stage(layers)
        share = 100 * table / table.sum()
        at = np.arange(len(share))
        for name, shift, colour in (("parameters", -0.2, "#0b6e99"), ("MACs", 0.2, "#d98324")):
            drawn = ax.barh(at + shift, share[name], 0.38, color=colour, label=name)
            ax.bar_label(drawn, fmt="%.1f", fontsize=8, padding=2)
        ax.set_yticks(at, share.index)
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("share of the encoder, %")
    axes[0, -1].legend(fontsize=9, loc="center right")
    return fig


def grouped_bars(table: pd.DataFrame, unit: str) -> Figure:
    """A group of bars a row, a colour a column, each bar with its value."""
    fig, ax = plt.subplots(figsize=(7, 3.2))
    table.plot.bar(ax=ax, rot=0, width=0.75, color=["#0b6e99", "#d98324", "#8a8f98"])
    for drawn in ax.containers:
        ax.bar_label(drawn, fmt="%.2f", fontsize=8, padding=2)  # type: ignore[arg-type]
    ax.set_xlabel("")
    ax.set_ylabel(unit)
    ax.legend(fontsize=9, loc="upper left")
    return fig


def growth(table: pd.DataFrame, marked: Mapping[str, int]) -> Figure:
    """Columns of `table` against its index on logarithmic axes; `marked` names some places."""
    fig, axes = plt.subplots(1, table.shape[1], figsize=(9, 3.2), squeeze=False)
    for ax, (name, column) in zip(axes[0], table.items(), strict=True):
        ax.loglog(column.index, column, marker="o", ms=4, color="#0b6e99", base=2)
        for word, at in marked.items():
            ax.annotate(
                word, (at, column[at]), xytext=(6, -10), textcoords="offset points", fontsize=9
            )  # fmt: skip
        ax.set_xticks(column.index, [str(i) for i in column.index])
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.margins(x=0.15, y=0.15)
        ax.set_xlabel(str(table.index.name))
        ax.set_title(str(name), fontsize=11)
    return fig


# ---- seen concepts ----------------------------------------------------------------------------


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


def cosines(matched: Sequence[Matched]) -> Figure:
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
            best, bins, density=True, histtype="step", color="#0b6e99", lw=1.6,
            label="best of each class",
        )  # fmt: skip
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


def sensitivity(rows: pd.DataFrame, published: pd.DataFrame, own_top: int) -> Figure:
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


def two_models(matched: Matched, rows: pd.DataFrame) -> Figure:
    """Cosines of one pair of data sets under both models, and how many top targets they share.

    Args:
        matched: the pair of the left panel.
        rows: result rows `shared 0`, `shared 1`, ... of all pairs.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7), width_ratios=(1, 1.25))
    left.hexbin(
        matched.primary.ravel(), matched.secondary.ravel(), gridsize=45, bins="log",
        cmap="crest", mincnt=1, linewidths=0.1,
    )  # fmt: skip
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
        labels=[name.removeprefix("shared ") for name in wide.columns], title="targets shared",
        ncols=len(wide.columns), fontsize=8, title_fontsize=8, loc="lower center",
        bbox_to_anchor=(0.5, 1),
    )  # fmt: skip
    return fig


def coverage(ours: pd.DataFrame, published: pd.DataFrame) -> Figure:
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


# ---- few-shot probes --------------------------------------------------------------------------

LEVELS = tuple((level, metric) for level in ("clip", "video") for metric in ("top1", "top5"))


def few_shot_panels(percents: Sequence[float]) -> tuple[Figure, dict[tuple[str, str, str], Axes]]:
    """A line of panels a level and metric, a column a part: by (level, metric, part)."""
    fig, axes = plt.subplots(len(LEVELS), len(PARTS), figsize=(9, 9.6), sharex=True, sharey="row")
    panels = {}
    for line, (level, metric) in zip(axes, LEVELS, strict=True):
        for ax, part in zip(line, PARTS, strict=True):
            panels[level, metric, part] = ax
            ax.set_title(f"{part} classes, {level} level, top-{metric[3:]}", fontsize=10)
            ax.set_xscale("log")
            ax.set_xticks(percents, [f"{percent:g}" for percent in percents], minor=False)
            ax.minorticks_off()
            ax.set_xlim(percents[0] * 0.75, percents[-1] / 0.75)
    for ax in axes[-1]:
        ax.set_xlabel("training videos of each class, %")
    return fig, panels


def rows_where(rows: pd.DataFrame, **values: str) -> pd.DataFrame:
    """The rows whose columns have these values; there may be none."""
    for name, value in values.items():
        rows = rows[rows[name] == value]
    return rows


def method_lines(ax: Axes, rows: pd.DataFrame) -> None:
    """A line a method with its intervals, set apart a little so that these can be told apart."""
    for i, (method, name) in enumerate(METHOD_NAMES.items()):
        some = rows[rows["method"] == method].sort_values("percent")
        if len(some):
            spread = [some["value"] - some["low"], some["high"] - some["value"]]
            ax.errorbar(
                some["percent"] * 1.03 ** (i - 2), some["value"], yerr=spread, label=name,
                color=COLOURS[method], marker="o", ms=4, lw=1.6, elinewidth=0.9, capsize=2,
            )  # fmt: skip


def few_shot(rows: pd.DataFrame) -> Figure:
    """Accuracy on a logarithmic axis against the share of training videos (Figures 4.1, 4.3).

    Args:
        rows: of one data set, as `fewshot.over_seeds` gives them.
    """
    fig, panels = few_shot_panels(sorted(set(rows["percent"])))
    for (level, metric, part), ax in panels.items():
        some = rows_where(rows, level=level, metric=metric, part=part)
        ax.set_yscale("log")
        # Zero has no place on such an axis: what reaches it ends at half of what else is least.
        lowest = min(some["chance"].min(), some["value"].replace(0, np.nan).min()) / 2
        shown = some[["value", "low", "high"]].clip(lower=lowest)
        method_lines(ax, some.assign(**{str(name): shown[name] for name in shown}))
        ax.axhline(some["chance"].iloc[0], color="#b3261e", lw=1, ls="--", label="chance")
        if ax.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            ax.set_ylabel("accuracy, %")
    for line in LEVELS:
        logarithmic_ticks([panels[*line, part] for part in PARTS])
    handles, labels = panels[*LEVELS[0], PARTS[0]].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    return fig


def logarithmic_ticks(axes: Sequence[Axes]) -> None:
    """Round numbers in percent on axes that share their range; at most the range up to 100."""
    low, high = axes[0].get_ylim()
    ticks = [t for t in (0.5, 1, 2, 5, 10, 20, 30, 50, 70, 100) if low <= t <= max(high, 100)]
    for ax in axes:
        ax.set_yticks(ticks, [f"{t:g}" for t in ticks], minor=False)
        ax.minorticks_off()
        ax.set_ylim(low, min(high, 110))


BASE_SHADES = {"here": ("#fde3cf", "#d55e00"), "thesis": ("#fff6d6", "#b58900")}


def few_shot_gaps(differences: pd.DataFrame, ours: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Difference to `supervised`, whose accuracy stands in boxes (Figures 4.2, 4.4).

    Args:
        differences: of one data set, as `fewshot.gaps` gives them.
        ours: accuracies, as `fewshot.over_seeds` gives them.
        published: the thesis's, the same.
    """
    fig, panels = few_shot_panels(sorted(set(differences["percent"])))
    for (level, metric, part), ax in panels.items():
        ax.axhline(0, color=COLOURS["supervised"], lw=1.6)
        method_lines(ax, rows_where(differences, level=level, metric=metric, part=part))
        line = rows_where(differences, level=level, metric=metric)
        low, high = min(line["low"].min(), 0), max(line["high"].max(), 0)
        ax.set_ylim(low - 0.05 * (high - low), high + 0.5 * (high - low))  # the boxes stand above
        for rows, name, height in ((ours, "here", 0.94), (published, "thesis", 0.79)):
            base = rows_where(
                rows, level=level, metric=metric, part=part, method="supervised"
            )  # fmt: skip
            boxes(ax, base, name, height)
        if ax.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            ax.set_ylabel("difference, points")
    handles, labels = panels[*LEVELS[0], PARTS[0]].get_legend_handles_labels()
    for name, (face, edge) in BASE_SHADES.items():
        handles.append(Patch(facecolor=face, edgecolor=edge))
        labels.append(f"Supervised, {name}, %")
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    return fig


def boxes(ax: Axes, rows: pd.DataFrame, name: str, height: float) -> None:
    """Accuracies in boxes at their percentage, at a height in [0, 1] of the panel."""
    low, high = ax.get_xlim()
    face, edge = BASE_SHADES[name]
    for row in rows.to_dict("records"):
        if low <= row["percent"] <= high:
            ax.text(
                row["percent"], height, f"{row['value']:.1f}", transform=ax.get_xaxis_transform(),
                ha="center", va="center", fontsize=8,
                bbox={"boxstyle": "round,pad=0.22", "facecolor": face, "edgecolor": edge},
            )  # fmt: skip

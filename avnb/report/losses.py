"""Figures and readings on the losses."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from avnb.models.losses import rince
from avnb.report.style import LINES


def landscape(q: float, lam: float, scores: Tensor) -> tuple[np.ndarray, np.ndarray]:
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


def plot_landscapes(
    qs: Sequence[float], lam: float, reach: float = 2.0, points: int = 33
) -> Figure:
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
) -> np.ndarray:
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


def plot_side_by_side(logs: Mapping[str, pd.DataFrame], panels: Mapping[str, str]) -> Figure:
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


def plot_correlations(embedded: Mapping[str, Tensor]) -> Figure:
    """Correlation of each two dimensions of each embedding [B, D]."""
    fig, axes = plt.subplots(1, len(embedded), figsize=(3.4 * len(embedded), 3), squeeze=False)
    for ax, (name, z) in zip(axes[0], embedded.items(), strict=True):
        drawn = ax.imshow(torch.corrcoef(z.T).numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("dimension")
    axes[0, 0].set_ylabel("dimension")
    fig.colorbar(drawn, ax=axes[0, -1], label="correlation")
    return fig


def plot_under_noise(rows: pd.DataFrame, panels: Mapping[str, str]) -> Figure:
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


SHRUNK = 0.3  # of a standard deviation at the start: less is said to be a collapse


def describe_toys(logs: Mapping[str, pd.DataFrame], dims: int) -> str:
    """What became of size, rank and agreement of the first view under each set of terms."""
    lines = []
    for name, log in logs.items():
        first, last = log.iloc[0], log.iloc[-1]
        line = (
            f"- **{name}**: standard deviation {first['first_std']:.2f} to "
            f"{last['first_std']:.2f}, effective rank {first['first_rank']:.1f} to "
            f"{last['first_rank']:.1f} of {dims}, invariance {first['invariance']:.2f} to "
            f"{last['invariance']:.3f}."
        )
        if last["first_std"] < SHRUNK * first["first_std"]:
            line += " The views agree because nothing varies any more: *collapse*."
        lines.append(line)
    return "\n".join(lines)


def describe_noise(rows: pd.DataFrame, base: str) -> str:
    """How each loss fares against `base` at each share; a lead is one in every seed."""
    table = rows.pivot_table(index="share", columns=["loss", "seed"], values="retrieved")
    others = [name for name in rows["loss"].unique() if name != base]
    lines, seeds = [], rows["seed"].nunique()
    ahead: dict[str, list[str]] = {"leads": [], "trails": [], "cannot be told apart": []}
    for share in table.index:
        parts = [f"{base} {table.loc[share, base].mean():.1f} %"]
        for name in others:
            better = int((table.loc[share, name] > table.loc[share, base]).sum())
            worse = int((table.loc[share, name] < table.loc[share, base]).sum())
            parts.append(f"{name} {table.loc[share, name].mean():.1f} % ({better} of {seeds})")
            said = "leads" if better == seeds else "trails" if worse == seeds else ""
            ahead[said or "cannot be told apart"].append(f"{name} at {100 * share:.0f} %")
        lines.append(f"- **{100 * share:.0f} % wrong**: {', '.join(parts)}.")
    lines += [
        "",
        f"In brackets: in how many seeds a loss finds more than {base}. Against {base}:",
        "",
    ]
    lines += [f"- {said}: {'; '.join(where) or 'nowhere'}." for said, where in ahead.items()]
    return "\n".join(lines)

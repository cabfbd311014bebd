"""Figures, table and readings on the losses."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from avnb.book.style import BLUE, line_panels
from avnb.book.wording import listed, percent, rounded, sentence
from avnb.models.losses import rince

COLLAPSED = 0.3  # of the initial standard deviation: anything below is called a collapse
LOST_RANK = 1.0  # dimensions fewer than with all terms: a loss that is worth a sentence


def landscape(q: float, lam: float, scores: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """RINCE of one positive and one negative, and its pull |dL/ds+| on the positive.

    Both [s-, s+], on a grid of `scores` x `scores`.
    """
    neg, pos = torch.meshgrid(scores, scores, indexing="ij")
    pos = pos.clone().requires_grad_()
    pairs = zip(pos.reshape(-1, 1), neg.reshape(-1, 1, 1), strict=True)
    value = torch.stack([rince(*pair, q=q, lam=lam) for pair in pairs]).reshape(neg.shape)
    (pull,) = torch.autograd.grad(value.sum(), pos)
    return value.detach().numpy(), pull.abs().numpy()


def plot_landscapes(
    qs: Sequence[float], lam: float, reach: float = 2.0, points: int = 33
) -> Figure:
    """Loss and pull on the positive for several q, after thesis Figure 3.2."""
    scores = torch.linspace(-reach, reach, points, dtype=torch.double)
    fig, axes = plt.subplots(2, len(qs), figsize=(9, 5.4), sharex=True, sharey=True)
    for q, column in zip(qs, axes.T, strict=True):
        grids = landscape(q, lam, scores)
        for ax, values, cmap in zip(column, grids, ("viridis", "magma"), strict=True):
            contours = ax.contourf(scores, scores, values, levels=14, cmap=cmap)
            fig.colorbar(contours, ax=ax, shrink=0.9)
        column[0].set_title(f"$q = {q:g}$")
        column[1].set_xlabel("positive score $s^+$")
    axes[0, 0].set_ylabel("loss\nnegative score $s^-$")
    axes[1, 0].set_ylabel("pull $|\\partial L/\\partial s^+|$\nnegative score $s^-$")
    return fig


def pulls(
    cosines: Tensor, qs: Sequence[float], *, temperature: float, lam: float, negatives: int
) -> np.ndarray:
    """Pull |dL/ds+| of each q on a pair of each cosine, [len(qs), len(cosines)].

    The `negatives` negatives of every pair have cosine 0.
    """
    neg = torch.zeros(1, negatives, dtype=torch.double)
    scores = cosines.double() / temperature

    def pull(q: float) -> Tensor:
        return torch.vmap(torch.func.grad(lambda pos: rince(pos[None], neg, q=q, lam=lam)))(scores)

    return torch.stack([pull(q).abs() for q in qs]).numpy()


def plot_pull(*, temperature: float, q: float, lam: float, negatives: int) -> Figure:
    """Loss and pull of one pair against its cosine, all negatives being at cosine 0."""
    cosines = torch.linspace(-1, 1, 81, dtype=torch.double)
    neg = torch.zeros(1, negatives, dtype=torch.double)
    loss = [rince(pos[None], neg, q=q, lam=lam) for pos in cosines / temperature]
    options: dict[str, Any] = {"temperature": temperature, "lam": lam, "negatives": negatives}
    fig, axes = plt.subplots(1, 2, figsize=(9, 2.8))
    axes[0].plot(cosines, torch.stack(loss), color=BLUE)
    axes[1].plot(cosines, pulls(cosines, [q], **options)[0], color=BLUE)
    for ax, name in zip(axes, ("loss", "pull on the pair"), strict=True):
        ax.set(xlabel="cosine of the pair", ylabel=name)
    return fig


def plot_side_by_side(logs: Mapping[str, pd.DataFrame], panels: Mapping[str, str]) -> Figure:
    """One panel per column of the logs (column -> title) against steps, one line per log."""
    table = pd.concat([log.assign(log=name) for name, log in logs.items()], ignore_index=True)
    fig = line_panels(table, "step", "log", panels, 3)
    for ax in fig.axes:
        ax.set_ylim(bottom=0)
    return fig


def plot_correlations(embedded: Mapping[str, Tensor]) -> Figure:
    """Correlations between the dimensions of each embedding [B, D]."""
    import seaborn as sns

    fig, axes = plt.subplots(1, len(embedded), figsize=(3.4 * len(embedded), 3), squeeze=False)
    options: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1, "square": True}
    options |= {"xticklabels": 5, "yticklabels": 5, "cbar_kws": {"label": "correlation"}}
    for ax, (name, z) in zip(axes[0], embedded.items(), strict=True):
        sns.heatmap(torch.corrcoef(z.T).numpy(), ax=ax, cbar=ax is axes[0, -1], **options)
        ax.tick_params(labelrotation=0)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("dimension")
    axes[0, 0].set_ylabel("dimension")
    return fig


def plot_under_noise(rows: pd.DataFrame, panels: Mapping[str, str]) -> Figure:
    """One panel per column against the share of wrong pairs: mean and range over seeds."""
    table = rows.assign(share=100 * rows["share"])
    fig = line_panels(table, "share", "loss", panels, 3.4, marker="o", errorbar=("pi", 100))
    for ax in fig.axes:
        ax.set_xlabel("wrong pairs, %")
    return fig


def terms_table(logs: Mapping[str, pd.DataFrame], dims: int) -> pd.DataFrame:
    """Size, rank and agreement of the first view under each set of terms, first and last step."""
    titles = {"first_std": "standard deviation", "first_rank": f"effective rank, of {dims}"}
    titles["invariance"] = "invariance"
    lines = {
        name: {
            title: f"{log[column].iloc[0]:.2f} → {log[column].iloc[-1]:.2f}"
            for column, title in titles.items()
        }
        for name, log in logs.items()
    }
    return pd.DataFrame.from_dict(lines, orient="index")


def describe_toys(logs: Mapping[str, pd.DataFrame]) -> str:
    """What the embeddings lose under each set of terms, against the first one."""
    (whole, own), *others = ((name, log.iloc[-1]) for name, log in logs.items())
    said = []
    for name, last in others:
        std, rank = last["first_std"], last["first_rank"]
        if std < COLLAPSED * logs[name]["first_std"].iloc[0]:
            agree = rounded(last["invariance"])
            text = f"the views agree (to {agree}) because hardly anything varies any more"
            said.append(f"{name}, {text}: the standard deviation falls to {rounded(std)}")
        elif own["first_rank"] - rank > LOST_RANK:
            was = rounded(own["first_rank"])
            text = f"the embeddings use {rounded(rank)} dimensions, where {whole} give {was}"
            said.append(f"{name}, {text}")
        else:
            said.append(f"{name}, neither size nor rank of the embeddings suffers")
    return " ".join(map(sentence, said))


def describe_noise(rows: pd.DataFrame, base: str) -> str:
    """Where a loss retrieves more, or less, than `base` in every seed."""
    table = rows.pivot_table(index="share", columns=["loss", "seed"], values="retrieved")
    shares = [percent(100 * float(share)) for share in table.index]
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    others = [name for name in rows["loss"].unique() if name != base]
    for name in others:
        gap = table[name] - table[base]
        for word, agreed in ("more", (gap > 0).all(axis=1)), ("fewer", (gap < 0).all(axis=1)):
            if where := tuple(s for s, yes in zip(shares, agreed, strict=True) if yes):
                found.setdefault((word, where), []).append(name.replace(", ", " with "))
    said = []
    for (word, where), names in found.items():
        who = "every other loss" if len(names) == len(others) > 1 else listed(names)
        verb = "finds" if len(names) == 1 or who.startswith("every") else "find"
        wrong = f"where {listed(where, 'or')} of the pairs are wrong"
        said.append(f"{wrong}, {who} {verb} {word} right partners than {base} in every seed")
    rest = "otherwise" if said else "at every share of wrong pairs"
    return " ".join(map(sentence, [*said, f"{rest} the seeds disagree on what beats {base}"]))

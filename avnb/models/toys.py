"""Toy experiments: two noisy views of a few latent causes, and small networks trained on them.

They show within seconds what a loss does. All repetitions of an experiment are trained at once.

Shapes: R repetitions (one per seed), B pairs, V values per view, D embedding dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avnb.config import VICReg
from avnb.distributed import one_thread
from avnb.models import collapse
from avnb.models.losses import off_diagonal, vicreg_terms

CAUSES, VIEW, HIDDEN, DIM = 4, 16, 64, 8
TRAIN, TEST, BATCH, LR, TEMPERATURE = 256, 200, 64, 5e-3, 0.07
Contrast = Callable[[Tensor, Tensor], Tensor]  # loss of pos [B] and neg [B, K], as in `losses`


@dataclass(frozen=True)
class Pairs:
    """Two views [R, B, V]; row b of the second belongs to row b of the first."""

    first: Tensor
    second: Tensor

    def __len__(self) -> int:
        return self.first.shape[1]

    def __getitem__(self, rows: slice | Tensor) -> "Pairs":
        return Pairs(self.first[:, rows], self.second[:, rows])

    def mismatched(self, share: float) -> "Pairs":
        """The same views, with the second views of the first `share` of all pairs rotated by one.

        Raises:
            ValueError: if the share lies outside [0, 1], or amounts to a single pair.
        """
        wrong = round(share * len(self))
        if not 0 <= share <= 1 or wrong == 1:
            raise ValueError(
                f"a share of {share} of {len(self)} pairs cannot be mismatched: it must lie in "
                "[0, 1] and amount to no pair or to at least two"
            )
        rotated = self.second[:, :wrong].roll(1, dims=1)
        return Pairs(self.first, torch.cat([rotated, self.second[:, wrong:]], dim=1))


def draw(count: int, seeds: Sequence[int], noise: float = 0.3) -> Pairs:
    """Draw `count` pairs per seed: view = tanh(causes A) + noise, with one A per view and seed."""
    views = []
    for seed in seeds:
        rng = np.random.default_rng([seed, 0])
        causes = rng.normal(size=(count, CAUSES))
        mixed = np.tanh(causes @ rng.normal(size=(2, CAUSES, VIEW)))
        views.append(mixed + noise * rng.normal(size=mixed.shape))
    return Pairs(*torch.from_numpy(np.stack(views, axis=1)).float())  # [R, B, V] each


class ViewNetworks(nn.Module):
    """A network V -> hidden, ReLU, -> D for each view and each of R seeds."""

    def __init__(self, seeds: Sequence[int]):
        super().__init__()
        rngs = [np.random.default_rng([seed, 1]) for seed in seeds]

        def layer(inputs: int, outputs: int) -> nn.ParameterList:
            scale = (2 / inputs) ** 0.5
            normal = np.stack([scale * rng.normal(size=(2, inputs, outputs)) for rng in rngs])
            weight = torch.from_numpy(normal).float().transpose(0, 1)  # [2, R, inputs, outputs]
            return nn.ParameterList([weight, torch.zeros(2, len(rngs), 1, outputs)])

        self.inner, self.outer = layer(VIEW, HIDDEN), layer(HIDDEN, DIM)

    def forward(self, pairs: Pairs) -> Tensor:
        """Embeddings [2, R, B, D] of both views."""
        (w, b), (u, c) = self.inner, self.outer
        x = torch.stack([pairs.first, pairs.second])
        return (x @ w + b).relu() @ u + c


@one_thread()
def learn_vicreg(
    pairs: Pairs, config: VICReg, *, steps: int, seed: int
) -> tuple[pd.DataFrame, Tensor]:
    """Train VICReg with Adam on all pairs of a single repetition at once.

    Returns:
        A row per step with the three terms and the collapse statistics of both views, and the
        final embeddings [B, D] of the first view.
    """
    networks = ViewNetworks([seed])
    adam = torch.optim.Adam(networks.parameters(), lr=LR)
    log = []
    for step in range(steps):
        x, y = networks(pairs)[:, 0]
        terms = vicreg_terms(x, y, huber_delta=config.huber_delta)
        metrics = terms | collapse.measure({"first": x.detach(), "second": y.detach()})
        log.append({"step": step, **{name: value.item() for name, value in metrics.items()}})
        loss = sum(getattr(config, f"{name}_weight") * term for name, term in terms.items())
        adam.zero_grad()
        loss.backward()
        adam.step()
    return pd.DataFrame(log), networks(pairs)[0, 0].detach()


def invariance_pull(distances: Tensor, huber_delta: float = 0.0) -> Tensor:
    """Gradient magnitude [N] of VICReg's invariance at each distance d [N]; 2 d without Huber."""
    x = distances[:, None].double().requires_grad_()
    term = vicreg_terms(x, torch.zeros_like(x), huber_delta=huber_delta)["invariance"]
    (gradient,) = torch.autograd.grad(term * len(x), x)
    return gradient[:, 0].abs()


# ---- contrastive losses on mismatched pairs ---------------------------------------------------


def similarities(networks: nn.Module, pairs: Pairs) -> Tensor:
    """Cosine of every first view with every second view, [R, B, B]."""
    x, y = F.normalize(networks(pairs), dim=-1)
    return x @ y.transpose(1, 2)


def learn_contrast(
    pairs: Pairs, contrast: Contrast, *, steps: int, seeds: Sequence[int]
) -> ViewNetworks:
    """Train with Adam on random batches; the other pairs of the batch are a pair's negatives."""
    networks, rng = ViewNetworks(seeds), np.random.default_rng([*seeds, 2])
    adam = torch.optim.Adam(networks.parameters(), lr=LR)
    for _ in range(steps):
        rows = torch.from_numpy(rng.choice(len(pairs), BATCH, replace=False))
        scores = similarities(networks, pairs[rows]) / TEMPERATURE
        pos = scores.diagonal(dim1=1, dim2=2).flatten()
        neg = torch.cat([off_diagonal(matrix).view(BATCH, BATCH - 1) for matrix in scores])
        adam.zero_grad()
        contrast(pos, neg).backward()
        adam.step()
    return networks


@torch.no_grad()
def retrieved(networks: nn.Module, pairs: Pairs) -> Tensor:
    """Share of first views whose nearest second view is their own, [R]."""
    nearest = similarities(networks, pairs).argmax(dim=2)
    return (nearest == torch.arange(len(pairs))).float().mean(dim=1)


@torch.no_grad()
def told_apart(networks: nn.Module, right: Pairs, wrong: Pairs) -> Tensor:
    """Area under the ROC curve of the cosine as a classifier of right and wrong pairs, [R].

    1/2 where wrong pairs are fitted as well as right ones; NaN if either kind is absent.
    """
    a, b = (similarities(networks, pairs).diagonal(dim1=1, dim2=2) for pairs in (right, wrong))
    return (a[:, :, None] > b[:, None, :]).float().mean(dim=(1, 2))


@one_thread()
def under_noise(
    contrasts: Mapping[str, Contrast], shares: Sequence[float], *, steps: int, seeds: Sequence[int]
) -> pd.DataFrame:
    """Train on pairs of which a share is mismatched; a row per share, loss and seed.

    In percent: `retrieved` of 200 held-out right pairs (chance: 0.5), and `told_apart` of the 256
    training pairs (chance: 50).
    """
    pairs, rows = draw(TRAIN + TEST, seeds), []
    for share in shares:
        noisy, wrong = pairs[:TRAIN].mismatched(share), round(share * TRAIN)
        for name, contrast in contrasts.items():
            networks = learn_contrast(noisy, contrast, steps=steps, seeds=seeds)
            found = 100 * retrieved(networks, pairs[TRAIN:])
            apart = 100 * told_apart(networks, noisy[wrong:], noisy[:wrong])
            for seed, *values in zip(seeds, found.tolist(), apart.tolist(), strict=True):
                rows.append((name, share, seed, *values))
    return pd.DataFrame(rows, columns=["loss", "share", "seed", "retrieved", "told_apart"])

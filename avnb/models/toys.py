"""Toy pairs: two noisy views of a few hidden causes, and small networks that learn from them.

They show within seconds what a loss does. An experiment is repeated from several seeds at once.

Shapes: R repetitions, B pairs, V numbers in a view, K negatives, D dimensions of an embedding.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avnb.config import VICReg
from avnb.models import collapse
from avnb.models.losses import off_diagonal, vicreg_terms

CAUSES, VIEW, HIDDEN, DIM = 4, 16, 64, 8
Contrast = Callable[[Tensor, Tensor], Tensor]  # of pos [B] and neg [B, K], as in `losses`


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Sums as small as these only wait for each other on several, on a busy machine for minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Pairs:
    """Two views [R, B, V]; pair b of the first belongs to b of the second."""

    first: Tensor
    second: Tensor

    def __len__(self) -> int:
        return self.first.shape[1]

    def __getitem__(self, rows: slice | Tensor) -> "Pairs":
        return Pairs(self.first[:, rows], self.second[:, rows])

    def mismatched(self, share: float) -> "Pairs":
        """The same views, but the first `share` of all pairs have passed on their partners.

        Raises:
            ValueError: when the share lies outside [0, 1], or means one pair only.
        """
        wrong = round(share * len(self))
        if not 0 <= share <= 1 or wrong == 1:
            raise ValueError(
                f"a share of {share} of {len(self)} pairs cannot change partners: it must lie in "
                "[0, 1] and mean none of them or at least two"
            )
        passed = self.second[:, :wrong].roll(1, dims=1)
        return Pairs(self.first, torch.cat([passed, self.second[:, wrong:]], dim=1))


def draw(count: int, seeds: Sequence[int], noise: float = 0.3) -> Pairs:
    """`count` pairs from each seed: each view mixes the causes in a way of its own.

    view = tanh(causes A) + noise, with one A a view and seed
    """
    each = []
    for seed in seeds:
        rng = np.random.default_rng([seed, 0])
        causes = rng.normal(size=(count, CAUSES))
        mixed = np.tanh(causes @ rng.normal(size=(2, CAUSES, VIEW)))
        each.append(mixed + noise * rng.normal(size=mixed.shape))
    first, second = torch.from_numpy(np.stack(each, axis=1)).float()  # [R, B, V] each
    return Pairs(first, second)


class Paths(nn.Module):
    """For each view and each of R seeds a network of its own: V -> hidden, ReLU, -> D."""

    def __init__(self, seeds: Sequence[int]):
        super().__init__()
        rngs = [np.random.default_rng([seed, 1]) for seed in seeds]

        def layer(inputs: int, outputs: int) -> nn.ParameterList:
            scale = (2 / inputs) ** 0.5
            drawn = np.stack([scale * rng.normal(size=(2, inputs, outputs)) for rng in rngs])
            weight = torch.from_numpy(drawn).float().transpose(0, 1)  # [2, R, inputs, outputs]
            return nn.ParameterList([weight, torch.zeros(2, len(rngs), 1, outputs)])

        self.inner, self.outer = layer(VIEW, HIDDEN), layer(HIDDEN, DIM)

    def forward(self, pairs: Pairs) -> Tensor:
        """Embeddings [2, R, B, D] of both views."""
        (w, b), (u, c) = self.inner, self.outer
        x = torch.stack([pairs.first, pairs.second])
        return (x @ w + b).relu() @ u + c


@one_thread()
def learn_vicreg(
    pairs: Pairs, config: VICReg, *, steps: int, seed: int, rate: float = 5e-3
) -> tuple[pd.DataFrame, Tensor]:
    """Train on all pairs of one repetition at once, by Adam.

    Returns:
        A row a step with the three terms and the health of `first` and `second`, and the first
        view's embeddings [B, D] in the end.
    """
    paths = Paths([seed])
    adam = torch.optim.Adam(paths.parameters(), lr=rate)
    log = []
    for step in range(steps):
        x, y = paths(pairs)[:, 0]
        terms = vicreg_terms(x, y, huber_delta=config.huber_delta)
        named = {name: value.item() for name, value in terms.items()}
        well = collapse.measure({"first": x.detach(), "second": y.detach()})
        log.append({"step": step, **named, **{k: v.item() for k, v in well.items()}})
        loss = sum(getattr(config, f"{name}_weight") * term for name, term in terms.items())
        adam.zero_grad()
        loss.backward()
        adam.step()
    return pd.DataFrame(log), paths(pairs)[0, 0].detach()


def invariance_pull(distances: Tensor, huber_delta: float = 0.0) -> Tensor:
    """How hard VICReg's invariance pulls two numbers so far apart together, [N]; 2 d as printed."""
    x = distances[:, None].double().requires_grad_()
    term = vicreg_terms(x, torch.zeros_like(x), huber_delta=huber_delta)["invariance"]
    (pull,) = torch.autograd.grad(term * len(x), x)
    return pull[:, 0].abs()


# ---- contrast, and wrong pairs ----------------------------------------------------------------


def similarities(paths: Paths, pairs: Pairs) -> Tensor:
    """Cosine of each first view with each second, [R, B, B]."""
    x, y = F.normalize(paths(pairs), dim=-1)
    return x @ y.transpose(1, 2)


def learn_contrast(
    pairs: Pairs,
    contrast: Contrast,
    *,
    steps: int,
    seeds: Sequence[int],
    batch: int = 64,
    rate: float = 5e-3,
    temperature: float = 0.07,
) -> Paths:
    """Train on random batches by Adam; the negatives of a pair are the batch's other pairs."""
    paths, rng = Paths(seeds), np.random.default_rng([*seeds, 2])
    adam = torch.optim.Adam(paths.parameters(), lr=rate)
    for _ in range(steps):
        rows = torch.from_numpy(rng.choice(len(pairs), batch, replace=False))
        scores = similarities(paths, pairs[rows]) / temperature
        pos = scores.diagonal(dim1=1, dim2=2).flatten()
        neg = torch.cat([off_diagonal(one).view(batch, batch - 1) for one in scores])
        adam.zero_grad()
        contrast(pos, neg).backward()
        adam.step()
    return paths


@torch.no_grad()
def retrieved(paths: Paths, pairs: Pairs) -> Tensor:
    """Share of first views whose nearest second view is their own, in each repetition, [R]."""
    nearest = similarities(paths, pairs).argmax(dim=2)
    return (nearest == torch.arange(len(pairs))).float().mean(dim=1)


@torch.no_grad()
def told_apart(paths: Paths, right: Pairs, wrong: Pairs) -> Tensor:
    """Share of comparisons in which a right pair's cosine is above a wrong one's, [R].

    The area under the ROC curve: 1/2 where wrong pairs are fitted as well as right ones; NaN
    without pairs of either kind.
    """
    a, b = (similarities(paths, some).diagonal(dim1=1, dim2=2) for some in (right, wrong))
    return (a[:, :, None] > b[:, None, :]).float().mean(dim=(1, 2))


@one_thread()
def under_noise(
    contrasts: Mapping[str, Contrast],
    shares: Sequence[float],
    *,
    steps: int,
    seeds: Sequence[int],
    train: int = 256,
    test: int = 200,
) -> pd.DataFrame:
    """Learn from pairs of which a share is wrong; a row a loss, share and seed.

    In percent: `retrieved` (of `test` new and right pairs, by chance 100 / test) and `told_apart`
    (the training pairs, by chance 50).
    """
    drawn, rows = draw(train + test, seeds), []
    for share in shares:
        pairs, wrong = drawn[:train].mismatched(share), round(share * train)
        for name, contrast in contrasts.items():
            paths = learn_contrast(pairs, contrast, steps=steps, seeds=seeds)
            found = {
                "retrieved": 100 * retrieved(paths, drawn[train:]),
                "told_apart": 100 * told_apart(paths, pairs[wrong:], pairs[:wrong]),
            }
            for i, seed in enumerate(seeds):
                values = {column: value[i].item() for column, value in found.items()}
                rows.append({"loss": name, "share": share, "seed": seed, **values})
    return pd.DataFrame(rows)

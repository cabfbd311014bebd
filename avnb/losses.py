"""Losses: pure functions of similarities or embeddings; no state, no process groups."""

import math

import torch
from torch import Tensor


def at_least_float(*tensors: Tensor) -> list[Tensor]:
    """Half precision made float32; float64 stays."""
    return [t if t.dtype == torch.double else t.float() for t in tensors]


def log_total(pos: Tensor, neg: Tensor) -> Tensor:
    """log( e^{s+} + sum_k e^{s-_k} ), [B]."""
    if pos.ndim != 1 or neg.ndim != 2 or len(pos) != len(neg):
        shapes = f"{tuple(pos.shape)} and {tuple(neg.shape)}"
        raise ValueError(f"pos must be [B] and neg [B, K], got {shapes}")
    return torch.logsumexp(torch.cat([pos[:, None], neg], dim=1), dim=1)


def info_nce(pos: Tensor, neg: Tensor) -> Tensor:
    r"""InfoNCE (thesis eq. 3.1), averaged over clips; a scalar of at least 0.

        L = -log( e^{s+} / ( e^{s+} + sum_k e^{s-_k} ) )

    Args:
        pos: [B] similarity to the true partner, cosine / temperature.
        neg: [B, K] similarity to the negatives, same scale.

    Raises:
        ValueError: when the shapes do not fit.
    """
    pos, neg = at_least_float(pos, neg)
    return (log_total(pos, neg) - pos).mean()


def rince(pos: Tensor, neg: Tensor, *, q: float, lam: float) -> Tensor:
    r"""Robust InfoNCE (thesis eq. 3.2), averaged over clips; a scalar that may be negative.

        L = -e^{q s+} / q  +  ( lam (e^{s+} + sum_k e^{s-_k}) )^q / q

    Chuang et al. 2022, arXiv:2201.04309. As q -> 0 it tends to InfoNCE + log(lam); as q grows, a
    pair that scores low (perhaps a wrong pair) pulls less; at q = 1 it is linear in e^{s}.

    Args:
        pos: [B] similarity to the true partner, cosine / temperature.
        neg: [B, K] similarity to the negatives, same scale.
        q: robustness to wrong pairs, in (0, 1].
        lam: weight of the density term, in (0, 1].

    Raises:
        ValueError: when q or lam leave their range, or the shapes do not fit.
    """
    if not (0 < q <= 1 and 0 < lam <= 1):
        raise ValueError(f"rince needs q and lam in (0, 1], got {q = }, {lam = }")
    # e^{1/0.07} is 1.6e6, past float16; and two numbers near 1/q would cancel. So: in float32,
    # in log space, and as a product that stays exact when q is small.
    pos, neg = at_least_float(pos, neg)
    excess = log_total(pos, neg) + math.log(lam) - pos  # [B]
    return ((q * pos).exp() * torch.expm1(q * excess)).mean() / q

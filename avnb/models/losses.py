"""Losses and collapse statistics, pure functions of similarities or embeddings.

Shapes: B clips, K negatives, D dimensions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_float(*tensors: Tensor) -> list[Tensor]:
    """The tensors with half precision raised to float32; float64 is kept."""
    return [t if t.dtype == torch.double else t.float() for t in tensors]


def log_total(pos: Tensor, neg: Tensor) -> Tensor:
    """log( e^{s+} + sum_k e^{s-_k} ) of each clip, [B]."""
    if pos.ndim != 1 or neg.ndim != 2 or len(pos) != len(neg):
        shapes = f"{tuple(pos.shape)} and {tuple(neg.shape)}"
        raise ValueError(f"pos must be [B] and neg [B, K], got {shapes}")
    return torch.logsumexp(torch.cat([pos[:, None], neg], dim=1), dim=1)


def info_nce(pos: Tensor, neg: Tensor) -> Tensor:
    r"""InfoNCE (thesis eq. 3.1) averaged over clips, a scalar of at least 0.

        L = -log( e^{s+} / ( e^{s+} + sum_k e^{s-_k} ) )

    Args:
        pos: [B] similarity to the positive, cosine / temperature.
        neg: [B, K] similarity to the negatives, on the same scale.

    Raises:
        ValueError: if the shapes do not match.
    """
    pos, neg = at_least_float(pos, neg)
    return (log_total(pos, neg) - pos).mean()


def rince(pos: Tensor, neg: Tensor, *, q: float, lam: float) -> Tensor:
    r"""Robust InfoNCE (thesis eq. 3.2) averaged over clips, a scalar that may be negative.

        L = -e^{q s+} / q  +  ( lam (e^{s+} + sum_k e^{s-_k}) )^q / q

    Chuang et al. 2022, arXiv:2201.04309. As q -> 0 it tends to InfoNCE + log(lam); as q grows, a
    low-scoring positive (perhaps a false one) has a smaller gradient; q = 1 is linear in e^{s}.

    Args:
        pos: [B] similarity to the positive, cosine / temperature.
        neg: [B, K] similarity to the negatives, on the same scale.
        q: robustness to false positives, in (0, 1].
        lam: weight of the density term, in (0, 1].

    Raises:
        ValueError: if q or lam is out of range, or the shapes do not match.
    """
    if not (0 < q <= 1 and 0 < lam <= 1):
        raise ValueError(f"rince needs q and lam in (0, 1], got {q = }, {lam = }")
    # e^{1/0.07} is 1.6e6, beyond float16, and the difference of two numbers near 1/q cancels.
    # Hence float32, log space, and a product that stays exact for small q.
    pos, neg = at_least_float(pos, neg)
    excess = log_total(pos, neg) + math.log(lam) - pos  # [B]
    return ((q * pos).exp() * torch.expm1(q * excess)).mean() / q


def vicreg_terms(
    x: Tensor, y: Tensor, *, eps: float = 1e-4, huber_delta: float = 0.0
) -> dict[str, Tensor]:
    r"""The three unweighted terms of VICReg (thesis eqs. 3.4-3.6), each a scalar of at least 0.

        invariance = mean over clips and dimensions of (x - y)^2
        variance   = mean over both views and all dimensions of max(0, 1 - sqrt(Var + eps))
        covariance = sum over both views of sum_{i != j} C_ij^2 / D

    Bardes et al. 2022, arXiv:2105.04906, normalised for the published weights 25, 25 and 1.
    Variances and covariances are sample estimates (divided by B - 1).

    Args:
        x: [B, D] embeddings of one view, B at least 2, not normalised.
        y: [B, D] embeddings of the other view of the same clips.
        eps: keeps the gradient of the square root finite where a dimension is constant.
        huber_delta: difference above which the invariance grows linearly (Huber), so that the
            gradient of a mismatched pair is bounded; 0 squares all differences.

    Raises:
        ValueError: if the shapes differ, or there are fewer than two clips.
    """
    if x.shape != y.shape or x.ndim != 2 or len(x) < 2:
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"x and y must both be [B, D] with B at least 2, got {shapes}")
    x, y = at_least_float(x, y)
    invariance = F.mse_loss(x, y)
    if huber_delta > 0:
        invariance = 2 * F.huber_loss(x, y, delta=huber_delta)
    hinges, covariances = [], []
    for z in (x, y):
        z = z - z.mean(dim=0)
        std = (z.square().sum(dim=0) / (len(z) - 1) + eps).sqrt()
        hinges.append(F.relu(1 - std).mean())
        covariance = z.T @ z / (len(z) - 1)  # [D, D]
        others = covariance - covariance.diagonal().diag()
        covariances.append(others.square().sum() / z.shape[1])
    return {
        "invariance": invariance,
        "variance": (hinges[0] + hinges[1]) / 2,
        "covariance": (covariances[0] + covariances[1]).to(x.dtype),
    }


MIN_SPREAD, MIN_RANK = 0.05, 1.5  # below either, all embeddings practically coincide
MAX_HINGE = 0.95  # variance term above which embeddings have shrunk towards a point


def spread(z: Tensor) -> Tensor:
    """Mean standard deviation over dimensions of z [B, D] on the unit sphere, times sqrt(D).

    1 for evenly spread directions, 0 for identical ones (Chen & He 2021, arXiv:2011.10566).
    """
    return F.normalize(z.float(), dim=1).std(dim=0).mean() * z.shape[1] ** 0.5


def effective_rank(z: Tensor) -> Tensor:
    """Effective rank of z [B, D]: e^entropy of the singular values of the centred embeddings.

    Between 1 (also for constant embeddings) and min(B - 1, D); Roy & Vetterli 2007. NaN if an
    embedding is not finite.
    """
    if not z.isfinite().all():
        return z.new_tensor(torch.nan)  # LAPACK would raise an error of its own
    values = torch.linalg.svdvals((z - z.mean(dim=0)).float())
    p = values / values.sum().clamp_min(1e-12)
    return torch.special.entr(p).sum().exp()


def collapse_metrics(embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
    """Spread, mean standard deviation and effective rank of each named embedding [B, D].

    Embeddings of fewer than three clips are left out: two points always lie on a line.
    """
    metrics = {}
    for name, z in embeddings.items():
        if len(z) > 2:
            metrics[f"{name}_spread"] = spread(z)
            metrics[f"{name}_std"] = z.float().std(dim=0).mean()
            metrics[f"{name}_rank"] = effective_rank(z)
    return metrics


def collapse_warning(row: dict[str, float]) -> str:
    """Warning if the embeddings of one row of the training log have collapsed, '' otherwise."""
    problems = []
    for name in sorted(key.removesuffix("_rank") for key in row if key.endswith("_rank")):
        flat, rank = row[f"{name}_spread"], row[f"{name}_rank"]
        if flat < MIN_SPREAD or rank < MIN_RANK:
            problems.append(f"{name} embeddings have spread {flat:.3f} and rank {rank:.1f}")
    if row.get("variance", 0) > MAX_HINGE:
        problems.append(f"the variance term is {row['variance']:.2f} of 1: embeddings have shrunk")
    return f"collapse after epoch {row['epoch'] + 1:.0f}: {'; '.join(problems)}" if problems else ""

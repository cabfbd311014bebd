"""Statistics that show whether embeddings still differ between clips, or have collapsed.

Shapes: B clips, D dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SPREAD_LEAST, RANK_LEAST = 0.05, 1.5  # below either, all embeddings practically coincide
HINGE_MOST = 0.95  # VICReg's variance term above which embeddings have shrunk towards a point


def spread(z: Tensor) -> Tensor:
    """Mean standard deviation over dimensions of z [B, D] on the unit sphere, times sqrt(D).

    1 for directions that are spread evenly, 0 for identical ones (Chen & He 2021,
    arXiv:2011.10566).
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
    share = values / values.sum().clamp_min(1e-12)
    return torch.special.entr(share).sum().exp()


def measure(embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
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
    for name in sorted(key.removesuffix("_spread") for key in row if key.endswith("_spread")):
        flat, rank = row[f"{name}_spread"], row[f"{name}_rank"]
        if flat < SPREAD_LEAST or rank < RANK_LEAST:
            problems.append(f"{name} embeddings have spread {flat:.3f} and rank {rank:.1f}")
    if row.get("variance", 0) > HINGE_MOST:
        problems.append(f"the variance term is {row['variance']:.2f} of 1: embeddings have shrunk")
    return f"collapse after epoch {row['epoch'] + 1:.0f}: {'; '.join(problems)}" if problems else ""

"""Health of embeddings: whether they still tell clips apart, or have collapsed.

Shapes: B clips, D dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SPREAD_LEAST, RANK_LEAST = 0.05, 1.5  # below either, embeddings are as good as one
HINGE_MOST = 0.95  # VICReg's variance term above it: directions differ, but next to no length


def spread(z: Tensor) -> Tensor:
    """Mean standard deviation over dimensions of z [B, D] on the unit sphere, times sqrt(D).

    1 when the directions are spread evenly, 0 when all are the same (Chen & He 2021,
    arXiv:2011.10566).
    """
    return F.normalize(z.float(), dim=1).std(dim=0).mean() * z.shape[1] ** 0.5


def effective_rank(z: Tensor) -> Tensor:
    """How many dimensions z [B, D] uses: e^entropy of its singular values once centred.

    Between 1 and min(B - 1, D); Roy & Vetterli 2007. It is 1 when nothing varies at all.
    """
    if not z.isfinite().all():
        return z.new_tensor(torch.nan)  # LAPACK would give up with words of its own
    values = torch.linalg.svdvals((z - z.mean(dim=0)).float())
    share = values / values.sum().clamp_min(1e-12)
    return torch.special.entr(share).sum().exp()


def measure(embedded: dict[str, Tensor]) -> dict[str, Tensor]:
    """Spread, mean standard deviation and effective rank of each named embedding [B, D].

    Of two clips or one nothing can be said: two points always lie on one line.
    """
    found = {}
    for name, z in embedded.items():
        if len(z) < 3:
            continue
        found[f"{name}_spread"] = spread(z)
        found[f"{name}_std"] = z.float().std(dim=0).mean()
        found[f"{name}_rank"] = effective_rank(z)
    return found


def collapse_warning(row: dict[str, float]) -> str:
    """What is wrong with the embeddings of one line of a log, '' when nothing is."""
    said = []
    for name in sorted(key.removesuffix("_spread") for key in row if key.endswith("_spread")):
        flat, rank = row[f"{name}_spread"], row[f"{name}_rank"]
        if flat < SPREAD_LEAST or rank < RANK_LEAST:
            said.append(f"{name} embeddings have a spread of {flat:.3f} and a rank of {rank:.1f}")
    if row.get("variance", 0) > HINGE_MOST:
        said.append(f"the variance term is {row['variance']:.2f} of 1: embeddings have shrunk")
    if not said:
        return ""
    return f"collapse after epoch {row['epoch'] + 1:.0f}: " + "; ".join(said)

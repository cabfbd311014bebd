"""The 2022 recipe of banks, losses and retrieval: every formula as it is printed."""

import torch
import torch.nn.functional as F
from torch import Tensor

from avnb.config import XID


def draw(video: Tensor, videos: int, count: int, rng: torch.Generator) -> Tensor:
    """[B, N] rows of the bank, uniform over those of other videos than `video` [B]."""
    other = torch.randint(videos - 1, (len(video), count), generator=rng)
    return other + (other >= video[:, None]).long()


def rince_as_printed(z: Tensor, bank: Tensor, rows: Tensor, c: XID, q: float) -> Tensor:
    """RINCE (thesis eq. 3.2) of z [B, D] with `rows` [B, 1 + N] of a bank, the positive first."""
    chosen = bank[rows]  # [B, 1 + N, D], a copy
    e = (torch.einsum("bd,bnd->bn", z, chosen) / c.temperature).exp()
    pos, total = e[:, 0], e.sum(dim=1)
    return (-(pos**q) / q + (c.lam * total) ** q / q).mean()


def contrast(
    v: Tensor, a: Tensor, banks: tuple[Tensor, Tensor], rows: Tensor, c: XID, q: float
) -> Tensor:
    """xID's loss of both directions (thesis eq. 3.3); `banks` of video and audio."""
    video_bank, audio_bank = banks
    video = rince_as_printed(v, audio_bank, rows, c, q)
    return (video + rince_as_printed(a, video_bank, rows, c, q)) / 2


@torch.no_grad()
def update(bank: Tensor, video: Tensor, z: Tensor, momentum: float) -> None:
    """Move rows `video` [B], each of which occurs once, towards z [B, D]."""
    bank[video] = F.normalize(momentum * bank[video] + (1 - momentum) * z, dim=1)


def vicreg_as_printed(x: Tensor, y: Tensor, eps: float = 1e-4) -> dict[str, Tensor]:
    """Invariance, variance and covariance of two views [B, D], through both D x D matrices."""
    terms = {"invariance": F.mse_loss(x, y), "variance": x.new_zeros(()), "covariance": x.sum() * 0}
    b, d = x.shape
    for z in (x, y):
        z = z - z.mean(dim=0)
        terms["variance"] = terms["variance"] + F.relu(1 - (z.var(dim=0) + eps).sqrt()).mean() / 2
        c = z.T @ z / (b - 1)
        others = c.flatten()[1:].view(d - 1, d + 1)[:, :-1]  # all but the diagonal
        terms["covariance"] = terms["covariance"] + others.square().sum() / d
    return terms


def nearest(query: Tensor, gallery: Tensor, k: int) -> Tensor:
    """[Q, k] nearest rows of the gallery: all distances [Q, G], each row of them sorted."""
    return torch.cdist(query, gallery).argsort(dim=1)[:, :k]

"""Memory banks of cross-modal instance discrimination, with one row per video."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class MemoryBank(nn.Module):
    """Unit vectors [videos, D], updated by momentum (thesis 3.1).

    A buffer, not a parameter: it is saved in checkpoints but not optimised, and all processes hold
    the same copy because each of them applies the whole batch.
    """

    rows: Tensor

    def __init__(self, videos: int, dim: int, *, momentum: float, seed: int):
        super().__init__()
        self.momentum = momentum
        start = torch.randn(videos, dim, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("rows", F.normalize(start, dim=1))

    def similarities(self, z: Tensor, video: Tensor, neg: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine of z [B, D] with its video's row [B] and with the rows `neg` [B, K], [B, K]."""
        return (z * self.rows[video]).sum(1), SampledProduct.apply(z, self.rows, neg)

    @torch.no_grad()
    def update(self, video: Tensor, z: Tensor) -> None:
        """Move rows `video` [B] towards the embeddings `z` [B, D] and normalise them.

        A video that occurs twice in a batch moves towards the mean of its embeddings, in whichever
        order the device writes. No shape depends on the values of `video`: nothing waits for them.
        """
        same = video[:, None] == video  # [B, B]
        first = same.int().argmax(1)  # duplicates write the very same row
        # In double precision the order of summation does not matter, and TF32 is not used.
        mean = (same.double() @ z.double() / same.sum(1, keepdim=True))[first].to(self.rows.dtype)
        mixed = self.momentum * self.rows[video] + (1 - self.momentum) * mean
        self.rows[video] = F.normalize(mixed, dim=1)


class SampledProduct(torch.autograd.Function):
    """The product of z [B, D] with rows[neg] of rows [N, D], which are constants, and neg [B, K].

    No copy [B, K, D] is kept for the gradient.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, rows: Tensor, neg: Tensor) -> Tensor:
        """[B, K]."""
        ctx.save_for_backward(rows, neg)
        return torch.einsum("bd,bkd->bk", z, rows[neg])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Gradient [B, D]: for each clip the sum of its rows, weighted by `grad` [B, K]."""
        rows, neg = ctx.saved_tensors
        return F.embedding_bag(neg, rows, per_sample_weights=grad, mode="sum"), None, None


def draw_negatives(
    video: Tensor, videos: int, count: int, rng: torch.Generator, *, first: int = 0, whole: int = 0
) -> Tensor:
    """[B, count] rows, uniform over all `videos` except the clip's own, `video` [B].

    The clips are rows `first` to `first` + B of a batch of `whole` clips, and the negatives of a
    clip do not depend on how that batch is divided. They are drawn on the CPU, whose generator is
    the same on every machine.
    """
    end = first + len(video)
    other = torch.randint(videos - 1, (max(whole, end), count), generator=rng)[first:end]
    if video.is_cuda:
        other = other.pin_memory()  # else the copy waits for the device
    other = other.to(video.device, non_blocking=True)
    return other + (other >= video[:, None])

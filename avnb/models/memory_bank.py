"""Memory banks of cross-modal instance discrimination: one row a video."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MemoryBank(nn.Module):
    """Unit vectors [videos, D], updated by momentum (thesis 3.1).

    A buffer, not a parameter: it is checkpointed, never optimised, and every process holds the
    same copy because every process applies the same global batch.
    """

    rows: Tensor

    def __init__(self, videos: int, dim: int, *, momentum: float, seed: int):
        super().__init__()
        self.momentum = momentum
        start = torch.randn(videos, dim, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("rows", F.normalize(start, dim=1))

    @torch.no_grad()
    def update(self, video: Tensor, z: Tensor) -> None:
        """Move rows `video` [B] towards the embeddings `z` [B, D], then back to the sphere.

        A video that appears twice in a batch moves towards the mean of its embeddings, so the
        result does not depend on the order in which a device happens to write.
        """
        video, which, count = video.unique(return_inverse=True, return_counts=True)
        mean = torch.zeros(len(video), z.shape[1], device=z.device, dtype=self.rows.dtype)
        mean = mean.index_add_(0, which, z.to(mean.dtype)) / count[:, None]
        mixed = self.momentum * self.rows[video] + (1 - self.momentum) * mean
        self.rows[video] = F.normalize(mixed, dim=1)


def draw_negatives(
    video: Tensor, videos: int, count: int, rng: torch.Generator, *, first: int = 0, whole: int = 0
) -> Tensor:
    """[B, count] rows drawn uniformly from all `videos` but the clip's own, `video` [B].

    The clips are rows `first` to `first` + B of a batch of `whole` clips; each clip's draw is the
    same however the batch is divided. Drawn on the CPU, whose generator is the same everywhere;
    nothing waits for the device.
    """
    size = len(video)
    other = torch.randint(videos - 1, (max(whole, first + size), count), generator=rng)
    other = other[first : first + size].to(video.device, non_blocking=True)
    return other + (other >= video[:, None])

"""Memory banks of cross-modal instance discrimination, with one row per video."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

    @torch.no_grad()
    def update(self, video: Tensor, z: Tensor) -> None:
        """Move rows `video` [B] towards the embeddings `z` [B, D] and normalise them.

        A video that occurs twice in a batch moves towards the mean of its embeddings, so that the
        result does not depend on the order in which the device writes.
        """
        video, index, count = video.unique(return_inverse=True, return_counts=True)
        mean = torch.zeros(len(video), z.shape[1], device=z.device, dtype=self.rows.dtype)
        mean = mean.index_add_(0, index, z.to(mean.dtype)) / count[:, None]
        mixed = self.momentum * self.rows[video] + (1 - self.momentum) * mean
        self.rows[video] = F.normalize(mixed, dim=1)


def draw_negatives(
    video: Tensor, videos: int, count: int, rng: torch.Generator, *, first: int = 0, whole: int = 0
) -> Tensor:
    """[B, count] rows, uniform over all `videos` except the clip's own, `video` [B].

    The clips are rows `first` to `first` + B of a batch of `whole` clips, and the negatives of a
    clip do not depend on how that batch is divided. They are drawn on the CPU, whose generator is
    the same on every machine, and copied without waiting for the device.
    """
    size = len(video)
    other = torch.randint(videos - 1, (max(whole, first + size), count), generator=rng)
    other = other[first : first + size].to(video.device, non_blocking=True)
    return other + (other >= video[:, None])

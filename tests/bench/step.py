"""Parts of the step, the way of the 2022 recipe and ours, as callables to be timed in turn.

Each function takes sizes and returns a callable without arguments, which does the work once.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from avnb.config import Augment
from avnb.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    AugmentParams,
    VideoTransform,
    sample_params,
)
from avnb.evaluation.retrieval import nearest
from avnb.models.losses import off_diagonal, rince, vicreg_terms
from avnb.models.memory_bank import MemoryBank

TEMPERATURE, MOMENTUM, Q, LAM = 0.07, 0.5, 0.1, 0.01


def embeddings(clips: int, dim: int) -> tuple[Tensor, Tensor]:
    """Unit embeddings of video and audio, [B, D] each, that want a gradient."""
    rng = torch.Generator().manual_seed(0)
    v, a = (F.normalize(torch.randn(clips, dim, generator=rng), dim=1) for _ in range(2))
    return v.requires_grad_(), a.requires_grad_()


def rows_drawn(clips: int, negatives: int, videos: int) -> tuple[Tensor, Tensor]:
    """Each clip's own row [B] and its negatives' [B, K]."""
    rng = torch.Generator().manual_seed(1)
    return (
        torch.randint(videos, (clips,), generator=rng),
        torch.randint(videos, (clips, negatives), generator=rng),
    )


def banks(videos: int, dim: int) -> tuple[MemoryBank, MemoryBank]:
    """The banks of video and audio."""
    first, second = (MemoryBank(videos, dim, momentum=MOMENTUM, seed=k) for k in (1, 2))
    return first, second


def recipe_update(bank: MemoryBank, video: Tensor, z: Tensor) -> None:
    """The update by the distinct videos of the batch, whose number the device must tell."""
    video, index, count = video.unique(return_inverse=True, return_counts=True)
    mean = torch.zeros(len(video), z.shape[1]).index_add_(0, index, z) / count[:, None]
    mixed = MOMENTUM * bank.rows[video] + (1 - MOMENTUM) * mean
    bank.rows[video] = F.normalize(mixed, dim=1)


def recipe_bank_step(
    clips: int = 128, negatives: int = 1024, videos: int = 50_000, dim: int = 128
) -> Callable[[], tuple[Tensor, Tensor]]:
    """xID's step by copies [B, K, D] of the banks' rows; gives the gradients [B, D]."""
    (v, a), (of_video, of_audio) = embeddings(clips, dim), banks(videos, dim)
    video, neg = rows_drawn(clips, negatives, videos)

    def contrast(z: Tensor, bank: MemoryBank) -> Tensor:
        pos = torch.einsum("bd,bd->b", z, bank.rows[video])
        scores = torch.einsum("bd,bkd->bk", z, bank.rows[neg])
        return rince(pos / TEMPERATURE, scores / TEMPERATURE, q=Q, lam=LAM)

    def step() -> tuple[Tensor, Tensor]:
        loss = (contrast(v, of_audio) + contrast(a, of_video)) / 2
        gradients = torch.autograd.grad(loss, (v, a))
        recipe_update(of_video, video, v.detach())
        recipe_update(of_audio, video, a.detach())
        return gradients

    return step


def our_bank_step(
    clips: int = 128, negatives: int = 1024, videos: int = 50_000, dim: int = 128
) -> Callable[[], tuple[Tensor, Tensor]]:
    """xID's step as `avnb` takes it; gives the gradients [B, D]."""
    (v, a), (of_video, of_audio) = embeddings(clips, dim), banks(videos, dim)
    video, neg = rows_drawn(clips, negatives, videos)

    def contrast(z: Tensor, bank: MemoryBank) -> Tensor:
        pos, scores = bank.similarities(z, video, neg)
        return rince(pos / TEMPERATURE, scores / TEMPERATURE, q=Q, lam=LAM)

    def step() -> tuple[Tensor, Tensor]:
        loss = (contrast(v, of_audio) + contrast(a, of_video)) / 2
        gradients = torch.autograd.grad(loss, (v, a))
        of_video.update(video, v.detach())
        of_audio.update(video, a.detach())
        return gradients

    return step


def wide_embeddings(clips: int, dim: int) -> Tensor:
    """Embeddings [B, D] of one view, that want a gradient."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn(clips, dim, generator=rng).requires_grad_()


def recipe_vicreg_step(clips: int = 128, dim: int = 4096) -> Callable[[], tuple[Tensor, Tensor]]:
    """The terms of VICReg by the covariance matrix [D, D]; gives their sum and the gradient."""
    z = wide_embeddings(clips, dim)

    def terms(x: Tensor) -> Tensor:
        x = x - x.mean(dim=0)
        hinge = F.relu(1 - (x.var(dim=0) + 1e-4).sqrt()).mean()
        covariance = x.T @ x / (len(x) - 1)
        return hinge / 2 + off_diagonal(covariance).square().sum() / dim

    def step() -> tuple[Tensor, Tensor]:
        other = z.roll(1, dims=1)
        total = F.mse_loss(z, other) + terms(z) + terms(other)
        return total.detach(), *torch.autograd.grad(total, z)

    return step


def our_vicreg_step(clips: int = 128, dim: int = 4096) -> Callable[[], tuple[Tensor, Tensor]]:
    """The same as `avnb` computes it."""
    z = wide_embeddings(clips, dim)

    def step() -> tuple[Tensor, Tensor]:
        total = sum(vicreg_terms(z, z.roll(1, dims=1)).values())
        return total.detach(), *torch.autograd.grad(total, z)

    return step


def recipe_nearest(
    queries: int = 1916, gallery: int = 4797, features: int = 512, k: int = 5, rows: int = 256
) -> Callable[[], Tensor]:
    """The limit: one blocked product with top-k, of unit vectors, which need no norms; [Q, k]."""
    q, g = points(queries, features, 0), points(gallery, features, 1)
    return lambda: torch.cat([(block @ g.T).topk(k).indices for block in q.split(rows)])


def our_nearest(
    queries: int = 1916, gallery: int = 4797, features: int = 512, k: int = 5, rows: int = 256
) -> Callable[[], Tensor]:
    """The same by `avnb`, exact in float64; [Q, k]."""
    q, g = points(queries, features, 0), points(gallery, features, 1)
    return lambda: nearest(q, g, k, rows=rows)


def points(count: int, features: int, seed: int) -> Tensor:
    """Unit vectors [count, F]."""
    rng = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, features, generator=rng), dim=1)


def augmentation(
    clips: int = 1, frames: int = 16, px: int = 224, *, channels_last: bool = True
) -> tuple[Tensor, AugmentParams]:
    """Frames [B, 3, T, S, S] as a batch holds them, and what is drawn for them."""
    rng, shape = torch.Generator().manual_seed(0), (clips, frames, px, px, 3)
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng).permute(0, 4, 1, 2, 3)
    params = sample_params(Augment(), clips, np.random.default_rng(0))
    return x if channels_last else x.contiguous(), params


def recipe_augmentation(
    clips: int = 1, frames: int = 16, px: int = 224, *, channels_last: bool = True
) -> Callable[[], Tensor]:
    """A clip at a time by torchvision's functions for tensors; gives the network's input."""
    x, params = augmentation(clips, frames, px, channels_last=channels_last)
    kinds = [tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue]

    def one(i: int) -> Tensor:
        clip = x[i].transpose(0, 1).float() / 255  # [T, 3, S, S]
        clip = clip.flip(-1) if params.flip[i] else clip
        for kind in params.order[i].tolist():
            clip = kinds[kind](clip, params.factors[i, kind].item())
        return tvf.normalize(clip, list(IMAGENET_MEAN), list(IMAGENET_STD)).transpose(0, 1)

    return lambda: torch.stack([one(i) for i in range(clips)])


def our_augmentation(
    clips: int = 1, frames: int = 16, px: int = 224, *, channels_last: bool = True
) -> Callable[[], Tensor]:
    """The same by `avnb`."""
    x, params = augmentation(clips, frames, px, channels_last=channels_last)
    view = VideoTransform()
    return lambda: view(x, params)

"""Processes of one job: who am I, gather rows, average numbers. All work without a group too."""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Processes of this job; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def gather_rows(x: Tensor) -> Tensor:
    """[B, ...] here -> [B * processes, ...] of all, in the order of rank; no gradient."""
    if world_size() == 1:
        return x.detach()
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


def mean_over_processes(values: Tensor) -> Tensor:
    """Mean of the same tensor over all processes."""
    if world_size() > 1:
        dist.all_reduce(values)
        values /= world_size()
    return values

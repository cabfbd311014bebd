"""Processes of one job: who am I, gather rows, average numbers. All work without a group too."""

import contextlib
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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
    return values / world_size()


def share_statistics(module: nn.Module) -> None:
    """Give every process the first one's running statistics of BatchNorm."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and world_size() > 1]
    for statistic in (buffer for norm in norms for buffer in norm.buffers(recurse=False)):
        dist.broadcast(statistic, 0)


def whole_batch(x: Tensor) -> Tensor:
    """[B, ...] here -> [B * processes, ...] of all, with the exact gradient.

    Each process computes the same loss of the whole batch and its gradient for the rows of its own,
    times the number of processes: the mean that DistributedDataParallel takes makes it that of one
    loss.
    """
    if world_size() == 1:
        return x
    parts = list(gather_rows(x).chunk(world_size()))
    parts[rank()] = x.detach() + (x - x.detach()) * world_size()
    return torch.cat(parts)


def own_device() -> torch.device:
    """The GPU of this process; the CPU where none is visible.

    A single one is this process's own, as where SLURM binds one to each task: NCCL refuses to share
    it. RuntimeError when there are several, but fewer than processes.
    """
    gpus, processes = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if 1 < gpus < processes:
        found = f"{gpus} GPUs of {os.uname().nodename} are visible to {processes} processes"
        raise RuntimeError(f"{found}: start no more processes than GPUs, or show each its own")
    number = int(os.environ.get("LOCAL_RANK", "0")) if gpus > 1 else 0
    return torch.device("cuda", number) if gpus else torch.device("cpu")


@contextlib.contextmanager
def process_group() -> Iterator[torch.device]:
    """Join the job this process was started for (none: alone); NCCL on GPUs, else gloo."""
    device, alone = own_device(), os.environ.get("WORLD_SIZE", "1") == "1"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not alone:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield device
    if not alone:  # and not after an error: others wait elsewhere, and it would never be told
        dist.destroy_process_group()

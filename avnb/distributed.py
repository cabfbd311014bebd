"""Processes of one job: who am I, gather rows, average numbers. All work without a group too.

BatchNorm is synchronised by torch's SyncBatchNorm on GPUs; on the CPU, which that does not serve,
each process normalises with the statistics of its own part of the batch.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

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


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: in short steps on a busy machine, threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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


def share_statistics(module: nn.Module) -> None:
    """Give every process the first one's running statistics of BatchNorm."""
    for part in module.modules():
        if world_size() > 1 and isinstance(part, _BatchNorm):
            for statistic in part.buffers(recurse=False):
                dist.broadcast(statistic, 0)


class GatherRows(torch.autograd.Function):
    """Differentiable all_gather; backward sums gradients over ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: D102
        ctx.size = len(x)
        return gather_rows(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: D102
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad[rank() * ctx.size :][: ctx.size]


def whole_batch(x: Tensor) -> Tensor:
    """[B, ...] here -> [B * processes, ...] of all, with the exact gradient.

    Each process computes the same loss of the whole batch; the gradients of its rows add up over
    processes, and the mean that DistributedDataParallel takes makes them those of one loss.
    """
    return GatherRows.apply(x) if world_size() > 1 else x


def synchronise_batch_norm(module: nn.Module, device: torch.device) -> None:
    """Make every BatchNorm inside `module` take its statistics over all processes, on GPUs."""
    if world_size() > 1 and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)  # in place but for a bare BatchNorm


@contextlib.contextmanager
def process_group() -> Iterator[torch.device]:
    """Join the job this process was started for (none: alone); NCCL on GPUs, else gloo."""
    defaults = {"WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    processes, local_rank, local_size = (int(os.environ.get(k, v)) for k, v in defaults.items())
    cuda = torch.cuda.device_count() >= local_size  # the same answer in every process
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if processes == 1:
        yield device
        return
    dist.init_process_group("nccl" if cuda else "gloo")
    yield device
    # Not after an error: the other processes wait elsewhere, and the error would never be told.
    dist.destroy_process_group()

"""Processes of one job: who am I, gather rows, average numbers. All work without a group too."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
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
    """`gather_rows` with a gradient: what all processes ask of a row, added up."""

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


def widened(x: Tensor) -> Tensor:
    """Half precision as float32; float64 stays."""
    return x if x.dtype == torch.double else x.float()


class SharedNorm(torch.autograd.Function):
    """Normalise [B, C, ...] with the mean and variance of the rows of all processes.

    Returns the output and both statistics. As BatchNorm's backward pass (Ioffe & Szegedy 2015,
    arXiv:1502.03167), with its two sums taken over processes.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Any:
        dims = [d for d in range(x.ndim) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(x.ndim)]
        wide = widened(x)
        mean = wide.mean(dims)  # in two passes: on the CPU, var_mean takes 15 times as long
        var = (wide - mean.view(shape)).square_().mean(dims)
        means, variances = gather_rows(torch.stack([mean, var])[None]).unbind(1)  # [W, C] each
        mean, var = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        return F.batch_norm(x, mean, var, weight, bias, eps=eps), mean, var

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> Any:  # noqa: D102
        half, weight, mean, scale = ctx.saved_tensors
        x, dy = widened(half), widened(dy)
        dims = [d for d in range(x.ndim) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(x.ndim)]
        bias_sum = dy.sum(dims)
        weight_sum = ((dy * x).sum(dims) - mean * bias_sum) * scale
        ours = torch.stack([bias_sum, weight_sum])
        rows = x.numel() // x.shape[1] * world_size()
        dist.all_reduce(total := ours.clone())
        by_dy = scale if weight is None else weight * scale
        by_x = -by_dy * scale * total[1] / rows
        rest = -by_dy * total[0] / rows - by_x * mean
        dx = torch.addcmul(rest.view(shape), x, by_x.view(shape)).addcmul_(dy, by_dy.view(shape))
        affine = (None, None) if weight is None else (ours[1], ours[0])
        return dx.to(half.dtype), *affine, None


class SharedBatchNorm(_BatchNorm):
    """BatchNorm over all processes of a job on the CPU, where torch's SyncBatchNorm has none."""

    momentum: float
    running_mean: Tensor
    running_var: Tensor

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """As BatchNorm; every process must bring as many rows."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        y, mean, var = SharedNorm.apply(x, self.weight, self.bias, self.eps)
        rows = x.numel() // x.shape[1] * world_size()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * rows / (rows - 1), self.momentum)
        return y


def synchronise_batch_norm(module: nn.Module, device: torch.device) -> None:
    """Make every BatchNorm inside `module` take its statistics over all processes."""
    if world_size() == 1:
        return
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)  # in place but for a bare BatchNorm
        return
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.__class__ = SharedBatchNorm


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

"""Several processes that train one model: torchrun's world, sums over it, shared batch norm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as sums
from torch import Tensor, nn

from edgekit.core.errors import UsageError


@dataclass(frozen=True)
class World:
    """This process's rank among all; for a single process, every sum is its own value."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    """Processes on this machine, which share its processors."""

    @property
    def leads(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1 and values.numel():
            values = values.clone()
            dist.all_reduce(values)
        return values

    def in_order(self, rows: Tensor) -> Tensor:
        """The rows of all processes, by rank; each may have another number of them."""
        if self.size == 1:
            return rows
        counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
        longest = max(int(count) for count in counts)
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.cat([part[: int(n)] for part, n in zip(parts, counts, strict=True)])

    def wait(self) -> None:
        """Wait until all processes arrive."""
        if self.size > 1:
            dist.barrier()

    def share(self, count: int) -> slice:
        """This process's contiguous part of ``count`` items."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """The world that torchrun's environment variables describe, or a world of one."""
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield World()
        return
    world = World(
        _number("RANK", 0), size, _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", size)
    )
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(world.local_rank)
    # One process caches features while the others wait, which may take hours; if one dies,
    # torchrun ends them all.
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(hours=24))
    try:
        yield world
    finally:
        dist.destroy_process_group()


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdigit():
        raise UsageError(f"the environment variable {variable} is '{text}', not a number")
    return int(text)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the images of all processes, on any device.

    torch's own SyncBatchNorm runs on GPUs only. It takes two sums, mean first, because the
    one-pass formula loses digits.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize [B, C, h, w]; B may differ between processes."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        values = x.float()
        count = torch.tensor([values.numel() / values.shape[1]], device=x.device)
        totals: Tensor = sums.all_reduce(torch.cat([values.sum(dim=(0, 2, 3)), count]))
        number = totals[-1].detach()
        mean = totals[:-1] / number
        centered = values - mean[:, None, None]
        variance: Tensor = sums.all_reduce(centered.square().sum(dim=(0, 2, 3))) / number
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * number / (number - 1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def share_batch_norm(module: nn.Module) -> None:
    """Make the batch norms inside ``module`` shared ones; names and weights stay."""
    for child in module.modules():
        # Others than these would need another formula; a network of the user's own may have them.
        if type(child) is nn.BatchNorm2d and child.affine and child.momentum is not None:
            child.__class__ = SharedBatchNorm2d

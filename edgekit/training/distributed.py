"""Several processes that train one model: torchrun's world, sums over it, shared batch norm."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as sums
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from edgekit.core.errors import EdgekitError, UsageError

T = TypeVar("T")

_FAILED: Final = "edgekit/failed"  # of the store that all processes share: how many have


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

    def together(self, items: Sequence[T]) -> list[T]:
        """The items of all processes, by rank."""
        parts = [list(items)] * self.size
        if self.size > 1:
            dist.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    def from_leader(self, value: T | None) -> T:
        """The leader's value, in every process; the others give None."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        assert values[0] is not None
        return values[0]

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes."""
        gradients = [one.grad for one in parameters if one.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([one.flatten() for one in gradients])
        dist.all_reduce(flat)  # all at once: most are small
        for one, total in zip(
            gradients, flat.split([one.numel() for one in gradients]), strict=True
        ):
            one.copy_(total.view_as(one))

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the leader do something before the others, who find its files."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def wait(self) -> None:
        """Wait until all processes arrive."""
        if self.size > 1:
            dist.barrier()

    def share(self, count: int) -> slice:
        """This process's contiguous part of ``count`` items."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """The world that torchrun's environment variables describe, or a world of one.

    If several processes fail, alike or one because of another, only the first one's error is
    raised; the others end without a word.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield World()
        return
    world = World(
        _number("RANK", 0), size, _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", size)
    )
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        torch.cuda.set_device(world.local_rank)
    store, _, _ = next(rendezvous("env://"))
    # One process caches features while the others wait, which may take hours; if one dies,
    # torchrun ends them all.
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=store,
        rank=world.rank,
        world_size=size,
        timeout=timedelta(hours=24),
    )
    try:
        yield world
    except (Exception, KeyboardInterrupt) as error:
        # The group stays open until this process has ended: whoever waits for it learns of the
        # failure only after the reason is printed.
        if not _is_first(store):
            raise SystemExit(getattr(error, "exit_code", 1)) from error
        if _lost_another(error):
            raise EdgekitError(
                f"another of the {size} processes was killed, or its machine is gone: "
                "run the same command again to resume"
            ) from error
        raise
    dist.destroy_process_group()


def _is_first(store: Any) -> bool:
    """Whether no other process has failed before."""
    try:
        return bool(store.add(_FAILED, 1) == 1)
    except dist.DistError:  # whoever keeps it is gone
        return True


def _lost_another(error: BaseException) -> bool:
    """Whether it is what torch raises where another process does not answer any more."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


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

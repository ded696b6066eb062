"""Reproducible arithmetic: seeds, deterministic kernels, threads, devices, precision."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from edgekit.core.errors import ToolchainMissing, UsageError
from edgekit.core.host import runtime_threads
from edgekit.training.config import Precision


@contextmanager
def reproducible(seed: int, threads: int | None) -> Iterator[None]:
    """Seed torch, ask for deterministic kernels and ``threads``; restore everything afterwards."""
    before = torch.get_num_threads()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
    # Without this cuBLAS is not deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng():
        try:
            torch.manual_seed(seed)
            # Warn only: some CUDA kernels have no deterministic form; on a CPU all do.
            torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
            if chosen := runtime_threads(threads or 0):
                torch.set_num_threads(chosen)
            yield
        finally:
            torch.use_deterministic_algorithms(was_deterministic, warn_only=warned_only)
            torch.set_num_threads(before)


def step_seed(seed: int, phase: int, step: int, rank: int) -> int:
    """The seed of everything that layers draw at random in one step."""
    digest = hashlib.sha256(f"step\n{seed}\n{phase}\n{step}\n{rank}".encode()).digest()
    return int.from_bytes(digest[:7], "little")


def choose_device(name: str, local_rank: int) -> torch.device:
    """``auto``, or a device's name as torch spells it."""
    if name == "auto":
        name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device '{name}': use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"edgekit trains on cpu or cuda, not on '{name}'")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ToolchainMissing("this torch finds no CUDA GPU: use --device cpu, or a CUDA torch")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", local_rank)
    return device


def precision_for(precision: Precision, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """What ``auto`` means here: mixed precision on GPUs, where it is faster, never on CPUs."""
    if precision != "auto":
        if precision == "fp16" and device.type == "cpu":
            raise UsageError("precision fp16 needs a GPU: use bf16 or fp32 on a CPU")
        return precision
    if device.type == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"

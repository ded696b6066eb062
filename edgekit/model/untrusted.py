"""Limits on checkpoints: none makes us allocate gigabytes that it lacks, or accept odd tensors."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from edgekit.core.errors import UsageError
from edgekit.core.limits import check_size

_DTYPES: Final = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
}
_SLACK: Final = 64 << 20  # bytes of parameters that a module creates and replaces in its making


def check_unpacked(stream: BinaryIO, path: Path) -> None:
    """Refuse a compressed archive that unpacks to too much; torch itself never compresses."""
    if zipfile.is_zipfile(stream):
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            total = sum(member.file_size for member in archive.infolist())
        if total > path.stat().st_size:
            check_size(total, f"{path}, which is compressed,")
    stream.seek(0)


def check_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that cannot be copied into a model."""
    for key, tensor in state.items():
        if problem := _oddity(tensor):
            raise UsageError(
                f"{path}: key '{key}' holds {problem}: save plain, dense weights (such as float32)"
            )


def _oddity(tensor: Tensor) -> str | None:
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_meta:
        return "a tensor without values (device meta)"
    if tensor.is_quantized or tensor.layout != torch.strided:
        return f"a {'quantized' if tensor.is_quantized else 'sparse'} tensor"
    if tensor.dtype not in _DTYPES:
        return f"{str(tensor.dtype).removeprefix('torch.')} values"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        shape = "x".join(map(str, tensor.shape))
        return f"an expanded tensor of {shape}, whose values are stored once"
    return None


@contextmanager
def no_larger_than(state: Mapping[str, Tensor], source: str) -> Iterator[None]:
    """Abort the construction of a model much larger than the weights that a file holds for it.

    A card of a few hundred bytes can name a network of gigabytes.
    """
    left = 2 * 4 * sum(tensor.numel() for tensor in state.values()) + _SLACK

    def count(_module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal left
        left -= 0 if parameter is None else parameter.numel() * parameter.element_size()
        if left < 0:
            raise UsageError(f"{source}: it holds too few weights for the model that it names")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()

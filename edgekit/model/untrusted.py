"""Limits on checkpoints: none makes us allocate gigabytes that it lacks, or accept odd tensors."""

from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from edgekit.core.damage import METHODS
from edgekit.core.errors import UsageError
from edgekit.core.limits import check_size

_DTYPES: Final = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
}
_SLACK: Final = 64 << 20  # bytes of parameters that a module creates and replaces in its making


def check_unpacked(stream: BinaryIO, path: Path) -> None:
    """Refuse a torch.save file that asks for more memory than it holds bytes for.

    torch stores tensors as they are; a compressed archive may unpack to anything. The sizes of
    its storages are numbers in its pickle, and torch makes room for them before it reads.
    """
    if zipfile.is_zipfile(stream):
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            if any(member.compress_type not in METHODS for member in archive.infolist()):
                raise ValueError("packed in a way that PyTorch does not read")
            sizes = {member.filename: member.file_size for member in archive.infolist()}
            total = sum(sizes.values())
            if total > path.stat().st_size:
                check_size(total, f"{path}, which is compressed,")
            pickled = next((name for name in sizes if name.endswith("/data.pkl")), None)
            storages = {} if pickled is None else _storages(io.BytesIO(archive.read(pickled)), 1)
        folder = (pickled or "").removesuffix("data.pkl")
        for key, claimed in storages.items():
            if claimed > sizes.get(f"{folder}data/{key}", 0):
                raise UsageError(
                    f"{path} is damaged or truncated: its record data/{key} has "
                    f"{sizes.get(f'{folder}data/{key}', 0)} bytes, {claimed} belong there"
                )
    else:
        stream.seek(0)
        claimed = sum(_storages(stream, 4).values())  # behind a magic number and two more
        if claimed > path.stat().st_size:
            raise UsageError(
                f"{path} is damaged or truncated: {claimed} bytes of weights belong there"
            )
    stream.seek(0)


def _storages(stream: BinaryIO, pickles: int) -> dict[str, int]:
    """The bytes that each storage claims, in the last of so many pickles.

    What is no pickle, or one that Python cannot follow, claims nothing: torch says what is wrong.
    """
    claimed: dict[str, int] = {}
    with contextlib.suppress(*_NO_PICKLE):
        for _ in range(pickles):
            _Claims(stream, claimed).load()
    return claimed


_NO_PICKLE: Final = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError),
    *(AttributeError, OverflowError, MemoryError, RecursionError),
)


class _Claims(pickle.Unpickler):
    """Follows a pickle without making anything of it: every class is a stand-in."""

    def __init__(self, stream: BinaryIO, claimed: dict[str, int]) -> None:
        super().__init__(stream, encoding="utf-8")
        self._claimed = claimed

    def find_class(self, module: str, name: str) -> Any:
        """A type that takes whatever it is given; of storages the bytes of an element count."""
        dtype = getattr(getattr(torch, name, None), "dtype", None) if module == "torch" else None
        return type(name, (_StandIn,), {"width": getattr(dtype, "itemsize", 1)})

    def persistent_load(self, pid: Any) -> Any:
        """Note a storage: ("storage", type, key, location, number of elements, ...)."""
        if isinstance(pid, tuple) and len(pid) > 4 and type(pid[4]) is int:
            size = pid[4] * getattr(pid[1], "width", 1)
            self._claimed[str(pid[2])] = max(size, self._claimed.get(str(pid[2]), 0))
        return _StandIn()


class _StandIn(dict[Any, Any]):
    """An object of any class."""

    def __new__(cls, *_: object, **__: object) -> _StandIn:
        """Like a class whose arguments nobody knows."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Forget it."""


def check_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that cannot be copied into a model."""
    for key, tensor in state.items():
        if problem := oddity(tensor):
            raise UsageError(
                f"{path}: key '{key}' holds {problem}: save plain, dense weights (such as float32)"
            )


def oddity(tensor: Tensor) -> str | None:
    """What is wrong with a tensor that cannot be copied into a model."""
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

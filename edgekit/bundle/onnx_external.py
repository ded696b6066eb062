"""Detects, without the onnx package, whether an ONNX file keeps weights in other files.

A tensor may name a file with its values, which a runtime then reads from beside the model: not
listed in the manifest, and changeable by anyone. We neither write nor open such models. Of the
format (protobuf: numbered fields, each with its length) only the path to the tensors is read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types

# Message -> the fields that lead to tensors, and the messages in them (onnx.proto3).
_PATHS_TO_TENSORS: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of a tensor


def has_external_data(path: Path) -> bool:
    """Whether any tensor's values are in another file; ValueError if it is not an ONNX file."""
    with path.open("rb") as stream:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            waiting = [("Model", 0, len(data))]
            while waiting:  # no recursion: graphs may be nested as deep as the file is long
                message, start, end = waiting.pop()
                for field, value, length in _fields(data, start, end):
                    if message == "Tensor":
                        if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value):
                            return True
                    elif length is not None and field in _PATHS_TO_TENSORS[message]:
                        waiting.append((_PATHS_TO_TENSORS[message][field], value, value + length))
    return False


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int | None]]:
    """(number, value, None) of each field, or (number, offset, length) of those with a length."""
    at = start
    while at < end:
        key, at = _varint(data, at, end)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(data, at, end)
            yield key >> 3, value, None
        elif kind == _BYTES:
            length, at = _varint(data, at, end)
            if length > end - at:
                raise ValueError("a field is longer than its parent")
            yield key >> 3, at, length
            at += length
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field of type {kind}")
    if at != end:
        raise ValueError("it ends in the middle of a field")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("it ends in the middle of a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number without end")

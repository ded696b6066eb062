"""The compiled codebook lookup (`targets/codebook`), called through ctypes.

The lookup answers which row of a codebook matches a feature vector best. On every machine its
answer equals, bit for bit, that of a float64 computation with a fixed order of additions;
`lookup_reference` is that definition in NumPy. Importing this module loads nothing.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import platform
from types import TracebackType
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.core.resources import find_resource

ABI_VERSION: Final = 1
_LIBRARY: Final = "_native/libedgekit_codebook.so"
_METRICS: Final = {"dot": 0, "l2": 1}
_NONFINITE_CODEBOOK: Final = 2
_NONFINITE_INPUT: Final = 3
_UNSUPPORTED_PATH: Final = 6
_LANES: Final = 16  # partial sums in the score's fixed order of additions

_REBUILD: Final = "run 'pip install .' in edgekit's folder (needs a C++ compiler: package g++)"

Floats = npt.NDArray[np.float32]


class LookupResult(NamedTuple):
    """The best codebook row for each of M feature vectors."""

    indices: npt.NDArray[np.int64]
    """(M,) row numbers; a tie goes to the lowest."""
    best: Floats
    """(M,) scores of those rows."""
    margin: Floats
    """(M,) distance to the second-best row's score; infinite in a codebook of one row."""


class Codebook:
    """A codebook packed for fast, exact lookups; `close`, or leaving a ``with`` block, frees it.

    ``metric="dot"`` scores a row e as <x, e>: with normalized rows that is the cosine distance.
    ``metric="l2"`` scores it as <x, e> - <e, e> / 2, which orders rows as |x - e| does.
    """

    def __init__(self, codebook: Floats, metric: str = "dot") -> None:
        self._handle: ctypes.c_void_p | None = None
        rows = _checked(codebook, "codebook", "(N, D)")
        code = _metric_code(metric)
        if rows.shape[0] == 0 or rows.shape[1] == 0:
            raise UsageError(f"codebook: shape {rows.shape} has no rows or no columns")
        self._library = load_library()
        handle = ctypes.c_void_p()
        status = self._library.edgekit_codebook_pack(
            rows.ctypes.data, rows.shape[0], rows.shape[1], code, ctypes.byref(handle)
        )
        if status == _NONFINITE_CODEBOOK:
            raise UsageError(_nonfinite("codebook", rows))
        if status == _UNSUPPORTED_PATH:
            path = os.environ.get("EDGEKIT_LOOKUP_PATH")
            raise UsageError(
                f"EDGEKIT_LOOKUP_PATH: this machine or codebook cannot use {path!r}; unset it, or"
                " take one of the paths that Codebook.describe() lists as 'available'"
            )
        self._check(status)
        self._handle = handle
        self.rows, self.width = rows.shape
        self.metric = metric

    def lookup(self, x: Floats, threads: int = 1, *, want_margin: bool = True) -> LookupResult:
        """Finds the best row for each vector of x (M, D float32) with at most `threads` threads.

        ``threads=0`` uses every CPU. Without ``want_margin`` the margins are NaN and the lookup
        is faster, because it need not determine the exact runner-up.
        """
        if self._handle is None:
            raise EdgekitError("the codebook is closed: look up before leaving its 'with' block")
        vectors = _checked(x, "x", "(M, D)")
        if vectors.shape[1] != self.width:
            raise UsageError(
                f"x: vectors have {vectors.shape[1]} features, the codebook's rows {self.width}"
            )
        if threads < 0:
            raise UsageError(f"threads: {threads} is negative; 0 means every CPU")
        count = vectors.shape[0]
        indices = np.empty(count, np.int64)
        best = np.empty(count, np.float32)
        margin = np.full(count, np.nan, np.float32)
        status = self._library.edgekit_codebook_lookup(
            self._handle,
            vectors.ctypes.data,
            count,
            indices.ctypes.data,
            best.ctypes.data,
            margin.ctypes.data if want_margin else None,
            threads,
        )
        if status == _NONFINITE_INPUT:
            raise UsageError(_nonfinite("x", vectors))
        self._check(status)
        return LookupResult(indices, best, margin)

    def describe(self) -> dict[str, Any]:
        """Sizes, bytes, the path that lookups take ("avx512vnni-int8"), and all available paths."""
        if self._handle is None:
            raise EdgekitError(
                "the codebook is closed: describe it before leaving its 'with' block"
            )
        size = self._library.edgekit_codebook_describe(self._handle, None, 0)
        buffer = ctypes.create_string_buffer(size)
        self._library.edgekit_codebook_describe(self._handle, buffer, size)
        description: dict[str, Any] = json.loads(buffer.value)
        return description

    def close(self) -> None:
        """Frees the packed codebook; closing twice is fine."""
        if self._handle is not None:
            self._library.edgekit_codebook_free(self._handle)
            self._handle = None

    def __enter__(self) -> Codebook:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _check(self, status: int) -> None:
        if status != 0:
            text = self._library.edgekit_status_text(status).decode()
            raise EdgekitError(f"codebook lookup: {text}")


@functools.cache
def load_library() -> ctypes.CDLL:
    """Loads the compiled library once, declares its functions and checks its version."""
    path = find_resource(_LIBRARY)
    if path is None:
        raise ToolchainMissing(f"the compiled lookup ({_LIBRARY}) is not installed: {_REBUILD}")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ToolchainMissing(
            f"{path} does not load on this {platform.machine()} machine ({error}): {_REBUILD}"
        ) from error
    _declare(library)
    abi_version = library.edgekit_codebook_abi_version()
    if abi_version != ABI_VERSION:
        raise ToolchainMissing(
            f"{path} has interface version {abi_version}, edgekit needs {ABI_VERSION}: {_REBUILD}"
        )
    return library


def lookup_reference(codebook: Floats, x: Floats, metric: str = "dot") -> LookupResult:
    """The lookup's definition in NumPy: slow, and equal to `Codebook.lookup` bit for bit."""
    rows = _checked(codebook, "codebook", "(N, D)")
    vectors = _checked(x, "x", "(M, D)")
    code = _metric_code(metric)
    for name, array in (("codebook", rows), ("x", vectors)):
        if not np.isfinite(array).all():
            raise UsageError(_nonfinite(name, array))
    count = vectors.shape[0]
    indices = np.empty(count, np.int64)
    best = np.empty(count, np.float32)
    margin = np.empty(count, np.float32)
    lanes = _in_lanes(rows)
    half_norms = np.zeros(len(rows))
    if code == _METRICS["l2"]:
        half_norms = _lane_sum(lanes * lanes) / 2
    with np.errstate(over="ignore"):  # a score beyond float32's range is reported as infinite
        for i, vector in enumerate(_in_lanes(vectors)):
            scores = _lane_sum(lanes * vector) - half_norms
            indices[i] = np.argmax(scores)  # the first of equal scores
            first = scores[indices[i]]
            scores[indices[i]] = -np.inf
            best[i] = first
            margin[i] = first - scores.max()
    return LookupResult(indices, best, margin)


def _in_lanes(rows: Floats) -> npt.NDArray[np.float64]:
    """(R, D) as float64 (R, steps, lanes), the last step padded with zeros."""
    steps = -(-rows.shape[1] // _LANES)
    padded = np.zeros((rows.shape[0], steps * _LANES))
    padded[:, : rows.shape[1]] = rows
    return padded.reshape(rows.shape[0], steps, _LANES)


def _lane_sum(products: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Adds (R, steps, lanes) in the fixed order: step by step in each lane, then halving."""
    total = np.zeros((products.shape[0], _LANES))
    for step in range(products.shape[1]):
        total += products[:, step]
    width = _LANES
    while width > 1:
        width //= 2
        total = total[:, :width] + total[:, width:]
    result: npt.NDArray[np.float64] = total[:, 0]
    return result


def _declare(library: ctypes.CDLL) -> None:
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    library.edgekit_codebook_abi_version.restype = ctypes.c_int
    library.edgekit_status_text.argtypes = [ctypes.c_int]
    library.edgekit_status_text.restype = ctypes.c_char_p
    library.edgekit_codebook_pack.argtypes = [pointer, count, count, ctypes.c_int, pointer]
    library.edgekit_codebook_pack.restype = ctypes.c_int
    library.edgekit_codebook_lookup.argtypes = [
        pointer, pointer, count, pointer, pointer, pointer, ctypes.c_int
    ]  # fmt: skip
    library.edgekit_codebook_lookup.restype = ctypes.c_int
    library.edgekit_codebook_describe.argtypes = [pointer, pointer, ctypes.c_size_t]
    library.edgekit_codebook_describe.restype = ctypes.c_size_t
    library.edgekit_codebook_free.argtypes = [pointer]
    library.edgekit_codebook_free.restype = None


def _metric_code(metric: str) -> int:
    if metric not in _METRICS:
        raise UsageError(f"metric: {metric!r} is unknown; use 'dot' or 'l2'")
    return _METRICS[metric]


def _checked(array: Floats, name: str, shape: str) -> Floats:
    """The array as contiguous float32, or a one-line error; other types are never converted."""
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{name}: expected a NumPy array {shape}, found {type(array).__name__}")
    if array.dtype != np.float32:
        raise UsageError(
            f"{name}: expected float32, found {array.dtype}; convert with .astype('float32')"
        )
    if array.ndim != 2:
        raise UsageError(f"{name}: expected a shape {shape}, found {array.shape}")
    return np.ascontiguousarray(array)


def _nonfinite(name: str, array: Floats) -> str:
    row, column = np.argwhere(~np.isfinite(array))[0]
    value = array[row, column]
    return f"{name}: {value} at row {row}, column {column}; every value must be finite"

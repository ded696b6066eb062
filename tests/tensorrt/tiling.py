"""Builds the device's lookup algorithm for the host, and calls it."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from edgekit.native.codebook import LookupResult

SOURCES = Path(__file__).parents[2] / "targets" / "codebook" / "cuda"
INVALID_ARGUMENT, SMALL_WORKSPACE = 1, 2


class Request(ctypes.Structure):
    """edgekit_codebook_cuda_request."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("codebook", ctypes.c_void_p),
        ("m", ctypes.c_int64),
        ("n", ctypes.c_int64),
        ("d", ctypes.c_int64),
        ("x_type", ctypes.c_int32),
        ("codebook_type", ctypes.c_int32),
        ("metric", ctypes.c_int32),
        ("margin_type", ctypes.c_int32),
        ("indices", ctypes.c_void_p),
        ("best", ctypes.c_void_p),
        ("margin", ctypes.c_void_p),
        ("nonfinite", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("workspace_bytes", ctypes.c_size_t),
        ("packed", ctypes.c_void_p),
        ("packed_bytes", ctypes.c_size_t),
    )


class Codebook(ctypes.Structure):
    """edgekit_codebook_cuda_codebook."""

    _fields_ = (
        ("codebook", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("d", ctypes.c_int64),
        ("type", ctypes.c_int32),
        ("packed", ctypes.c_void_p),
        ("packed_bytes", ctypes.c_size_t),
    )


class Report(ctypes.Structure):
    """edgekit_tiling_report."""

    _fields_ = (
        ("parts", ctypes.c_int64),
        ("kernel", ctypes.c_int64),
        ("rows", ctypes.c_int64),
        ("exact_scores", ctypes.c_int64),
        ("most_exact", ctypes.c_int64),
    )


class Found(NamedTuple):
    result: LookupResult
    nonfinite: bool
    report: Report


def garbage(size: int) -> tuple[np.ndarray, int]:
    """Memory as a reused one is, and its first address that is a multiple of 256."""
    memory = np.full(size // 16 + 32, 0x5A5A5A5A, np.complex128).view(np.uint8)
    return memory, memory.ctypes.data + -memory.ctypes.data % 256


class Tiling:
    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        self.library.edgekit_tiling_lookup.argtypes = [
            ctypes.POINTER(Request), ctypes.c_int, ctypes.c_int, ctypes.POINTER(Report)
        ]  # fmt: skip
        self.library.edgekit_tiling_pack.argtypes = [ctypes.POINTER(Codebook)]
        self.library.edgekit_tiling_workspace.argtypes = [ctypes.c_int64] * 3
        self.library.edgekit_tiling_workspace.restype = ctypes.c_size_t
        self.library.edgekit_tiling_packed_bytes.argtypes = [ctypes.c_int64] * 2
        self.library.edgekit_tiling_packed_bytes.restype = ctypes.c_size_t

    def workspace(self, m: int, n: int, d: int) -> int:
        return self.library.edgekit_tiling_workspace(m, n, d)

    def packed_bytes(self, n: int, d: int) -> int:
        return self.library.edgekit_tiling_packed_bytes(n, d)

    def pack(self, rows: np.ndarray) -> "PackedCodebook":
        """rows (N, D), float32 or float16."""
        rows = np.ascontiguousarray(rows)
        size = self.packed_bytes(*rows.shape)
        memory, start = garbage(size)
        codebook = Codebook(
            rows.ctypes.data, *rows.shape, int(rows.dtype == np.float16), start, size
        )
        assert self.library.edgekit_tiling_pack(ctypes.byref(codebook)) == 0
        return PackedCodebook(rows, memory, start, size)

    def lookup(
        self,
        rows: "np.ndarray | PackedCodebook",
        x: np.ndarray,
        metric: str = "dot",
        *,
        processors: int = 8,
        kernel: int = -1,
        want_best: bool = True,
        want_margin: bool = True,
    ) -> Found:
        """rows (N, D) and x (M, D), float32 or float16."""
        packed = rows if isinstance(rows, PackedCodebook) else self.pack(rows)
        rows, x = packed.rows, np.ascontiguousarray(x)
        count = len(x)
        indices = np.full(count, -7, np.int64)
        best = np.full(count, np.nan, np.float32)
        margin = np.full(count, np.nan, np.float32)
        nonfinite = ctypes.c_int32(0)
        size = self.workspace(count, *rows.shape)
        workspace, start = garbage(size)
        request = Request(
            x.ctypes.data, rows.ctypes.data, count, len(rows), rows.shape[1],
            int(x.dtype == np.float16), int(rows.dtype == np.float16),
            ("dot", "l2").index(metric), 0, indices.ctypes.data,
            best.ctypes.data if want_best else None, margin.ctypes.data if want_margin else None,
            ctypes.addressof(nonfinite), start, size, packed.start, packed.size,
        )  # fmt: skip
        report = Report()
        status = self.library.edgekit_tiling_lookup(
            ctypes.byref(request), processors, kernel, ctypes.byref(report)
        )
        assert status == 0
        del workspace  # it had to live until now
        return Found(LookupResult(indices, best, margin), bool(nonfinite.value), report)


class PackedCodebook(NamedTuple):
    rows: np.ndarray
    memory: np.ndarray  # which `start` points into
    start: int
    size: int


def build(folder: Path) -> Tiling:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler: run 'apt-get install g++'")
    library = folder / "libedgekit_tiling.so"
    subprocess.run(
        [compiler, "-std=c++17", "-O2", "-fPIC", "-shared", "-o", library,
         SOURCES / "tiling_host.cpp"],
        check=True,
    )  # fmt: skip
    return Tiling(library)

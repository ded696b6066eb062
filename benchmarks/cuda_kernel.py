"""The CUDA lookup's library, compiled for the GPU at hand and called on torch tensors."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "targets" / "codebook" / "cuda"
DOT, L2 = 0, 1


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


def compile_library(folder: Path) -> Path:
    """Compile the kernels for this GPU."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        sys.exit("no nvcc: install the CUDA toolkit")
    major, minor = torch.cuda.get_device_capability()
    library = folder / "libedgekit_codebook_cuda.so"
    subprocess.run(
        [nvcc, "-std=c++17", "-O3", f"-arch=sm_{major}{minor}", "--ftz=false",
         "--prec-sqrt=true", "-Xcompiler", "-fPIC", "-shared", "-cudart", "static",
         "-o", library, SOURCES / "codebook_cuda.cu"],
        check=True,
    )  # fmt: skip
    return library


class Packed:
    """A codebook and what the library packed of it."""

    def __init__(self, kernel: Kernel, rows: torch.Tensor) -> None:
        self.kernel = kernel
        self.rows = rows
        n, d = rows.shape
        size = kernel.library.edgekit_codebook_cuda_packed_bytes(n, d)
        self.memory = torch.empty(size, dtype=torch.uint8, device="cuda")
        self.codebook = Codebook(
            rows.data_ptr(), n, d, int(rows.dtype == torch.float16), self.memory.data_ptr(), size
        )
        self.pack()

    def pack(self) -> None:
        """Enqueue the packing."""
        self.kernel.demand(
            self.kernel.library.edgekit_codebook_cuda_pack(ctypes.byref(self.codebook), _stream())
        )


class Kernel:
    """The compiled lookup."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library.resolve()))
        self.library.edgekit_codebook_cuda_workspace.restype = ctypes.c_size_t
        self.library.edgekit_codebook_cuda_workspace.argtypes = [ctypes.c_int64] * 3
        self.library.edgekit_codebook_cuda_packed_bytes.restype = ctypes.c_size_t
        self.library.edgekit_codebook_cuda_packed_bytes.argtypes = [ctypes.c_int64] * 2
        self.library.edgekit_codebook_cuda_status_text.restype = ctypes.c_char_p
        self.library.edgekit_codebook_cuda_pack.argtypes = [
            ctypes.POINTER(Codebook), ctypes.c_void_p
        ]  # fmt: skip
        self.library.edgekit_codebook_cuda_lookup.argtypes = [
            ctypes.POINTER(Request), ctypes.c_void_p
        ]  # fmt: skip

    def demand(self, status: int) -> None:
        """Raise what a status other than success says."""
        if status != 0:
            text = self.library.edgekit_codebook_cuda_status_text(status).decode()
            raise RuntimeError(text)

    def prepare(
        self, x: torch.Tensor, packed: Packed, metric: int = DOT, *, margin: bool = True
    ) -> tuple[Callable[[], None], dict[str, torch.Tensor]]:
        """A function that enqueues the lookup on the current stream, and its outputs."""
        m, d = x.shape
        rows = packed.rows
        n = rows.shape[0]
        size = self.library.edgekit_codebook_cuda_workspace(m, n, d)
        out = {
            "indices": torch.full((m,), -1, dtype=torch.int64, device="cuda"),
            "margin": torch.zeros(m, dtype=torch.float32, device="cuda"),
            "nonfinite": torch.zeros(1, dtype=torch.int32, device="cuda"),
            "workspace": torch.empty(max(size, 16), dtype=torch.uint8, device="cuda"),
            "x": x,
        }
        request = Request(
            x.data_ptr(), rows.data_ptr(), m, n, d,
            int(x.dtype == torch.float16), int(rows.dtype == torch.float16), metric, 0,
            out["indices"].data_ptr(), None, out["margin"].data_ptr() if margin else None,
            out["nonfinite"].data_ptr(), out["workspace"].data_ptr(), size,
            packed.memory.data_ptr(), packed.memory.numel(),
        )  # fmt: skip

        def run(_keep: object = (out, packed)) -> None:  # the pointers' memory must stay
            self.demand(self.library.edgekit_codebook_cuda_lookup(ctypes.byref(request), _stream()))

        return run, out


def _stream() -> ctypes.c_void_p:
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)

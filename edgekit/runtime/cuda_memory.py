"""The few CUDA runtime functions needed to run an engine, called through ctypes.

A Jetson has the library with its JetPack; no Python package for CUDA is needed.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgekit.core.errors import EdgekitError, ToolchainMissing

_TO_DEVICE: Final = 1
_TO_HOST: Final = 2
_CAPTURE_THREAD_LOCAL: Final = 1
_NAMES: Final = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")


@functools.cache
def runtime() -> ctypes.CDLL:
    """libcudart, loaded once."""
    for name in (ctypes.util.find_library("cudart"), *_NAMES):
        if name is None:
            continue
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.cudaGetErrorString.restype = ctypes.c_char_p
        return library
    raise ToolchainMissing(
        "no CUDA runtime (libcudart.so) found: on a Jetson run 'sudo apt-get install "
        "nvidia-jetpack', elsewhere 'pip install nvidia-cuda-runtime' and put it on LD_LIBRARY_PATH"
    )


def _check(status: int, what: str) -> None:
    if status != 0:
        text = runtime().cudaGetErrorString(status).decode()
        raise EdgekitError(f"CUDA: {what} failed: {text}")


class Stream:
    """A CUDA stream."""

    def __init__(self) -> None:
        self.handle = ctypes.c_void_p()
        _check(runtime().cudaStreamCreate(ctypes.byref(self.handle)), "creating a stream")

    def wait(self) -> None:
        """Wait until all enqueued work is done."""
        _check(runtime().cudaStreamSynchronize(self.handle), "the inference")

    def close(self) -> None:
        """Free the stream; calling it twice is fine."""
        if self.handle:
            runtime().cudaStreamDestroy(self.handle)
            self.handle = ctypes.c_void_p()


class Buffer:
    """Device memory and the pinned host memory that is copied to or from it."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.nbytes = max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1)
        self.device = ctypes.c_void_p()
        self._host = ctypes.c_void_p()
        size = ctypes.c_size_t(self.nbytes)
        _check(runtime().cudaMalloc(ctypes.byref(self.device), size), "allocating device memory")
        status = runtime().cudaHostAlloc(ctypes.byref(self._host), size, ctypes.c_uint(0))
        _check(status, "allocating pinned memory")
        assert self._host.value is not None
        memory = (ctypes.c_uint8 * self.nbytes).from_address(self._host.value)
        count = int(np.prod(shape))
        self.host: NDArray[Any] = np.frombuffer(memoryview(memory), dtype, count).reshape(shape)

    def upload(self, stream: Stream) -> None:
        """Enqueue the copy to the device."""
        self._copy(self.device, self._host, _TO_DEVICE, stream)

    def download(self, stream: Stream) -> None:
        """Enqueue the copy from the device."""
        self._copy(self._host, self.device, _TO_HOST, stream)

    def _copy(self, to: Any, source: Any, kind: int, stream: Stream) -> None:
        size = ctypes.c_size_t(self.nbytes)
        status = runtime().cudaMemcpyAsync(to, source, size, ctypes.c_int(kind), stream.handle)
        _check(status, "a copy")

    def close(self) -> None:
        """Free both; ``host`` must not be used afterwards."""
        runtime().cudaFree(self.device)
        runtime().cudaFreeHost(self._host)


class Graph:
    """The work that a function enqueues on a stream, recorded so it can be launched as a whole."""

    def __init__(self, stream: Stream, enqueue: Callable[[], None]) -> None:
        library = runtime()
        recorded = ctypes.c_void_p()
        mode = ctypes.c_int(_CAPTURE_THREAD_LOCAL)
        _check(library.cudaStreamBeginCapture(stream.handle, mode), "recording a CUDA graph")
        try:
            enqueue()
        finally:
            status = library.cudaStreamEndCapture(stream.handle, ctypes.byref(recorded))
        _check(status, "recording a CUDA graph")
        self._executable = ctypes.c_void_p()
        status = library.cudaGraphInstantiateWithFlags(
            ctypes.byref(self._executable), recorded, ctypes.c_ulonglong(0)
        )
        library.cudaGraphDestroy(recorded)
        _check(status, "preparing a CUDA graph")

    def launch(self, stream: Stream) -> None:
        """Enqueue it."""
        _check(runtime().cudaGraphLaunch(self._executable, stream.handle), "launching a CUDA graph")

    def close(self) -> None:
        """Free it."""
        runtime().cudaGraphExecDestroy(self._executable)


def gpu_name() -> str:
    """The compute capability of the current GPU, as in ``SM 8.7``."""
    numbers = []
    for attribute in (75, 76):  # major and minor compute capability
        value = ctypes.c_int()
        status = runtime().cudaDeviceGetAttribute(
            ctypes.byref(value), ctypes.c_int(attribute), ctypes.c_int(0)
        )
        _check(status, "looking for a GPU")
        numbers.append(value.value)
    return f"SM {numbers[0]}.{numbers[1]}"

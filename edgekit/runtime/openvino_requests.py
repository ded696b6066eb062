"""Inferences of one compiled OpenVINO model, from as many threads as like.

Every request is made before any is used, takes its input as a tensor, and is waited for with a
limit. OpenVINO's own `infer(images)` is slower by 50 us a call, and with two threads that each
used it on a request of their own, both once stood still for ever inside its copying of inputs.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError
from edgekit.core.threads import WAIT_SECONDS, late

T = TypeVar("T")


class InferRequests:
    """As many requests as the model serves at a time; a call takes one or waits for one."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled  # lives as long as its requests
        self.parallel = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.parallel):
            self._free.put(compiled.create_infer_request())
        # Requests that never finished, with the images they may still read.
        self._stuck: list[tuple[Any, NDArray[Any]]] = []

    def infer(self, images: NDArray[Any], read: Callable[[Any], T]) -> T:
        """Run the model's only input through it; ``read`` copies what it needs of the request."""
        images = np.ascontiguousarray(images)
        with self._request() as request:
            try:
                request.set_input_tensor(ov.Tensor(images, shared_memory=True))
                request.start_async()
                if not request.wait_for(round(1e3 * WAIT_SECONDS)):
                    self._stuck.append((request, images))
                    raise late("OpenVINO: an inference")
            except RuntimeError as error:
                raise EdgekitError(f"OpenVINO: inference failed: {reason(error)}") from error
            return read(request)

    @contextlib.contextmanager
    def _request(self) -> Iterator[Any]:
        try:
            request = self._free.get(timeout=WAIT_SECONDS)
        except queue.Empty as error:
            raise late(f"OpenVINO: one of {self.parallel} free infer requests") from error
        try:
            yield request
        finally:
            if not any(request is one for one, _ in self._stuck):
                self._free.put(request)


def reason(error: RuntimeError) -> str:
    """OpenVINO's message, without its source positions, on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    relevant = [
        line for line in lines if line and not line.startswith(("Exception from", "Check '"))
    ]
    return " ".join(relevant or lines)

"""The self-test that a bundle carries: stored images, and the answers that they are to get.

``selftest.npz`` is written where the bundle is built; `edgekit.runtime.selftest` runs it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError
from edgekit.core.files import write_bytes

SELFTEST: Final = "selftest.npz"
# Two implementations of the same INT8 graph round differently here and there; a wrong graph
# differs by about 1.
_LOGITS_TOLERANCE: Final = 0.1


@dataclass(frozen=True)
class SelfTestReport:
    """How the device's answers compare with the host's."""

    images: int
    logits_error: float  # largest difference over the largest magnitude
    top1_equal: int
    codes: int
    codes_equal: int

    @property
    def passed(self) -> bool:
        """Whether engine and host compute the same up to the rounding of INT8."""
        return self.logits_error <= _LOGITS_TOLERANCE

    def describe(self) -> str:
        """One line for the user."""
        text = (
            f"self-test of {self.images} images: logits differ by {self.logits_error:.2%} of "
            f"their largest, top-1 equal in {self.top1_equal}"
        )
        return text + (f", {self.codes_equal} of {self.codes} codes equal" if self.codes else "")


def write_self_test(
    path: Path, images: NDArray[np.uint8], outputs: dict[str, NDArray[np.generic]]
) -> None:
    """Store ``images`` [M, height, width, 3] and the outputs that the device is to give."""
    write_bytes(path, self_test_file(images, outputs))


def self_test_file(images: NDArray[np.uint8], outputs: dict[str, NDArray[Any]]) -> bytes:
    """The content of ``selftest.npz``; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"images": images, **outputs}
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def compare_answers(
    expected: dict[str, NDArray[np.generic]],
    logits: NDArray[np.float32],
    code: NDArray[np.int64] | None,
) -> SelfTestReport:
    """The device's answers against the stored ones."""
    wanted = expected["logits"].astype(np.float64)
    if wanted.shape != logits.shape:
        raise EdgekitError(f"the engine gives logits {logits.shape}, expected {wanted.shape}")
    scale = max(float(np.abs(wanted).max()), 1e-30)
    difference = np.abs(logits - wanted)
    error = float(difference.max()) / scale if np.isfinite(difference).all() else float("inf")
    codes = expected.get("code")
    return SelfTestReport(
        images=len(wanted),
        logits_error=error,
        top1_equal=int((wanted.argmax(axis=1) == logits.argmax(axis=1)).sum()),
        codes=0 if codes is None else codes.size,
        codes_equal=0 if codes is None or code is None else int((codes == code).sum()),
    )

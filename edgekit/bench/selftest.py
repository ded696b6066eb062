"""Does the bundle compute what it should? Asked before anything is timed.

The same pictures go through it twice: answers must be finite and equal. A bundle with a
selftest.npz also has to agree with the answers that the machine which built it stored there: its
own answers, or where it could not run the bundle (TensorRT) those of ONNX Runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from edgekit.bundle import Bundle
from edgekit.errors import EdgekitError
from edgekit.jetson import SELFTEST, compare, self_test_file
from edgekit.pictures import pictures
from edgekit.runtime import Model, load

_IMAGES: Final = 8
_STORED_IMAGES: Final = 4


def stored_answers(path: Path) -> bytes:
    """The selftest.npz of a bundle that runs here."""
    model = load(path)
    images = pictures(_STORED_IMAGES, model.size, fine=False)
    raw = model.run(images)
    outputs = {"logits": raw.logits, "code": raw.code, "margin": raw.margin}
    return self_test_file(images, {k: v for k, v in outputs.items() if v is not None})


def self_test(model: Model, bundle: Bundle) -> dict[str, Any]:
    """What was found, for the document; a bundle that fails is not worth timing and is refused."""
    name = bundle.path
    images = pictures(_IMAGES, model.size)
    first, second = model.run(images), model.run(images)
    if not np.isfinite(first.logits).all():
        raise EdgekitError(f"{name} fails its self-test: it gives logits that are not finite")
    equal_codes = True
    if first.code is not None and second.code is not None:
        equal_codes = bool(np.array_equal(first.code, second.code))
    spread = float(np.abs(first.logits - second.logits).max())
    scale = max(float(np.abs(first.logits).max()), 1e-30)
    if not equal_codes or spread > 1e-3 * scale:
        raise EdgekitError(
            f"{name} fails its self-test: the same {_IMAGES} images gave different answers twice "
            f"(logits differ by {spread / scale:.1%} of their largest)"
        )
    found: dict[str, Any] = {
        "images": _IMAGES,
        "repeatable": spread == 0.0,
        "spread": spread / scale,
        "stored": None,
    }
    if SELFTEST not in bundle.manifest.files:
        return found
    with np.load(bundle.folder / SELFTEST, allow_pickle=False) as stored:
        expected = {part: stored[part] for part in stored.files}
    raw = model.run(expected.pop("images").astype(np.uint8))
    report = compare(expected, raw.logits, raw.code)
    if not report.passed:
        raise EdgekitError(f"{name} fails its self-test against {SELFTEST}: {report.describe()}")
    found["stored"] = {
        "images": report.images,
        "logits_error": report.logits_error,
        "top1_equal": report.top1_equal,
        "codes": report.codes,
        "codes_equal": report.codes_equal,
    }
    return found

"""Does a bundle compute what it should, on this machine?

`compare_stored` compares with the answers that the bundle carries; `check_answers` is asked
before anything is timed; ``python -m edgekit.runtime.selftest BUNDLE`` is what a deploy runs on
the device. A bundle with stored answers must give them again. Any other must load, and answer
fixed images with finite logits and codes that exist.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgekit.bundle.selftest import SELFTEST, SelfTestReport, compare_answers, self_test_file
from edgekit.bundle.store import Bundle, open_bundle
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.data.synthetic import pictures
from edgekit.runtime.model import Model, load
from edgekit.runtime.runner import open_runner, run_settings

_REPEATED: Final = 8
_STORED_IMAGES: Final = 4
_FIXED_IMAGES: Final = 4


def compare_stored(bundle: Bundle) -> SelfTestReport:
    """Run the stored images on this device and compare with the stored answers."""
    if SELFTEST not in bundle.manifest.files:
        raise UsageError(f"{bundle.path} has no {SELFTEST}: build it again")
    with np.load(bundle.folder / SELFTEST, allow_pickle=False) as stored:
        expected = {name: stored[name] for name in stored.files}
    runner = open_runner(bundle, run_settings(bundle.manifest.target), None)
    raw = runner.run(expected.pop("images"))
    return compare_answers(expected, raw.logits, raw.code)


def stored_answers(path: Path) -> bytes:
    """The selftest.npz of a bundle that runs here."""
    model = load(path)
    images = pictures(_STORED_IMAGES, model.size, fine=False)
    return self_test_file(images, model.run(images).arrays())


def check_answers(model: Model, bundle: Bundle) -> dict[str, Any]:
    """What was found, for the document; a bundle that fails is not worth timing and is refused."""
    name = bundle.path
    images = pictures(_REPEATED, model.size)
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
            f"{name} fails its self-test: the same {_REPEATED} images gave different answers twice "
            f"(logits differ by {spread / scale:.1%} of their largest)"
        )
    found: dict[str, Any] = {
        "images": _REPEATED,
        "repeatable": spread == 0.0,
        "spread": spread / scale,
        "stored": None,
    }
    if SELFTEST not in bundle.manifest.files:
        return found
    with np.load(bundle.folder / SELFTEST, allow_pickle=False) as stored:
        expected = {part: stored[part] for part in stored.files}
    raw = model.run(expected.pop("images").astype(np.uint8))
    report = compare_answers(expected, raw.logits, raw.code)
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


def self_test(path: Path) -> str:
    """Test the bundle; what was found, in one line."""
    bundle = open_bundle(path)
    if SELFTEST in bundle.manifest.files:
        report = compare_stored(bundle)
        if not report.passed:
            raise EdgekitError(
                f"{report.describe()}: the model does not compute here what it did where it was "
                "built; build it again for this device"
            )
        return report.describe()
    model = load(path)
    images = np.random.default_rng(0).integers(0, 256, (_FIXED_IMAGES, *model.size, 3), np.uint8)
    raw = model.run(images)
    if not np.isfinite(raw.logits).all():
        raise EdgekitError(f"{path}: the model's answers are not numbers")
    text = f"self-test: {_FIXED_IMAGES} fixed images answered by {model.describe()['runtime']}"
    vqsa = model.manifest.model.get("vqsa", {})
    if raw.code is None:
        return text
    size = int(vqsa.get("codebook_size", 0))
    if raw.code.min() < 0 or (size and raw.code.max() >= size):
        raise EdgekitError(f"{path}: the model chose codes that are not in its codebook")
    return f"{text}, codes within the codebook"


def main(arguments: list[str]) -> int:
    """Test one bundle; the exit code."""
    try:
        if len(arguments) != 1:
            raise UsageError("usage: python -m edgekit.runtime.selftest BUNDLE")
        print(self_test(Path(arguments[0])))
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

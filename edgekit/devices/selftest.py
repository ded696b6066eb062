"""``python -m edgekit.devices.selftest BUNDLE``, on the device: does the bundle work here?

A bundle with stored answers must give them again. Any other must load, and answer fixed images
with finite logits and codes that exist. One line says what was found.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgekit.bundle import open_bundle
from edgekit.errors import EdgekitError, UsageError

_IMAGES = 4


def self_test(path: Path) -> str:
    """Test the bundle; what was found, in one line."""
    from edgekit import jetson
    from edgekit.runtime import load

    bundle = open_bundle(path)
    if jetson.SELFTEST in bundle.manifest.files:
        report = jetson.self_test(bundle)
        if not report.passed:
            raise EdgekitError(
                f"{report.describe()}: the model does not compute here what it did where it was "
                "built; build it again for this device"
            )
        return report.describe()
    model = load(path)
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, *model.size, 3), np.uint8)
    raw = model.run(images)
    if not np.isfinite(raw.logits).all():
        raise EdgekitError(f"{path}: the model's answers are not numbers")
    text = f"self-test: {_IMAGES} fixed images answered by {model.describe()['runtime']}"
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
            raise UsageError("usage: python -m edgekit.devices.selftest BUNDLE")
        print(self_test(Path(arguments[0])))
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

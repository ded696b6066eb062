"""Every computation that decides pixels, for two machines: ``python -m tests.arm.pixels``.

Needs numpy, Pillow, OpenCV and SciPy; it imports nothing else, so that an aarch64 workstation in
the emulator can run it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from edgekit.data.corruptions import ALL19, corrupt
from edgekit.data.decode import decode_file
from edgekit.data.synthetic import pictures
from edgekit.data.transforms import Interpolation, Preprocessing

SIZES = (224, 32)  # with parameter tables of their own
SEVERITIES = (1, 2, 3, 4, 5)


def results(files: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Each result with what made it; ``files`` are JPEGs of the same bytes on both machines."""
    for file in sorted(files.glob("*.jpg")):
        decoded = decode_file(file)
        yield f"decode/{file.stem}", decoded
        for kind in get_args(Interpolation):
            preprocessing = Preprocessing(size=(96, 128), interpolation=kind)
            yield f"resize/{kind}/{file.stem}", preprocessing.fit(decoded)
    for size in SIZES:
        (image,) = pictures(1, (size, size), seed=size)
        for name in ALL19:
            for severity in SEVERITIES:
                made = corrupt(image, name, severity, image_id="one")
                yield f"corrupt/{name}/{size}/{severity}", made


if __name__ == "__main__":
    np.savez(sys.argv[2], **dict(results(Path(sys.argv[1]))))  # type: ignore[arg-type] # its stub

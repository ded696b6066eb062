"""Makes the image set that ships with edgekit from the original Fashion-MNIST files.

    apt-get install dataset-fashion-mnist
    python tools/pack_fashion_mnist.py /usr/share/datasets/fashion-mnist

8,000 of the 70,000 images are kept: per class 500 for training, 50 for validation and 50 for
calibration out of the official training file, and 200 for testing out of the official test
file. Images are drawn in the order of a hash of their pixels, so the draw depends on nothing
but the data, and no two kept images are equal. The same input gives the same bytes out.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import lzma
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import UsageError
from edgekit.core.files import write_bytes
from edgekit.data.builtin import CLASSES, FILE, SPLITS, Packed, pack

PER_CLASS = {"train": 500, "validation": 50, "calibration": 50, "test": 200}
SALT = b"edgekit fashion-mnist 1"


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes, the format of MNIST."""
    try:
        data = gzip.decompress(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if data[:3] != b"\0\0\x08":
        raise UsageError(f"{path} is not an IDX file of unsigned bytes")
    dimensions = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(dimensions.tolist())


def draw(images: NDArray[np.uint8], labels: NDArray[np.uint8], seen: set[bytes]) -> list[list[int]]:
    """Per class, the indices of the images nobody has ``seen``, in the order of their hash."""
    per_class: list[list[tuple[bytes, int]]] = [[] for _ in CLASSES]
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        digest = hashlib.sha256(SALT + image.tobytes()).digest()
        if digest not in seen:
            seen.add(digest)
            per_class[label].append((digest, index))
    return [[index for _, index in sorted(entries)] for entries in per_class]


def choose(source: Path) -> Packed:
    """Draw the images of every split and arrange them so that equal-looking ones are close."""
    seen: set[bytes] = set()
    pixels, labels, splits, origins = [], [], [], []
    for prefix, names in (("t10k", ("test",)), ("train", ("train", "validation", "calibration"))):
        images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
        targets = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
        for label, order in enumerate(draw(images, targets, seen)):
            start = 0
            for name in names:
                kept = order[start : start + PER_CLASS[name]]
                start += len(kept)
                pixels.append(images[kept])
                labels.append(np.full(len(kept), label, np.uint8))
                splits.append(np.full(len(kept), SPLITS.index(name), np.uint8))
                origins.append(np.array(kept, np.uint16))
    packed = Packed(*map(np.concatenate, (pixels, labels, splits, origins)))
    # Similar images side by side compress best: by class, then by brightness.
    brightness = packed.pixels.reshape(len(packed.pixels), -1).sum(axis=1, dtype=np.int64)
    order = np.lexsort((packed.origins, packed.splits, brightness, packed.labels))
    return packed.take(order)


def main() -> None:
    """Write the packed file and say what is in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with the four *-ubyte.gz files")
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args()
    data = lzma.compress(
        pack(choose(options.source)),
        format=lzma.FORMAT_XZ,
        check=lzma.CHECK_SHA256,
        # lc=4, pb=0: single-byte samples whose upper bits predict the next sample best.
        filters=[
            {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}
        ],
    )
    write_bytes(options.out, data)
    print(f"{options.out}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()

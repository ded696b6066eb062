"""The image set that ships with edgekit: 8,000 Fashion-MNIST images with fixed splits.

With it, a new installation without a network can train, quantize and measure something real.
`tools/pack_fashion_mnist.py` made the file; its license is beside it.

The file is xz (whose SHA-256 check guards every byte) around one JSON line and four arrays:
pixels [N, 28, 28], labels [N], splits [N] (an index into `SPLITS`), all uint8, and origins [N],
little-endian uint16: each image's place in the official training or test file.
"""

from __future__ import annotations

import functools
import json
import lzma
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError
from edgekit.data.base import IndexArray, array_digest

FILE = Path(__file__).with_name("fashion-mnist.xz")
CLASSES = (
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
SPLITS = ("train", "validation", "calibration", "test")
NAMES = ("fashion-mnist",)
_SIDE = 28


class Packed(NamedTuple):
    """The arrays of the file, in the file's order (chosen for compression)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    splits: NDArray[np.uint8]
    origins: NDArray[np.uint16]

    def take(self, order: IndexArray) -> Packed:
        """The images ``order``, in that order."""
        return Packed(
            self.pixels[order], self.labels[order], self.splits[order], self.origins[order]
        )


class FashionMnist:
    """`builtin:fashion-mnist` as a dataset; the first images of each split cycle the classes."""

    def __init__(self, packed: Packed) -> None:
        # Round-robin over the classes within each split: any prefix is balanced.
        rank = np.zeros(len(packed.labels), np.int64)
        for split in range(len(SPLITS)):
            for label in range(len(CLASSES)):
                members = np.flatnonzero((packed.splits == split) & (packed.labels == label))
                rank[members[np.argsort(packed.origins[members])]] = np.arange(len(members))
        order = np.lexsort((packed.labels, rank, packed.splits))
        self._packed = packed.take(order)

    @property
    def name(self) -> str:
        """The name `open_dataset` knows it by."""
        return "builtin:fashion-mnist"

    @property
    def classes(self) -> tuple[str, ...]:
        """The ten articles of clothing."""
        return CLASSES

    @property
    def given_splits(self) -> Mapping[str, IndexArray]:
        """5,000 images for training, 500 each for validation and calibration, 2,000 to test."""
        return {
            name: np.flatnonzero(self._packed.splits == number)
            for number, name in enumerate(SPLITS)
        }

    def __len__(self) -> int:
        return len(self._packed.labels)

    def label(self, i: int) -> int:
        """The class of image ``i``."""
        return int(self._packed.labels[i])

    def key(self, i: int) -> str:
        """``official-train/01234`` or ``official-test/01234``: its place in the original set."""
        file = "test" if SPLITS[self._packed.splits[i]] == "test" else "train"
        return f"official-{file}/{self._packed.origins[i]:05d}"

    def digest(self, i: int) -> str:
        """A hash of the gray image."""
        return array_digest(self._packed.pixels[i])

    def image(self, i: int) -> NDArray[np.uint8]:
        """Image ``i`` as RGB [28, 28, 3]: the gray channel three times."""
        return np.repeat(self._packed.pixels[i][:, :, None], 3, axis=2)


def pack(packed: Packed) -> bytes:
    """The file's content before compression."""
    header = {
        "format": 1,
        "name": "fashion-mnist",
        "license": "MIT, Copyright 2017 Zalando SE",
        "count": len(packed.labels),
        "side": _SIDE,
        "classes": CLASSES,
        "splits": SPLITS,
    }
    arrays = (packed.pixels, packed.labels, packed.splits, packed.origins.astype("<u2"))
    line = json.dumps(header).encode("ascii") + b"\n"
    return line + b"".join(array.tobytes() for array in arrays)


def unpack(data: bytes) -> Packed:
    """The inverse of `pack`."""
    line, _, body = data.partition(b"\n")
    count = int(json.loads(line)["count"])
    image = _SIDE * _SIDE
    if len(body) != count * (image + 4):
        raise EdgekitError(f"{FILE} is damaged: reinstall edgekit")
    pixels = np.frombuffer(body, np.uint8, count * image).reshape(count, _SIDE, _SIDE)
    labels = np.frombuffer(body, np.uint8, count, offset=count * image)
    splits = np.frombuffer(body, np.uint8, count, offset=count * (image + 1))
    origins = np.frombuffer(body, "<u2", count, offset=count * (image + 2))
    return Packed(pixels, labels, splits, origins.astype(np.uint16))


@functools.cache
def open_fashion_mnist() -> FashionMnist:
    """Unpack the set (0.2 s the first time, nothing after that)."""
    try:
        return FashionMnist(unpack(lzma.decompress(FILE.read_bytes())))
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise EdgekitError(f"{FILE} is missing or damaged ({error}): reinstall edgekit") from error

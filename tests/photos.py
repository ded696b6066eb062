"""Image files of several kinds, and some that are none."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests import bundles


def write_photos(folder: Path) -> Path:
    """Images of several sizes and formats, and three files that are none."""
    for number, size in enumerate([(32, 24), (100, 40), (31, 90), (64, 48), (7, 5)]):
        pixels = np.asarray(Image.fromarray(bundles.images(9)[number]).resize(size))
        suffix = ("png", "bmp", "tiff", "webp", "png")[number]
        Image.fromarray(pixels).save(folder / f"{number}.{suffix}", lossless=True)
    (folder / "bad.jpg").write_bytes(b"no image at all")
    cut = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(cut[: len(cut) // 2])
    return folder

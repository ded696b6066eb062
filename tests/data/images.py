"""Small image files for tests."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def color(seed: int) -> np.ndarray:
    return np.full((6, 8, 3), (seed * 40 % 256, seed * 7 % 256, 5), np.uint8)


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(color(seed)).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(seed))

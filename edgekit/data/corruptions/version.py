"""Which code and libraries corrupt images: caches depend on it."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np


@lru_cache(maxsize=1)
def code_version() -> bytes:
    """Digest of all that turns an image into its corrupted copy: our code and the libraries."""
    import cv2
    import PIL

    sources = sorted(Path(__file__).parent.glob("*.py"))
    versions = f"{np.__version__} {cv2.__version__} {PIL.__version__}".encode()
    return digest_of_parts(versions, *(path.read_bytes() for path in sources))


def digest_of_parts(*parts: bytes) -> bytes:
    """blake2b over the parts, each with its length, so that no two lists run together."""
    state = blake2b(digest_size=32)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()

"""What Python and NumPy raise for archives and arrays that are damaged."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from typing import Final

DAMAGE: Final = (
    *(OSError, ValueError, EOFError, RuntimeError, OverflowError, TypeError, MemoryError),
    *(KeyError, IndexError, SyntaxError, struct.error, zlib.error, lzma.LZMAError),
    *(zipfile.BadZipFile, tokenize.TokenError),
)
"""Of .zip and .npy files; NotImplementedError is a RuntimeError."""
METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How members of a .zip may be packed: lzma and bz2 take as much memory as the file says."""

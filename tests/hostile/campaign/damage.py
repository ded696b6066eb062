"""Damage to bytes that knows no format."""

from __future__ import annotations

import random

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def damage(data: bytes, draw: random.Random, times: int | None = None) -> bytes:
    """``data`` flipped, cut, spliced, repeated: once or a few times."""
    for _ in range(times or draw.choice((1, 1, 1, 2, 4, 16))):
        data = _once(bytearray(data or b"\0"), draw)
    return data


def _once(data: bytearray, draw: random.Random) -> bytes:
    # Headers are where sizes stand: half of the damage is done near the beginning or the end.
    size = len(data)
    at = draw.choice((draw.randrange(size), draw.randrange(min(size, 64)), -1))
    at = size - 1 - draw.randrange(min(size, 64)) if at < 0 else at
    length = min(size - at, draw.choice((1, 2, 4, 8, 64, 1000)))
    match draw.randrange(8):
        case 0:
            data[at] ^= 1 << draw.randrange(8)
        case 1:
            data[at : at + length] = draw.randbytes(length)
        case 2:
            width = draw.choice((1, 2, 4, 8))
            number = draw.choice(_NUMBERS) & ((1 << 8 * width) - 1)
            data[at : at + width] = number.to_bytes(width, draw.choice(("little", "big")))
        case 3:
            del data[at:]
        case 4:
            del data[at : at + length]
        case 5:
            data[at:at] = data[at : at + length] * draw.choice((1, 2, 100))
        case 6:
            other = draw.randrange(size)
            data[at:at] = data[other : other + length]
        case 7:
            data += draw.randbytes(length)
    return bytes(data)

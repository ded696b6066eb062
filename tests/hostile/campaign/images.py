"""Photos that are damaged, or lie about their size."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

from tests.hostile.campaign import seeds
from tests.hostile.campaign.damage import damage
from tests.hostile.campaign.forked import Forked


def _png(draw: random.Random) -> bytes:
    """Chunks with right checksums and any content: a decoder that checks those goes on."""
    header = struct.pack(
        ">IIBBBBB", draw.choice((0, 1, 24, 70_000, 1 << 31, 0xFFFFFFFF)),
        draw.choice((0, 1, 24, 70_000, 178_000_000)), draw.choice((1, 2, 8, 16, 3)),
        draw.choice((0, 2, 3, 4, 6, 9)), draw.choice((0, 0, 1)), 0, draw.choice((0, 1, 7)),
    )  # fmt: skip
    packed = zlib.compress(bytes(draw.choice((0, 100, 5000, 1 << 22))))
    text = b"key\0" + draw.choice((b"", b"\0")) + zlib.compress(bytes(draw.choice((9, 1 << 24))))
    chunks = [(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]
    for _ in range(draw.randrange(4)):
        name = draw.choice((b"PLTE", b"tRNS", b"zTXt", b"iCCP", b"iTXt", b"eXIf", b"acTL", b"fcTL"))
        body = draw.choice((b"", text, draw.randbytes(9), draw.randbytes(768)))
        chunks.insert(draw.randrange(len(chunks) + 1), (name, body))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return data if draw.randrange(3) else damage(data, draw)


def _predict(draw: random.Random, work: Path) -> list[str | Path]:
    kinds = seeds.images()
    for number in range(8):
        kind = draw.choice(sorted(kinds))
        data = _png(draw) if draw.randrange(4) == 0 else damage(kinds[kind], draw)
        (work / f"{number}.{kind}").write_bytes(data)
    bundle = seeds.give_bundle("onnxruntime-cpu", work)
    return ["predict", bundle, work, *draw.choice(([], ["--json"]))]


# All images bad is a step that failed.
HAZARDS = (Forked("images: predict", _predict, codes=(1, 2)),)

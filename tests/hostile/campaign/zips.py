"""Archives that lie: about sizes, places, names, kinds and checksums."""

from __future__ import annotations

import contextlib
import io
import random
import stat
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.hostile.campaign import seeds
from tests.hostile.campaign.damage import damage
from tests.hostile.campaign.forked import Forked

NAMES = (
    *("../stray", "/tmp/stray", "a/b", "..", ".", "", "a\\b", "C:\\x", "model.onnx/", "\x1b[2J"),
    *("x" * 300, "manifest.json", "\ud7ff", "a\x00b", "libx.so", "bundle/manifest.json"),
)
_LIES = (0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


def spoil_zip(members: Mapping[str, bytes], draw: random.Random) -> bytes:
    """A .zip of them, in which something is not as it is said to be."""
    stream = io.BytesIO()
    method = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED,
                          zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))  # fmt: skip
    with zipfile.ZipFile(stream, "w", method) as target:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            target.writestr(info, data)
        for _ in range(draw.choice((0, 0, 1, 2))):
            _extra(target, draw)
    data = bytearray(stream.getvalue())
    for _ in range(draw.choice((0, 1, 1, 2))):
        _lie(data, draw)
    match draw.randrange(10):
        case 0:
            return bytes(data) + draw.randbytes(draw.choice((1, 100, 70_000)))
        case 1:
            return draw.choice((b"#!/bin/sh\n", b"\x00" * 1000, bytes(data))) + bytes(data)
        case 2 | 3:
            return damage(bytes(data), draw)
    return bytes(data)


def _extra(target: zipfile.ZipFile, draw: random.Random) -> None:
    info = zipfile.ZipInfo("x")
    info.filename = draw.choice(NAMES)
    kinds = (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK)
    info.external_attr = (draw.choice(kinds) | 0o777) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    data = draw.choice((b"", b"/etc/passwd", bytes(1000), bytes(1 << 24)))
    with contextlib.suppress(UnicodeEncodeError, ValueError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is in it twice
        target.writestr(info, data)


def _lie(data: bytearray, draw: random.Random) -> None:
    """In one field of the directory, of a local header or of the end."""
    marks = {
        b"PK\x01\x02": (8, 10, 16, 20, 24, 28, 30, 32, 36, 38, 42),
        b"PK\x03\x04": (6, 8, 14, 18, 22, 26, 28),
        b"PK\x05\x06": (4, 8, 10, 12, 16, 20),
    }
    mark = draw.choice(list(marks))
    at = []
    start = data.find(mark)
    while start >= 0:
        at.append(start)
        start = data.find(mark, start + 4)
    if not at:
        return
    place = draw.choice(at) + draw.choice(marks[mark])
    if draw.randrange(3) == 0 and mark == b"PK\x01\x02" and len(at) > 1:
        # Two entries of the directory that lead to one place: they overlap.
        one, other = draw.sample(at, 2)
        data[one + 42 : one + 46] = data[other + 42 : other + 46]
        return
    value = draw.choice(_LIES)
    width = draw.choice((2, 4))
    data[place : place + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")


def members_of(data: bytes) -> dict[str, bytes]:
    """The content of a good .zip."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        return {name: source.read(name) for name in source.namelist()}


def spoil_members(data: bytes, draw: random.Random) -> bytes:
    """The .npz with an array damaged, lying, missing or doubled, in an archive that is right."""
    members = members_of(data)
    if draw.randrange(4) == 0:
        return spoil_zip(members, draw)
    for _ in range(draw.choice((1, 1, 2))):
        name = draw.choice(list(members))
        match draw.randrange(6):
            case 0:
                del members[name]
            case 1:
                members[name] = damage(members[name], draw)
            case 2:
                members[draw.choice((name[:-4], "x.npy", "labels.npy", *NAMES[:4]))] = members[name]
            case _:
                members[name] = _header(members[name], draw)
        if not members:
            break
    return spoil_zip(members, draw) if draw.randrange(6) == 0 else _plain(members)


def _plain(members: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return stream.getvalue()


def _header(array: bytes, draw: random.Random) -> bytes:
    """An .npy whose header says another type, shape, order or version."""
    body = array[10 + struct.unpack("<H", array[8:10])[0] :]
    kind = draw.choice(("|u1", "<f4", "<f8", "<i8", "|O", "<U9", "|S3", "<c16", "|b1", ">i4", "<M8",
                        "|V0", "<U0", "[('a','<i4')]", "x", "<f" + "9" * 50))  # fmt: skip
    shapes = ("()", "(0,)", "(1,)", "(2, 24, 32, 3)", "(-1,)", "(1 << 40,)", "(99999999999, 9)",
              "(9" + "9" * 30 + ",)", "(1.5,)", "None", "(" * 90 + ")" * 90, "(True, 3)",
              "(0, 9999999999999)", "(8,)", "(8, 7)", "(1, 1, 1, 1, 1, 1)")  # fmt: skip
    item = kind if kind.startswith("[") else repr(kind)
    order = draw.choice(("False", "True", "'C'", "None"))
    text = f"{{'descr': {item}, 'fortran_order': {order}, 'shape': {draw.choice(shapes)}, }}"
    if draw.randrange(6) == 0:
        text = draw.choice(("", "{}", "[" * 500, "__import__('os')", "{'descr': ", "9" * 9000))
    count = draw.choice((0, len(body), len(body) // 2, 1 << 22))
    size = draw.choice((len(text), len(text), len(text), 0, 65535))
    version = draw.choice((1, 1, 1, 2, 3, 9))
    length = struct.pack("<H" if version == 1 else "<I", size)
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode() + (body * 9)[:count]


def _bundle(draw: random.Random, work: Path) -> list[str | Path]:
    (work / "unpacked").mkdir()
    bundle = seeds.give_bundle(draw.choice(seeds.BACKENDS), work / "unpacked")
    document: dict[str, Any] = seeds.manifest(bundle)
    if draw.randrange(8) == 0:  # listed as it is, and far larger than the archive
        seeds.put(
            bundle, document, {"report.html": bytes(draw.choice((1 << 20, 1 << 20, 100 << 20)))}
        )
    members = {path.name: path.read_bytes() for path in bundle.iterdir()}
    path = work / "bundle.zip"
    path.write_bytes(spoil_zip(members, draw))
    (work / "photo.png").write_bytes(seeds.images()["png"])
    return draw.choice(
        (
            ["inspect", path],
            ["inspect", path, "--json"],
            ["predict", path, work / "photo.png"],
            ["report", path, "-o", work / "out.html"],
            ["verify", path, "--signers", seeds.keys() / "signers"],
        )
    )


def _load(draw: random.Random, work: Path) -> list[str | Path]:
    return [_bundle(draw, work)[1]]


HAZARDS = (
    Forked("archives: commands", _bundle, writes=("out.html",)),
    Forked("archives: load", _load, function="tests.hostile.campaign.calls:load"),
)

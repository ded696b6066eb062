"""Data: arrays, lists and folders of images that are not as they should be."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from tests.hostile.campaign import seeds
from tests.hostile.campaign.damage import damage
from tests.hostile.campaign.forked import Forked
from tests.hostile.campaign.structure import NUMBERS, TEXTS, as_json, spoil
from tests.hostile.campaign.zips import spoil_members

Words = list[str | Path]
_CALLS = "tests.hostile.campaign.calls"
_BAD_NAMES = (
    *(b"\xff\xfe.png", b"\x1b[2J.png", b"a\nb.png", b"..png", b"-rf.png", b"%s.png", b" .png"),
    *("\u202egnp.exe.png".encode(), b"x" * 250 + b".png", b".hidden.png", b"a.PNG"),
)


def _photos(work: Path) -> list[str]:
    kinds = seeds.images()
    for name, data in kinds.items():
        (work / f"a.{name}").write_bytes(data)
    return [f"a.{name}" for name in kinds]


def _npz(draw: random.Random, work: Path) -> Path:
    path = work / "data.npz"
    path.write_bytes(spoil_members(seeds.npz(packed=bool(draw.randrange(2))), draw))
    return path


def _list(draw: random.Random, work: Path) -> Path:
    names = _photos(work)
    (work / "folder").mkdir()
    os.mkfifo(work / "pipe")
    places = (*names, "pipe", "folder", "/dev/zero", "/dev/null", "/proc/self/mem", "../x", "nope")
    rows: list[dict[str, Any]] = [
        {"path": draw.choice(places if draw.randrange(4) == 0 else names), "label": f"kind {i % 3}"}
        for i in range(12)
    ]
    if draw.randrange(2):
        path = work / "list.jsonl"
        lines = [json.dumps(row).encode() for row in rows]
        for _ in range(draw.choice((0, 1, 2))):
            at = draw.randrange(len(lines))
            lines[at] = as_json(spoil(rows[at], draw), draw)
        data = b"\n".join(lines)
    else:
        path = work / "list.csv"
        head = draw.choice(("path,label\n", "", "label,path\n", "path\n", "path,label,split\n"))
        text = head + "".join(f"{row['path']},{row['label']}\n" for row in rows)
        for _ in range(draw.choice((0, 1, 2))):
            value = str(draw.choice((*TEXTS, *NUMBERS, '"', '""', '"' * 7, "," * 5000, "\r")))
            lines_of = text.splitlines()
            at = draw.randrange(len(lines_of))
            lines_of[at] = draw.choice((value, f"{value},{value}", lines_of[at] + value))
            text = "\n".join(lines_of)
        data = text.encode("utf-8", "surrogatepass")
    path.write_bytes(damage(data, draw) if draw.randrange(4) == 0 else data)
    return path


def _folder(draw: random.Random, work: Path) -> Path:
    top = work / "photos"
    splits = draw.choice(((".",), ("train", "val"), ("train", "test", "x"), ("train", "Train")))
    kinds = seeds.images()
    for split in splits:
        for label in ("cat", draw.choice(("dog", "\x1b[2J", "a\nb", "train", "CAT", "\u202ex"))):
            folder = top / split / label
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(draw.randrange(4)):
                kind = draw.choice(list(kinds))
                data = kinds[kind] if draw.randrange(3) else damage(kinds[kind], draw)
                (folder / f"{number}.{kind}").write_bytes(data)
            _odd_entry(draw, folder, kinds["png"])
    return top


def _odd_entry(draw: random.Random, folder: Path, data: bytes) -> None:
    match draw.randrange(8):
        case 0:
            Path(os.fsdecode(os.fsencode(folder) + b"/" + draw.choice(_BAD_NAMES))).write_bytes(
                data
            )
        case 1:
            os.mkfifo(folder / "pipe.png")
        case 2:
            target = draw.choice((".", "..", "/dev/zero", "loop.png", "/etc/passwd", "/proc"))
            (folder / "loop.png").symlink_to(target)
        case 3:
            (folder / "folder.png").mkdir()
        case 4:
            (folder / "empty.png").touch()


_MAKERS = (_npz, _npz, _list, _list, _folder)


def _read(draw: random.Random, work: Path) -> Words:
    return [draw.choice(_MAKERS)(draw, work)]


def _command(draw: random.Random, work: Path) -> Words:
    """What a command does with data before it comes to its work; that is refused for sure."""
    data = draw.choice(_MAKERS)(draw, work)
    checkpoint = work / "best.safetensors"
    checkpoint.write_bytes(seeds.checkpoint())
    if draw.randrange(3):
        out: Words = ["--out", work / "out"]
        return ["build", "--dry-run", "--checkpoint", checkpoint, "--data", data, *out]
    weights = work / "nope.pth"
    return ["train", "--data", data, "--out", work / "run", "--weights", weights, "--epochs", "1"]


def _labels(draw: random.Random, work: Path) -> Words:
    path = work / "labels.txt"
    lines = [f"kind {i}" for i in range(7)]
    lines[draw.randrange(7)] = draw.choice(TEXTS)
    data = "\n".join(lines).encode(draw.choice(("utf-8", "utf-16")), "surrogatepass")
    path.write_bytes(data if draw.randrange(3) else damage(data, draw))
    return [path]


HAZARDS = (
    Forked("data: read", _read, function=f"{_CALLS}:read_data"),
    Forked("data: build, train", _command, codes=(1, 2, 4)),
    Forked("labels", _labels, function=f"{_CALLS}:read_labels"),
)

"""Checkpoints: safetensors and torch's archives, whose tables and pickles lie."""

from __future__ import annotations

import functools
import io
import json
import pickle
import pickletools
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from tests.hostile.campaign import seeds
from tests.hostile.campaign.damage import damage
from tests.hostile.campaign.forked import Forked
from tests.hostile.campaign.structure import as_json, spoil
from tests.hostile.campaign.zips import spoil_zip

Words = list[str | Path]


def _safetensors(draw: random.Random) -> bytes:
    data = seeds.checkpoint()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    match draw.randrange(6):
        case 0:
            return damage(data, draw)
        case 1:  # a card that is sound JSON, and wrong
            card = json.loads(header["__metadata__"]["edgekit"])
            text = as_json(spoil(card, draw), draw).decode("utf-8", "replace")
            header["__metadata__"]["edgekit"] = text
        case 2 | 3:
            for _ in range(draw.choice((1, 2))):
                entry = header[draw.choice([key for key in header if key != "__metadata__"])]
                numbers = (0, 1, -1, 3, len(body), len(body) + 1, 1 << 40, (1 << 64) - 1)
                match draw.randrange(3):
                    case 0:
                        kinds = ("F64", "F16", "I8", "BOOL", "F8_E4M3", "C64", "X", "U64", "F4")
                        entry["dtype"] = draw.choice(kinds)
                    case 1:
                        entry["shape"] = [draw.choice(numbers) for _ in range(draw.randrange(5))]
                    case 2:
                        entry["data_offsets"] = [draw.choice(numbers), draw.choice(numbers)]
        case 4:
            header = spoil(header, draw)
        case 5:
            body = draw.choice((b"", body[:-1], body + b"x", damage(body, draw)))
    text_of = json.dumps(header).encode() if draw.randrange(6) else as_json(header, draw)
    lie = draw.choice((0, 0, 0, 0, 1, -1, 1 << 40))
    size = max(0, len(text_of) + lie)
    return struct.pack("<Q", size) + text_of + body


@functools.cache
def _state() -> dict[str, torch.Tensor]:
    return safetensors.torch.load(seeds.checkpoint())


def _odd(draw: random.Random) -> Any:
    state: dict[Any, Any] = dict(_state())
    key = draw.choice(list(state))
    oddities: tuple[Any, ...] = (
        torch.zeros(1).expand(1000, 1_000_000), torch.eye(3).to_sparse(), "text", None, {}, [1],
        torch.zeros(3, dtype=torch.complex64), torch.zeros(0), torch.full((3,), float("nan")),
        torch.zeros(3, device="meta"), torch.zeros(2, 2).T, torch.nn.Parameter(torch.zeros(2)),
        torch.zeros(1, dtype=torch.float64).fill_(1e300), 10**400, {"a": {"b": {}}},
    )  # fmt: skip
    match draw.randrange(5):
        case 0:
            state[key] = draw.choice(oddities)
        case 1:
            state[draw.choice((1, None, "", "\x1b[2J", "x" * 5000, ("a",)))] = state.pop(key)
        case 2:
            del state[key]
        case 3:
            return draw.choice((state[key], [state], {"model": state}, {"state_dict": [1]}, {}, 7))
        case 4:
            return {"module." + k: v for k, v in state.items()}
    return state


def _members(draw: random.Random, whole: bytes) -> bytes:
    """Records of torch's archive exchanged; its directory is right."""
    with zipfile.ZipFile(io.BytesIO(whole)) as source:
        members = {name: source.read(name) for name in source.namelist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))
    records = [name for name in members if "/data/" in name]
    match draw.randrange(6):
        case 0:
            members[pickled] = damage(members[pickled], draw)
        case 1:
            members[pickled] = _spoil_pickle(members[pickled], draw)
        case 2:
            del members[draw.choice(records)]
        case 3:
            name = draw.choice(records)
            members[name] = draw.choice((b"", members[name][:-4], members[name] * 3))
        case 4:
            name = draw.choice([one for one in members if one not in records])
            members[name] = draw.choice((b"", b"big", b"9" * 5000, b"\xff"))
        case 5:
            return spoil_zip(members, draw)
    stream = io.BytesIO()
    method = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(stream, "w", method) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return stream.getvalue()


def _spoil_pickle(data: bytes, draw: random.Random) -> bytes:
    """Numbers in it (sizes, strides, offsets) exchanged, or another pickle altogether."""
    if draw.randrange(4) == 0:
        call = b"cos\nsystem\n(S'touch stray'\ntR."
        deep = b"(" * 100_000 + b"t" * 100_000 + b"."
        return draw.choice((call, deep, pickle.dumps({"a": [1]}, 2), b"\x80\x02}q\x00.", b""))
    numbers = []
    for opcode, argument, at in pickletools.genops(data):
        if opcode.name in ("BININT", "BININT1", "BININT2") and argument is not None and at:
            numbers.append((at, {"BININT": 4, "BININT1": 1, "BININT2": 2}[opcode.name]))
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 3))):
        at, width = draw.choice(numbers)
        value = draw.choice((0, 1, 3, 127, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000)) & (256**width - 1)
        changed[at + 1 : at + 1 + width] = value.to_bytes(width, "little")
    return bytes(changed)


def _torch(draw: random.Random) -> bytes:
    stream = io.BytesIO()
    kind = draw.randrange(4)
    modern = draw.randrange(5) > 0
    content = _odd(draw) if kind == 0 else _state()
    try:
        torch.save(content, stream, _use_new_zipfile_serialization=modern)
    except (RuntimeError, NotImplementedError, AttributeError):
        torch.save({}, stream)
    data = stream.getvalue()
    if kind == 1 or (kind > 1 and not modern):
        return damage(data, draw)
    return _members(draw, data) if kind > 1 else data


def _checkpoint(draw: random.Random, work: Path) -> Path:
    if draw.randrange(2):
        path = work / draw.choice(("best.safetensors", "best.safetensors", "best.pth"))
        path.write_bytes(_safetensors(draw))
    else:
        path = work / draw.choice(("best.pth", "best.pth", "best.pt", "best.safetensors"))
        path.write_bytes(_torch(draw))
    return path


def _inspect(draw: random.Random, work: Path) -> Words:
    words: Words = ["inspect", _checkpoint(draw, work)]
    if draw.randrange(6) == 0:
        labels = work / "labels.txt"
        labels.write_bytes(damage("\n".join(f"kind {i}" for i in range(7)).encode(), draw))
        words += ["--labels", labels]
    if draw.randrange(6) == 0:
        words += ["--backbone", draw.choice(("timm:test_vit", "resnet18", "x", "timm:", "\x1b[2J"))]
    return [*words, *draw.choice(([], ["--json"]))]


def _build(draw: random.Random, work: Path) -> Words:
    path = _checkpoint(draw, work)
    data = work / "data.npz"
    data.write_bytes(seeds.npz(packed=False))
    if draw.randrange(2):
        return ["build", "--dry-run", "--checkpoint", path, "--data", data, "--out", work / "out"]
    return ["calibrate", path, "--data", work / "nope", "-o", work / "out.onnx"]


HAZARDS = (
    Forked("checkpoints: inspect", _inspect, codes=(2, 4)),
    # A sound one is exported before calibration opens the images that are not there.
    Forked("checkpoints: build, calibrate", _build, codes=(1, 2, 4), seconds=60),
)

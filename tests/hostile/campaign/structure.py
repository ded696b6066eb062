"""Damage to documents that knows their form: keys, values and how they are spelled."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

Path = tuple[Any, ...]

TEXTS = (
    *("", " ", "x" * 5000, "\x1b[2J\x1b]0;x\x07", "\ud7ff\x00", "\u202egnp.exe", "\x85\x9b31m"),
    *("../../etc/passwd", "/etc/passwd", "a\nb\r\nerror: c", "-rf", "nan", "1e999", "%s%n{0}"),
    *("a/../b", "con", "\\\\host\\x", "file:///etc/passwd", "$(touch x)", "'; touch x; '"),
)
NUMBERS = (
    *(0, 1, -1, 2, 255, 256, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 53, 1 << 63, (1 << 64) - 1),
    *(10**19, -(10**19), 10**40, 0.1, -0.0, 1e308, -1e308, 1e-320, float("inf"), float("nan")),
)
OTHERS: tuple[Any, ...] = (
    *(None, True, False, [], {}, [[]], [None], {"a": {}}, ["a", 1], [1] * 100, [{}] * 3),
)


def worst(draw: random.Random) -> Any:
    """A value that hardly anything expects."""
    kind = draw.randrange(8)
    if kind < 3:
        return draw.choice(TEXTS)
    if kind < 6:
        return draw.choice(NUMBERS)
    if kind == 6:
        return copy.deepcopy(draw.choice(OTHERS))
    found: Any = draw.choice(NUMBERS)
    for _ in range(draw.choice((5, 50, 200))):
        found = [found] if draw.randrange(2) else {"a": found}
    return found


def places(value: Any, at: Path = ()) -> list[Path]:
    """Where values are, in lists and objects."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value[:20])
    found = [at] if at else []
    for key, inner in items:
        found += places(inner, (*at, key))
    return found


def spoil(document: Any, draw: random.Random, times: int | None = None) -> Any:
    """A copy that is wrong in one place or a few."""
    document = copy.deepcopy(document)
    for _ in range(times or draw.choice((1, 1, 1, 2, 3, 8))):
        every = places(document)
        if not every:
            return worst(draw)
        *way, last = draw.choice(every)
        holder = document
        for key in way:
            holder = holder[key]
        _spoil_one(holder, last, draw)
    return document


def _spoil_one(holder: Any, key: Any, draw: random.Random) -> None:
    value = holder[key]
    match draw.randrange(10):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[draw.choice((*TEXTS, str(key) + "x", str(key).upper()))] = holder.pop(key)
        case 2 if isinstance(holder, dict):
            holder[draw.choice(TEXTS)] = worst(draw)
        case 2:
            holder.insert(draw.randrange(len(holder) + 1), worst(draw))
        case 3 if isinstance(value, list) and value:
            holder[key] = value * draw.choice((2, 3, 100))
        case 3 | 4 if isinstance(value, int | float) and not isinstance(value, bool):
            holder[key] = draw.choice((-value, value + 1, value - 1, value * 1000, str(value)))
        case 3 | 4 if isinstance(value, str):
            holder[key] = draw.choice((value + draw.choice(TEXTS), value[:-1], value.upper()))
        case 5:
            other = draw.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            holder[key], holder[other] = holder[other], holder[key]
        case _:
            holder[key] = worst(draw)


def as_json(document: Any, draw: random.Random) -> bytes:
    """JSON as nobody writes it, now and then."""
    text = json.dumps(document, ensure_ascii=bool(draw.randrange(2)))
    match draw.randrange(24):
        case 0:
            text = text.replace("1", "9" * draw.choice((30, 5000)), 1)
        case 1:
            text = text.replace(": ", ": " + "[" * draw.choice((900, 100_000)), 1)
        case 2:
            text = text[: draw.randrange(len(text) + 1)]
        case 3:
            text = text.replace("{", '{"a": 1, "a": 2, ', 1)
        case 4:
            return text.encode(draw.choice(("utf-16", "utf-32", "utf-8-sig")), "surrogatepass")
        case 5:
            return text.encode("utf-8", "surrogatepass").replace(b"a", b"\xff\xfe", 1)
        case 6:
            text += draw.choice(("{}", "\x00", "]", "\n" * 10_000))
        case 7:
            text = text.replace(",", draw.choice((",,", ", //\n", ";")), 1)
        case 8:
            text = draw.choice(("", "null", "1", "[]", '"x"', "{", "\x00", "true"))
    return text.encode("utf-8", "surrogatepass")


def as_toml(document: dict[str, Any], draw: random.Random) -> bytes:
    """TOML of plain values; what it has no word for is left out."""
    lines = [f"{_key(key)} = {text}" for key, value in document.items()
             if (text := _toml(value)) is not None]  # fmt: skip
    match draw.randrange(16):
        case 0 if lines:
            lines.append(draw.choice(lines))
        case 1:
            lines.insert(0, draw.choice(("[a]", "[[a]]", "[a.b.c]", "= 1", "a", "\x00", "]")))
        case 2:
            lines.append(f"x = {'[' * 5000}{']' * 5000}")
        case 3:
            lines.append(" " * 3000 + "x" + " " * 3000 + "= 1")
        case 4:
            lines.append("x = 1979-05-27T07:32:00Z\ny = 0x" + "f" * 5000)
        case 5:
            return "\n".join(lines).encode("utf-16", "surrogatepass")
        case 6:
            lines.append('x.y."z" = """\n' + "a" * draw.choice((10, 100_000)))
    return "\n".join([*lines, ""]).encode("utf-8", "surrogatepass")


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)


def _toml(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        inner = [_toml(item) for item in value]
        return f"[{', '.join(text for text in inner if text is not None)}]"
    if isinstance(value, dict):
        pairs = [f"{_key(k)} = {text}" for k, v in value.items() if (text := _toml(v)) is not None]
        return f"{{{', '.join(pairs)}}}"
    return None

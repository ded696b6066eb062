"""Reads Prometheus' text format strictly, as its documentation describes it."""

from __future__ import annotations

import re

_NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.*)\}})? (\S+)")
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read_exposition(text: str) -> Samples:
    """Values by name and labels; AssertionError for anything that a scraper might refuse."""
    assert text.endswith("\n")
    found: Samples = {}
    kinds: dict[str, str] = {}
    helped: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, meaning = line[len("# HELP ") :].split(" ", 1)
            assert name not in helped
            assert meaning
            helped.add(name)
        elif line.startswith("# TYPE "):
            name, kind = line[len("# TYPE ") :].split(" ")
            assert kind in ("counter", "gauge")
            assert name not in kinds
            assert name in helped
            assert (kind == "counter") == name.endswith("_total")
            kinds[name] = kind
        else:
            match = _SAMPLE.fullmatch(line)
            assert match, line
            name, inside, value = match.groups()
            assert name == list(kinds)[-1], "a family's samples stand together, below its type"
            labels = _LABEL.findall(inside or "")
            assert "".join(f'{key}="{text}",' for key, text in labels) == f"{inside},"
            pairs = tuple(
                (key, re.sub(r"\\.", lambda m: _ESCAPES[m[0]], text)) for key, text in labels
            )
            assert len({key for key, _ in pairs}) == len(pairs)
            assert (name, pairs) not in found
            found[name, pairs] = float(value)
    assert {name for name, _ in found} == set(kinds)
    return found

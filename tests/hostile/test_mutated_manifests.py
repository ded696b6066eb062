"""Manifests whose values were exchanged for the worst there is: one line and exit code 2."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import manifest as manifests
from edgekit.bundle.engine import EngineState
from edgekit.bundle.manifest import BundleError
from edgekit.bundle.store import open_bundle
from edgekit.core.errors import UsageError
from tests.bundle_files import refusal, rewrite, write

WORST: list[Any] = [
    *(None, True, 0, -1, 10**17, 1e308, -1e308, 0.1, "", "x" * 5000, "\x1b[2J", "\ud7ff\x00"),
    *("../../etc", "a\nb", [], [[]], {}, {"a": {}}, [1] * 100, [None], ["a", 1]),
]


def deep(levels: int) -> Any:
    found: Any = []
    for _ in range(levels):
        found = [found]
    return found


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else ()
    for key, inner in items:
        found += places(inner, (*at, key))
    return found


def put(document: Any, at: tuple[Any, ...], value: Any) -> None:
    for key in at[:-1]:
        document = document[key]
    document[at[-1]] = value


def test_every_value_exchanged(tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    text = (path / "manifest.json").read_text()
    whole = json.loads(text)
    generator = random.Random(3)
    said = []
    for at in places(whole):
        for value in [*generator.sample(WORST, 8), deep(50)]:
            changed = copy.deepcopy(whole)
            put(changed, at, value)
            data = manifests._render({**changed, "digest": manifests._digest(changed)}).encode(
                "utf-8", "surrogatepass"
            )
            (path / "manifest.json").write_bytes(data)
            try:
                opened = open_bundle(path)
                opened.manifest.rebuild_line()
                opened.manifest.identity()
                EngineState.of(opened.manifest)
            except UsageError as error:
                said.append(str(error))
    assert len(said) > 200
    assert [text for text in said if "\n" in text or len(text) > 3000] == []


@pytest.mark.parametrize(
    "text",
    [
        '{"format_version": 1, "classes": ' + "9" * 5000 + "}",
        '{"format_version": 1, "classes": ' + "9" * 30 + "}",
        '{"format_version": 1, "classes": 1e999}',
        '{"format_version": ' + "[" * 90_000 + "]" * 90_000 + "}",
        '{"format_version": ' + '{"a":' * 900 + "1" + "}" * 900 + "}",
    ],
)
def test_numbers_and_nesting_without_end(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    (path / "manifest.json").write_text(text)
    refusal(path)


@pytest.mark.parametrize("value", [10**19, -(10**19), 10**40])
def test_long_integers_in_preprocessing(value: int, tmp_path: Path) -> None:
    path = write(tmp_path / "b")

    def spoil(document: dict[str, Any]) -> None:
        document["preprocessing"]["mean"] = [value, 0, 0]

    rewrite(path, spoil)
    with pytest.raises(BundleError, match="is damaged"):
        open_bundle(path)

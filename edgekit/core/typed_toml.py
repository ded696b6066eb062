"""Turns TOML tables into frozen dataclasses and back; an unknown key is an error.

Supported field types: bool, int, float, str, Literal[...], tuple[T, ...], Optional of those,
and nested dataclasses (TOML tables). Deliberately nothing else, so settings files stay flat
enough to read.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgekit.core.errors import UsageError
from edgekit.core.files import read_regular
from edgekit.core.limits import LARGEST_NUMBER

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")


def nearest(name: str, known: list[str]) -> str:
    """``" (did you mean 'x'?)"`` for the closest known name, or the list of known names."""
    return meant(name, known) or f" (known: {', '.join(known)})"


def meant(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the closest known name, or nothing if none is close."""
    close = closest(name, known)
    return "" if close is None else f" (did you mean '{close}'?)"


def closest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The known name most like ``name``, if its likeness is at least ``cutoff``, 0 to 1."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def read_toml(path: Path, cls: type[T]) -> T:
    """Read ``path`` into ``cls``; every mistake names the file, its line and the key."""
    return parse_toml(_text_of(path), cls, str(path))


def keys_of(path: Path) -> frozenset[str]:
    """The names at the top of a TOML file."""
    return frozenset(_table(_text_of(path), str(path)))


def _text_of(path: Path) -> str:
    try:
        return read_regular(path).decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: save it as UTF-8 TOML") from error


def parse_toml(text: str, cls: type[T], source: str) -> T:
    """Like `read_toml`, from text; ``source`` is what error messages call it."""
    return _build(cls, _table(text, source), (), _Source(source, text))


def _table(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise UsageError(f"{source} is not valid TOML: its values are nested too deep") from error
    except ValueError as error:  # TOMLDecodeError, and numbers of 5,000 digits
        raise UsageError(f"{source} is not valid TOML: {error}") from error


def from_dict(cls: type[T], table: dict[str, Any], source: str) -> T:
    """Like `parse_toml`, from values that are already parsed, such as JSON."""
    return _build(cls, table, (), _Source(source, ""))


def to_toml(settings: Any) -> str:
    """The TOML text of a settings dataclass; `parse_toml` of it gives an equal object."""
    lines: list[str] = []
    _write_table(settings, (), lines)
    return "\n".join(lines).strip() + "\n"


@dataclasses.dataclass(frozen=True)
class _Source:
    name: str
    text: str

    def at(self, keys: tuple[str, ...]) -> str:
        """``file:line`` of a dotted key, found by text (tomllib keeps no positions)."""
        section: tuple[str, ...] = ()
        for number, line in enumerate(self.text.splitlines(), start=1):
            header = re.match(r"\s*\[([^\[\]]+)\]", line)
            if header:
                section = tuple(part.strip(" \"'") for part in header[1].split("."))
                if section == keys:
                    return f"{self.name}:{number}"
                continue
            name, equals, _ = line.partition("=")
            if equals:
                parts = tuple(part.strip(" \t\"'") for part in name.split("."))
                if (section + parts)[: len(keys)] == keys:
                    return f"{self.name}:{number}"
        return self.name


def _build(cls: type[T], table: dict[str, Any], keys: tuple[str, ...], source: _Source) -> T:
    assert dataclasses.is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")  # as options are spelled on the command line
        if name not in known:
            raise UsageError(
                f"{source.at((*keys, key))}: unknown key '{'.'.join((*keys, key))}'"
                f"{nearest(name, known)}"
            )
        values[name] = _convert(hints[name], value, (*keys, key), source)
    missing = [
        field.name
        for field in dataclasses.fields(cls)
        if field.init
        and field.name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        place = source.at(keys) if keys else source.name
        raise UsageError(f"{place}: missing key '{'.'.join((*keys, missing[0]))}'")
    try:
        return cls(**values)
    except UsageError as error:  # a dataclass's own __post_init__ check
        raise UsageError(f"{source.at(keys) if keys else source.name}: {error}") from error


def _convert(hint: Any, value: Any, keys: tuple[str, ...], source: _Source) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:  # JSON's null; TOML has none
            return None
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return _convert(inner, value, keys, source)
    if origin is typing.Literal:
        if value in arguments and type(value) in {type(choice) for choice in arguments}:
            return value
        raise _wrong(keys, source, "one of " + ", ".join(map(repr, arguments)), value)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(keys, source, "a list", value)
        return tuple(_convert(arguments[0], item, keys, source) for item in value)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise _wrong(keys, source, "a table", value)
        return _build(typing.cast(type[Any], hint), value, keys, source)
    if isinstance(value, (int, float)) and not abs(value) < LARGEST_NUMBER:  # also catches NaN
        raise _wrong(keys, source, "a number of ordinary size", value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if type(value) is not hint:
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
        raise _wrong(keys, source, names.get(hint, str(hint)), value)
    return value


def _wrong(keys: tuple[str, ...], source: _Source, expected: str, value: Any) -> UsageError:
    name = ".".join(keys)
    return UsageError(f"{source.at(keys)}: '{name}' must be {expected}, not {_shown(value)}")


def _shown(value: Any) -> str:
    """``value`` for a one-line message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of 5,000 digits, or nested very deep
        return "something very long"
    return text if len(text) <= 200 else f"{text[:200]}..."


def _write_table(settings: Any, keys: tuple[str, ...], lines: list[str]) -> None:
    tables: list[tuple[str, Any]] = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            tables.append((field.name, value))
        elif value is not None:
            lines.append(f"{field.name} = {_literal(value)}")
    for name, value in tables:
        lines.extend(["", f"[{'.'.join((*keys, name))}]"])
        _write_table(value, (*keys, name), lines)


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    if isinstance(value, (int, float)):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False)


def at_least(minimum: int, name: str, value: float) -> None:
    """Refuse the setting ``name`` if it is below ``minimum``, or NaN."""
    if not value >= minimum:
        raise UsageError(f"{name} must be at least {minimum}, not {value}")


def differences(ours: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    """``name: ours, was theirs`` for every setting in which two runs differ."""
    return [
        f"{name}: {value!r}, was {theirs[name]!r}"
        for name, value in ours.items()
        if value != theirs[name]
    ]

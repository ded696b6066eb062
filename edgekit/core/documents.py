"""JSON documents that one command leaves for another, as frozen dataclasses.

`read` checks the type of every value and reports an error in one line; `plain` is its inverse, and
`edgekit.core.json_schema` describes what `plain` gives. Documents come from bundles, and bundles
from anywhere, so numbers must be finite and of ordinary size. Unknown keys are ignored, so a later
edgekit may add some within a schema.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, ClassVar, Final, TypeVar

from edgekit.core.errors import UsageError
from edgekit.core.limits import LARGEST_NUMBER

T = TypeVar("T")

_SHOWN: Final = 40  # characters of a wrong value
_WORDS: Final = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


SPARSE: Final = MappingProxyType({"sparse": True})
"""Metadata of a field that is left out of the JSON while it is None. A field whose JSON key is not
a Python name has it in its metadata, as ``"key"``."""
INLINE: Final = MappingProxyType({"inline": True})
"""Metadata of a field whose own fields stand in the JSON in its place."""
NULLABLE: Final = MappingProxyType({"nullable": True})
"""Metadata of a number that may be infinite or NaN, which JSON writes as null."""


class Document:
    """A frozen dataclass that is printed or stored as a whole, with the number of its schema.

    The number changes when a key is removed, renamed or changes its type or meaning.
    """

    SCHEMA: ClassVar[int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"schema": self.SCHEMA, **fields_of(self)}


class DocumentError(UsageError):
    """A document is damaged, or its schema is not the one this edgekit reads."""


@dataclasses.dataclass(frozen=True)
class Failure(Document):
    """Why a command failed: what it prints if it has not printed its own document before."""

    SCHEMA: ClassVar = 1

    error: str
    exit_code: int


def parse_json(data: bytes | str, source: str) -> Any:
    """The values in ``data``; ``source`` is what error messages call it."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{source} is damaged: it is not JSON") from error


def read(cls: type[T], value: object, source: str, *, schema: int, remedy: str) -> T:
    """``value`` as a ``cls`` of this ``schema``; every refusal ends with the ``remedy``."""
    try:
        if not isinstance(value, Mapping):
            raise DocumentError(f"{source} must be an object, not {_shown(value)}")
        number = value.get("schema")
        if type(number) is not int or number != schema:
            raise DocumentError(
                f"{source} has schema {_shown(number)}, this edgekit reads {schema}"
            )
        return _table(cls, value, source, ())
    except UsageError as error:
        raise DocumentError(f"{error}: {remedy}") from error


def part(cls: type[T], value: object, source: str) -> T:
    """``value`` as a ``cls``, for a part of a document without a schema number."""
    return _table(cls, value, source, ())


def plain(value: Any) -> Any:
    """Dataclasses (through their own ``to_dict``, if any), tuples and mappings as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = getattr(value, "to_dict", None)
        return fields_of(value) if own is None else own()
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has neither infinity nor NaN
    return value


def fields_of(value: Any) -> dict[str, Any]:
    """A dataclass's fields as plain JSON values, and the properties that its ``DERIVED`` names."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if field.metadata.get("inline"):
            values |= fields_of(item)
        elif not (field.metadata.get("sparse") and item is None):
            values[key_of(field)] = plain(item)
    return values | {name: plain(getattr(value, name)) for name in derived(type(value))}


def derived(cls: type[Any]) -> tuple[str, ...]:
    """The properties of a dataclass that its JSON has beside its fields."""
    names: tuple[str, ...] = getattr(cls, "DERIVED", ())
    return names


def _table(cls: type[T], value: object, source: str, keys: tuple[str, ...]) -> T:
    assert dataclasses.is_dataclass(cls)
    if not isinstance(value, Mapping):
        raise _wrong(source, keys, "an object", value)
    hints = hints_of(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        name = key_of(field)
        if field.metadata.get("inline"):
            values[field.name] = _table(hints[field.name], value, source, keys)
        elif name in value:
            values[field.name] = _convert(hints[field.name], value[name], source, (*keys, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise DocumentError(f"{source}: missing key {_dotted((*keys, name))}")
    try:
        return cls(**values)
    except DocumentError:
        raise
    except UsageError as error:  # a dataclass's own check
        at = f"{source}: {_dotted(keys)}" if keys else source
        raise DocumentError(f"{at}: {error}") from error


@functools.cache
def hints_of(cls: type[Any]) -> dict[str, Any]:
    """The type of every field."""
    return typing.get_type_hints(cls)  # slow: it evaluates annotations


def _convert(hint: Any, value: Any, source: str, keys: tuple[str, ...]) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _alternative(arguments, value, source, keys)
    if origin is typing.Literal:
        if any(type(value) is type(choice) and value == choice for choice in arguments):
            return value
        raise _wrong(source, keys, f"one of {', '.join(map(repr, arguments))}", value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _wrong(source, keys, "a list", value)
        return tuple(
            _convert(arguments[0], item, source, (*keys, str(place)))
            for place, item in enumerate(value)
        )
    if origin is Mapping or origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong(source, keys, "an object", value)
        return {
            _convert(arguments[0], name, source, keys): _convert(
                arguments[1], item, source, (*keys, str(name))
            )
            for name, item in value.items()
        }
    if dataclasses.is_dataclass(hint):
        return _table(typing.cast("type[Any]", hint), value, source, keys)
    return _simple(hint, value, source, keys)


def _alternative(arguments: tuple[Any, ...], value: Any, source: str, keys: tuple[str, ...]) -> Any:
    """One of several types: None, or the value's own type, or else the first."""
    if value is None and type(None) in arguments:
        return None
    others = [argument for argument in arguments if argument is not type(None)]
    kind = tuple if isinstance(value, list) else type(value)
    own = [one for one in others if kind in (one, typing.get_origin(one))]
    return _convert((own or others)[0], value, source, keys)


def _simple(hint: Any, value: Any, source: str, keys: tuple[str, ...]) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and not abs(value) < LARGEST_NUMBER:  # also catches NaN
        raise _wrong(source, keys, "a number of ordinary size", value)
    if hint is float and number:
        return float(value)
    if type(value) is not hint:
        raise _wrong(source, keys, _WORDS[hint], value)
    return value


def key_of(field: dataclasses.Field[Any]) -> str:
    """The field's name in JSON."""
    return str(field.metadata.get("key", field.name))


def _dotted(keys: tuple[str, ...]) -> str:
    """The place in the document, escaped: its keys may contain anything."""
    text = ascii(".".join(keys))
    return text if len(text) <= 2 * _SHOWN else f"{text[: 2 * _SHOWN]}...'"


def _wrong(source: str, keys: tuple[str, ...], expected: str, value: object) -> DocumentError:
    at = f"{source}: {_dotted(keys)}" if keys else source
    return DocumentError(f"{at} must be {expected}, not {_shown(value)}")


def _shown(value: object) -> str:
    """A wrong value in a few characters; a hostile one may have any length."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, int) and abs(value) >= LARGEST_NUMBER:
        return "a number beyond 2**63"  # Python refuses to print the longest ones
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

"""Validates a device's answers value by value; nothing about their form is taken for granted."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from edgekit.core.errors import EdgekitError

T = TypeVar("T")

_MOST_NUMBER: Final = 1 << 53  # what every JSON reader can represent
_SHOWN: Final = 60  # characters of a wrong value in a message


class Nonsense(EdgekitError):
    """A device's answer is not what was asked for."""


@dataclass(frozen=True)
class Answer:
    """A value from a device, and its name in messages."""

    value: object
    name: str

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            raise self.wrong("text")
        return self.value

    def text_or_none(self) -> str | None:
        """A string, or nothing."""
        return None if self.value is None else self.text()

    def number(self) -> int:
        """A whole number, at least 0."""
        if type(self.value) is not int or not 0 <= self.value <= _MOST_NUMBER:
            raise self.wrong("a whole number")
        return self.value

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def listed(self) -> tuple[Answer, ...]:
        """The items of a list."""
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        return tuple(Answer(item, f"{self.name}[{i}]") for i, item in enumerate(self.value))

    def table(self) -> dict[str, Answer]:
        """The entries of an object."""
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        return {
            key: Answer(item, f"{self.name}.{key[:_SHOWN]}") for key, item in self.value.items()
        }

    def item(self, key: str) -> Answer:
        """An entry of an object, which must exist."""
        entry = self.table().get(key)
        if entry is None:
            raise Nonsense(f"{self.name} makes no sense: it has no '{key}'")
        return entry

    def fill(self, cls: type[T]) -> T:
        """A dataclass of plain fields, all of which must exist."""
        assert dataclasses.is_dataclass(cls)
        hints = typing.get_type_hints(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        values = {name: _READ[hints[name]](self.item(name)) for name in names}
        return typing.cast(T, typing.cast(type[Any], cls)(**values))

    def wrong(self, expected: str) -> Nonsense:
        """The error for a value that is not ``expected``."""
        shown = repr(self.value) if isinstance(self.value, str | int | float | None) else ""
        kind = type(self.value).__name__
        shown = shown if 0 < len(shown) <= _SHOWN else f"a value of type {kind}"
        return Nonsense(f"{self.name} makes no sense: it must be {expected}, not {shown}")


def parse_json(text: str) -> object:
    """Any JSON; ValueError if it is invalid, or nested too deep."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _texts(answer: Answer) -> tuple[str, ...]:
    return tuple(item.text() for item in answer.listed())


def _table_of_texts(answer: Answer) -> Mapping[str, str]:
    return {key: item.text() for key, item in answer.table().items()}


_READ: Final[dict[Any, Callable[[Answer], Any]]] = {
    str: Answer.text,
    int: Answer.number,
    bool: Answer.flag,
    tuple[str, ...]: _texts,
    Mapping[str, str]: _table_of_texts,
}

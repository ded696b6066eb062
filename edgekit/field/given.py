"""Reads predictions that the user's own program made, one JSON object a line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgekit.core.documents import parse_json, part
from edgekit.core.errors import UsageError
from edgekit.runtime.model import Prediction


@dataclass(frozen=True)
class _Line:
    """The fields of `edgekit.Prediction` that a monitor looks at; a line may have any others."""

    source: str | None = None
    index: int | None = None
    probability: float | None = None
    code: int | tuple[int, ...] | None = None
    margin: float | tuple[float | None, ...] | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if self.error is None and self.index is None:
            raise UsageError("it has neither 'index', the class's number, nor 'error'")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise UsageError(f"'probability' must be 0 to 1, not {self.probability:g}")


def read_predictions(lines: Iterable[str], source: str) -> Iterator[Prediction]:
    """The prediction of each line; the first that is none ends it with its number."""
    for number, text in enumerate(lines, 1):
        where = f"prediction {number} of {source}"
        line = part(_Line, parse_json(text, where), where)
        yield Prediction(
            source=line.source or where,
            index=line.index,
            probability=line.probability,
            code=line.code,
            margin=_margin(line.margin),
            error=line.error,
        )


def _margin(
    value: float | tuple[float | None, ...] | None,
) -> float | tuple[float, ...] | None:
    """Of several positions, those without a second best codeword win by any margin."""
    if isinstance(value, tuple):
        return tuple(math.inf if one is None else one for one in value)
    return value

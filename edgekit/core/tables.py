"""Tables and prose that fit a terminal: folded first, then with fewer columns, then as blocks.

Names and figures are never shortened. Where even one column or word is wider than the terminal, it
is printed whole: a path that is cut cannot be copied.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

_GAP: Final = "  "
_LEAST_PROSE: Final = 16  # columns; narrower prose is a tower of single words


@dataclass(frozen=True)
class Column:
    """A column, and what may happen to it on a narrow terminal."""

    name: str
    kind: Literal["name", "figure", "prose"] = "name"
    """Prose is folded at spaces; names and figures are not, and figures stand on the right."""
    drop: int = 0
    """Columns are left out in this order, 1 first; 0 stays."""


@dataclass(frozen=True)
class Table:
    """The head of a table."""

    columns: tuple[Column, ...]

    @staticmethod
    def of(*columns: Column | str) -> Table:
        """A table of these; text alone names a column of names."""
        return Table(tuple(Column(one) if isinstance(one, str) else one for one in columns))


FACTS: Final = Table.of("", Column("", "prose"))
"""What something is, a fact a row."""


class Piece(NamedTuple):
    """A part of a line. ``role`` is "title" or "head", or else the whole cell it belongs to."""

    text: str
    role: str


Line = list[Piece]


def layout(
    table: Table, rows: Sequence[Sequence[str]], title: str = "", width: int | None = None
) -> list[Line]:
    """The lines of a table, at most ``width`` columns wide where no single word is wider."""
    above = [[Piece(line, "title")] for line in fold(title, width)] if title else []
    columns = table.columns
    left_out: list[str] = []
    places = list(range(len(columns)))
    while True:
        shown = [columns[place] for place in places]
        cells = [[row[place] for place in places] for row in rows]
        widths = _widths(shown, cells, width)
        if widths is not None:
            break
        droppable = [place for place in places if columns[place].drop]
        # A single row loses nothing as a block: there is no other to compare it with.
        if not droppable or len(rows) == 1:
            return above + _blocks(columns, rows, width)
        gone = min(droppable, key=lambda place: columns[place].drop)
        left_out.append(columns[gone].name)
        places.remove(gone)
    lines = list(_row(shown, [column.name for column in shown], widths, lambda _: "head"))
    if not any(column.name for column in shown):
        lines = []
    for row in cells:
        lines += _row(shown, row, widths, lambda cell: cell)
    if left_out:
        note = f"left out at {width} columns: {', '.join(left_out)}"
        lines += [[Piece(line, "")] for line in fold(note, width)]
    return above + lines


def plain(lines: Sequence[Line]) -> str:
    """The same without colors."""
    return "\n".join("".join(piece.text for piece in line).rstrip() for line in lines)


def fold(text: str, width: int | None, indent: str = "") -> list[str]:
    """``text`` in lines of at most ``width``, broken at spaces; ``indent`` is of all but the first.

    Lines that it has are kept.
    """
    if width is None:
        return text.split("\n")
    folded = []
    for line in text.split("\n"):
        folded += textwrap.wrap(
            line,
            max(1, width),
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
            expand_tabs=False,
        ) or [line]
    return folded


def displayed(text: str) -> int:
    """How many columns of a terminal ``text`` takes: Chinese letters two, accents none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def _widths(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None
) -> list[int] | None:
    """A width for each column, so that all fit; None if they cannot."""
    cells = [[row[place] for row in rows] for place in range(len(columns))]
    natural = [
        max(map(displayed, (column.name, *texts)))
        for column, texts in zip(columns, cells, strict=True)
    ]
    between = len(_GAP) * (len(columns) - 1)
    if width is None or sum(natural) + between <= width:
        return natural
    least = []
    for column, texts, most in zip(columns, cells, natural, strict=True):
        head = _longest_word(column.name)
        if column.kind == "prose":
            least.append(max(head, min(most, _LEAST_PROSE), *map(_longest_word, texts), 0))
        else:
            least.append(max(head, *map(displayed, texts), 0))
    spare = width - between - sum(least)
    if spare < 0:
        return None
    for _ in range(spare):  # to the one that is folded most
        place = max(range(len(least)), key=lambda at: natural[at] / max(1, least[at]))
        least[place] += 1
    return least


def _longest_word(text: str) -> int:
    return max(map(displayed, text.split()), default=0)


def _row(
    columns: Sequence[Column],
    cells: Sequence[str],
    widths: Sequence[int],
    role: Callable[[str], str],
) -> Iterator[Line]:
    """A row, which takes as many lines as the cell that is folded most."""
    folded = [
        [cell] if displayed(cell) <= width else fold(cell, width)
        for cell, width in zip(cells, widths, strict=True)
    ]
    for place in range(max(map(len, folded))):
        line: Line = []
        for column, cell, texts, width in zip(columns, cells, folded, widths, strict=True):
            text = texts[place] if place < len(texts) else ""
            space = " " * (width - displayed(text))
            if line:
                line.append(Piece(_GAP, ""))
            parts = [Piece(text, role(cell)), Piece(space, "")]
            line += reversed(parts) if column.kind == "figure" else parts
        yield line


def _blocks(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None
) -> list[Line]:
    """A line a cell, under the first cell of its row; nothing is left out but empty cells."""
    lines: list[Line] = []
    label = max((displayed(column.name) for column in columns[1:]), default=0)
    for row in rows:
        if row[0]:
            lines += [[Piece(text, row[0])] for text in _value(columns[0], row[0], width, 0)]
        for column, cell in zip(columns[1:], row[1:], strict=True):
            if cell:
                lines += _named(column, cell, label, width)
    return lines


def _named(column: Column, cell: str, label: int, width: int | None) -> list[Line]:
    """A cell beside its column's name, or below it where that is too narrow."""
    indent = len(_GAP) + (label + len(_GAP) if label else 0)
    name = _GAP + column.name
    texts = _value(column, cell, width, indent)
    head: list[Line] = []
    if column.name and width is not None and indent + max(map(displayed, texts)) > width:
        head, name, indent = [[Piece(name, "")]], "", 2 * len(_GAP)
        texts = _value(column, cell, width, indent)
    lines = [[Piece(" " * indent, ""), Piece(text, cell)] for text in texts]
    lines[0][0] = Piece(name + " " * (indent - displayed(name)), "")
    return head + lines


def _value(column: Column, cell: str, width: int | None, indent: int) -> list[str]:
    if column.kind != "prose" or width is None:
        return [cell]
    return fold(cell, width - indent)

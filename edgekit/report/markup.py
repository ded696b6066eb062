"""HTML of a page's parts. Everything from a bundle is escaped here, and nowhere else."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Final

from edgekit.report.style import STYLE

_UNPRINTABLE: Final = "\N{REPLACEMENT CHARACTER}"


def escaped(value: object) -> str:
    """Anybody's text, as HTML and as XML.

    Control characters are shown as a mark: XML has no way to write them, and those that turn the
    direction of writing could make a figure look like another.
    """
    text = str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c == "\n" else _UNPRINTABLE for c in text)
    return html.escape(text)


def whole_page(title: str, parts: Sequence[str]) -> str:
    """A self-contained page of these parts, which are HTML."""
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        "</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A part of the page under a heading; nothing where there are no parts."""
    inside = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escaped(title)}</h2>\n{inside}\n</section>" if inside else ""


def paragraph(text: object, kind: str = "") -> str:
    """A paragraph of text; ``kind`` is its class."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escaped(text)}</p>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table, which scrolls by itself where the screen is too narrow; numbers to the right.

    ``kind`` is "texts" for one that is read along its columns.
    """
    attribute = f' class="{kind}"' if kind else ""
    head = "".join(f'<th scope="col">{escaped(column)}</th>' for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table{attribute}><tr>{head}</tr>{body}</table></div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names with what they are, below each other; empty values are left out."""
    cells = "".join(f"<dt>{escaped(k)}</dt><dd>{escaped(v)}</dd>" for k, v in rows if v)
    return f'<dl class="facts">{cells}</dl>' if cells else ""


def folded(summary: str, *parts: str) -> str:
    """Parts that unfold on a click, and in print are there."""
    inside = "\n".join(part for part in parts if part)
    return (
        f"<details>\n<summary>{escaped(summary)}</summary>\n{inside}\n</details>" if inside else ""
    )


def beside(*parts: str) -> str:
    """Parts next to each other where there is room, below each other where there is none."""
    inside = "\n".join(part for part in parts if part)
    return f'<div class="beside">{inside}</div>' if inside else ""

"""What the models were shown: images of the worst cell and of a random one, with both answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgekit.parity.document import ParityDocument
from edgekit.parity.examples import Answered, Codes, Example, ExampleCell, Examples, Picture
from edgekit.report.markup import escaped, paragraph, section

_TINY: Final = 96
"""Pixels up to which a picture is enlarged as it is: smoothing would hide what the model saw."""


def look(examples: Examples | None, parity: ParityDocument | None) -> str:
    """The section; nothing without images."""
    if examples is None or parity is None:
        return ""
    parts = []
    for cell in examples.cells:
        if cell.examples:
            parts += [
                f"<h3>{escaped(_title(cell))}</h3>",
                paragraph(_errors(cell, parity)),
                cards(cell.examples),
            ]
    return section("Look", *parts)


def cards(examples: Sequence[Example]) -> str:
    """Each image clean and corrupted, and what both models said to it."""
    inside = "\n".join(_card(one) for one in examples)
    return f'<div class="cards">{inside}</div>' if inside else ""


def cell_name(corruption: str, severity: int) -> str:
    """A cell in words."""
    if not severity:
        return "clean"
    return f"{corruption.replace('_', ' ')}, severity {severity}"


def _title(cell: ExampleCell) -> str:
    which = "The worst cell" if cell.why == "worst" else "A random cell"
    return f"{which}: {cell_name(cell.corruption, cell.severity)}"


def _errors(cell: ExampleCell, parity: ParityDocument) -> str:
    """What happened there, and how these images were chosen."""
    change = (parity.per_corruption or {}).get(cell.corruption)
    text = ""
    if change is not None and cell.severity in parity.severities:
        place = parity.severities.index(cell.severity)
        both = (change.errors.reference, change.errors.candidate)
        if all(place < len(errors) for errors in both):
            text = "Error {:.1f}% → {:.1f}%; ".format(*(errors[place] for errors in both))
    share = f"{cell.changed:.1%} of the answers changed."
    chosen = "Shown: the first images that went through it, in an order that the seed draws."
    if cell.why == "worst" and cell.changed:
        chosen = "Shown: the most confident losses."
    return f"{text}{share} {chosen}"


def _card(one: Example) -> str:
    label = "" if one.label is None else f"<strong>{escaped(one.label)}</strong> "
    cell = cell_name(one.corruption, one.severity)
    figures = [_figure(one.clean, "clean", f"clean: {one.image}")]
    if one.severity:
        figures.append(_figure(one.corrupted, "corrupted", f"{cell}: {one.image}"))
    return (
        f'<div class="card"><p>{label}{escaped(cell)} <small>{escaped(one.image)}</small></p>'
        f"<div>{''.join(figures)}</div></div>"
    )


def _figure(picture: Picture, caption: str, words: str) -> str:
    tiny = ' class="tiny"' if max(picture.width, picture.height) <= _TINY else ""
    lines = [_answer("reference", picture.reference), _answer("candidate", picture.candidate)]
    if picture.codes is not None:
        lines.append(f"<dt>code</dt><dd>{escaped(_codes(picture.codes))}</dd>")
    size = f'width="{picture.width}" height="{picture.height}"'
    return (
        f'<figure><img{tiny} src="data:image/jpeg;base64,{escaped(picture.jpeg)}" {size} '
        f'alt="{escaped(words)}"><figcaption>{caption}</figcaption>'
        f"<dl>{''.join(lines)}</dl></figure>"
    )


def _answer(who: str, said: Answered) -> str:
    marks = {True: "\N{CHECK MARK} ", False: "\N{BALLOT X} ", None: ""}
    kind = ' class="wrong"' if said.right is False else ""
    words = f"{marks[said.right]}{said.name} {said.probability:.0%}"
    return f"<dt>{who}</dt><dd{kind}>{escaped(words)}</dd>"


def _codes(codes: Codes) -> str:
    if codes.reference is not None and codes.candidate is not None:
        same = codes.reference == codes.candidate
        return f"{codes.reference}" if same else f"{codes.reference} → {codes.candidate}"
    return f"{codes.same} of {codes.positions} equal"

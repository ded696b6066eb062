"""Makes the images that a comparison shows: its outcomes say which; the pixels are made again.

The same image, corruption, severity and seed give the same pixels, so a sweep keeps none.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final, Literal

from edgekit.data.encode import jpeg
from edgekit.data.loading import rng_for
from edgekit.parity.changes import Changes, Outcome, Said
from edgekit.parity.compare import Comparison
from edgekit.parity.document import ParityDocument
from edgekit.parity.examples import Answered, Codes, Example, ExampleCell, Examples, Picture
from edgekit.parity.predictors import named_classes

_LONGEST: Final = 224  # pixels of a picture's longer side, at most


def examples_of(comparison: Comparison) -> Examples:
    """Images of the worst cell and of a random one."""
    document, changes = comparison.document, comparison.changes
    pairs, cells = changes.cells.pairs, []
    worst = _worst_cell(document, changes)
    chosen: list[tuple[Literal["worst", "random"], int]] = [("worst", worst)]
    others = [number for number in range(1, 1 + len(pairs)) if number != worst]
    if others:
        drawn = int(rng_for(document.seed, 0, "example cell").bit_generator.random_raw())
        chosen.append(("random", others[drawn % len(others)]))
    for why, number in chosen:
        corruption, severity = pairs[number - 1]
        outcomes = changes.worst_of(number) if why == "worst" else []
        cells.append(
            ExampleCell(
                why,
                corruption,
                severity,
                float(changes.shares()[number]),
                make_examples(comparison, outcomes or changes.first_of(number)),
            )
        )
    return Examples(document.measured, tuple(cells))


def make_examples(comparison: Comparison, outcomes: Sequence[Outcome]) -> tuple[Example, ...]:
    """The images of these outcomes, corrupted again as the comparison did."""
    return tuple(_example(comparison, outcome) for outcome in outcomes)


def _worst_cell(document: ParityDocument, changes: Changes) -> int:
    """The number of the cell that lost most; of equal ones that with more changed answers."""
    shares, by_name = changes.shares(), document.per_corruption or {}
    levels = changes.cells.severities

    def lost(number: int) -> tuple[float, float]:
        name, severity = changes.cells.pairs[number - 1]
        if name not in by_name:
            return 0.0, float(shares[number])
        errors, place = by_name[name].errors, levels.index(severity)
        return errors.candidate[place] - errors.reference[place], float(shares[number])

    return max(range(1, 1 + changes.cells.count), key=lost)


def _example(comparison: Comparison, outcome: Outcome) -> Example:
    sweep = comparison.sweep
    names = named_classes(sweep.candidate.classes, sweep.reference.classes)
    # Where the data have labels, these are the models' classes, under names that fit.
    names = sweep.dataset.classes if outcome.label is not None else names
    numbers = (0, outcome.number) if outcome.number else (0,)
    pixels = sweep.make(sweep.dataset, (outcome.row, numbers))
    corruption, severity = "clean", 0
    if outcome.number:
        corruption, severity = sweep.make.cells.pairs[outcome.number - 1]

    def said(answer: Said) -> Answered:
        right = None if outcome.label is None else answer.top == outcome.label
        return Answered(names[answer.top], round(answer.probability, 4), right)

    def picture(place: int, reference: Said, candidate: Said) -> Picture:
        data, width, height = jpeg(pixels[place], _LONGEST)
        return Picture(
            base64.b64encode(data).decode(),
            width,
            height,
            said(reference),
            said(candidate),
            _codes(reference, candidate),
        )

    return Example(
        image=sweep.dataset.key(outcome.row),
        corruption=corruption,
        severity=severity,
        label=None if outcome.label is None else names[outcome.label],
        clean=picture(0, outcome.clean_reference, outcome.clean_candidate),
        corrupted=picture(len(numbers) - 1, outcome.reference, outcome.candidate),
    )


def _codes(reference: Said, candidate: Said) -> Codes | None:
    ours, theirs = reference.code, candidate.code
    if ours is None or theirs is None or len(ours) != len(theirs):
        return None
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    if len(ours) == 1:
        return Codes(same, 1, ours[0], theirs[0])
    return Codes(same, len(ours))

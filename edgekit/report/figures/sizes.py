"""The bundle's size against the float model's."""

from __future__ import annotations

from edgekit.report.figures.svg import AXIS, Scale, axis, box, figure, text

_ROW, _TOP = 30.0, 6.0


def sizes(needed: int, reference: int) -> str:
    """Two bars from zero."""
    rows = (("float model", reference, "even"), ("bundle", needed, "series-1"))
    scale = Scale(0.0, max(needed, reference, 1) / 1e6, left=30.0, right=86.0)
    bottom = _TOP + _ROW * len(rows)
    parts = [axis(scale, bottom, "MB", top=_TOP)]
    for index, (name, size, color) in enumerate(rows):
        top, x = _TOP + _ROW * index, scale.at(size / 1e6)
        parts += [
            text(28, top + 19, name, anchor="end"),
            box(scale.left, top + 5, x - scale.left, _ROW - 10, color, strength=0.6),
            text(x + 1, top + 19, f"{size / 1e6:.1f}"),
        ]
    note = "The files that run the model, against the float ONNX file that it was made from."
    return figure("Size", bottom + AXIS, parts, note=note)

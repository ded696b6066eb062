"""A sensitivity report as table rows and as an SVG bar chart."""

from __future__ import annotations

from html import escape
from typing import Final

from edgekit.core.tables import Column, Table
from edgekit.quantize.results import LayerLoss, Sensitivity, interval_text

LOSSES: Final = Table.of(
    "layer",
    Column("operation", drop=2),
    Column("margin", "figure", drop=4),
    Column("KL", "figure", drop=3),
    Column("codes %", "figure"),
    Column("corruption error", "figure"),
    Column("clipped %", "figure", drop=1),
)
_BARS = 40  # layers in the plot
_ROW, _LEFT, _WIDTH = 18, 300, 820  # px


def rows(ranking: Sensitivity) -> list[list[str]]:
    """The report's table: layer, operation, margin, KL, codes, corruption error, clipped share."""
    return [
        [
            label(layer),
            layer.operation,
            _number(layer.difference.margin_change),
            f"{layer.difference.kl:.5f}",
            interval_text(layer.difference.code_all, 100, 1).lstrip("+"),
            interval_text(layer.difference.corruption_change),
            f"{100 * layer.clipped:.3f}",
        ]
        for layer in ranking.layers
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def label(layer: LayerLoss) -> str:
    """A layer's name for the reader."""
    return layer.weights or layer.name


def svg(ranking: Sensitivity) -> str:
    """Bars of the harm done by each layer alone, the most harmful on top."""
    layers = ranking.layers[:_BARS]
    largest = max((layer.harm for layer in layers), default=0.0) or 1.0
    of, unit = ranking.whole.margin_change, "change of the lookup's margin (root mean square)"
    if of is None:
        of, unit = ranking.whole.kl, "KL to float, nats per image"
    height = _ROW * (len(layers) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="4" y="{_ROW - 5}" font-weight="bold">{unit}, '
        f"with one layer in INT8; all {len(ranking.layers)}: {of:.4f}</text>",
    ]
    for place, layer in enumerate(layers):
        top = _ROW * (place + 1)
        width = (_WIDTH - _LEFT - 170) * layer.harm / largest
        codes = layer.difference.code_all
        flips = "" if codes is None else f", {100 * (1 - codes.estimate):.1f}% of codes flip"
        parts.append(
            f'<text x="{_LEFT - 6}" y="{top + 13}" text-anchor="end">{escape(label(layer))}</text>'
            f'<rect x="{_LEFT}" y="{top + 3}" width="{width:.1f}" height="{_ROW - 5}" '
            'fill="#3b6ea5"/>'
            f'<text x="{_LEFT + width + 5:.1f}" y="{top + 13}">'
            f"{layer.harm:.4f}{flips}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])

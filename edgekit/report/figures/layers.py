"""The slowest layers of an inference."""

from __future__ import annotations

from edgekit.bench.results import Layers
from edgekit.report.figures.svg import AXIS, Scale, axis, box, figure, hover, name, text

_ROW, _TOP, _SHOWN = 20.0, 6.0, 10


def layers(profile: Layers) -> str:
    """A bar for each of the slowest; hovering tells what it is."""
    shown = profile.layers[:_SHOWN]
    most = max((layer.milliseconds for layer in shown), default=0.0) or 1.0
    scale = Scale(0.0, most, right=82.0)
    bottom = _TOP + _ROW * len(shown)
    parts = [axis(scale, bottom, "ms of one inference", top=_TOP)]
    for index, layer in enumerate(shown):
        top = _TOP + _ROW * index
        x = scale.at(layer.milliseconds)
        words = f"{layer.name}: {layer.kind}, {layer.part}, {layer.milliseconds:.3f} ms"
        parts.append(
            hover(
                words,
                text(scale.left - 2, top + 13, name(layer.name), anchor="end", kind="small"),
                box(scale.left, top + 3, x - scale.left, _ROW - 6, "series-1", strength=0.6),
                text(x + 1, top + 14, f"{layer.share:.1%}", kind="small"),
            )
        )
    note = f"The slowest {len(shown)} of {len(profile.layers)}, profiled, with their share."
    return figure("Layers", bottom + AXIS, parts, note=note)

"""What a monitor's last images were like, beside those of the lab."""

from __future__ import annotations

from edgekit.field.history import FieldAgainstLab
from edgekit.report.figures.field import field as figure_of
from edgekit.report.markup import paragraph, section


def field(found: FieldAgainstLab | None) -> str:
    """The section; nothing without images enough to compare."""
    if found is None:
        return ""
    images = sum(part.images for part in found.field)
    changed = sum(part.changed for part in found.field)
    text = f"The last {images:,} images that the monitor saw"
    text += f"; {changed:,} of them came after an alarm." if changed else ", without an alarm."
    return section("The field against the lab", paragraph(text), figure_of(found))

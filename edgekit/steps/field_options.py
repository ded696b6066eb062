"""How many images a monitor's reference is made of: as many as the model's price allows.

The price is counted, not timed, so that the same model and images give the same reference on any
machine, however busy it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from edgekit.core.documents import SPARSE, DocumentError, fields_of, part

LEAST_IMAGES: Final = 50  # below that, everything looks normal
# Multiply-adds of a reference. A core without VNNI does some 64 billion a second in a ResNet-50 in
# INT8, so it takes two minutes.
_AFFORDED: Final = 8_000_000_000_000
_A_PIXEL: Final = 4_000  # multiply-adds that take as long as corrupting a pixel


@dataclass(frozen=True)
class FieldOptions:
    """How much the reference looks at."""

    images: int = 2000  # at most
    corrupted: int = 200  # of these, or half of them, also under every corruption
    severities: tuple[int, ...] = (1, 3, 5)
    # Severities of a corruption that an image gets. A corruption's images together give its order
    # of symbols, and only what is left differs by severity: all three would be no better for it.
    levels: int = 1
    # Of an answer, in multiply-adds; recorded if it has limited the number of images.
    price: int | None = field(default=None, metadata=SPARSE)

    def answers(self) -> int:
        """How many the model gives if there are enough images."""
        from edgekit.data.corruptions import BENCHMARK15  # loads arrays

        corrupted = min(self.corrupted, self.images // 2)
        return self.images + corrupted * len(BENCHMARK15) * self.levels

    def to_dict(self) -> dict[str, Any]:
        """As the manifest records it."""
        return fields_of(self)


def recorded(section: object, asked: int | None) -> FieldOptions | None:
    """The options of the reference that a bundle has, if it is made of what was ``asked`` for.

    None asks for as many images as the price of the model allows, which did not change.
    """
    try:
        options = part(FieldOptions, section, "the section 'field'")
    except DocumentError:  # none, or from another edgekit
        return None
    if asked is not None:
        return options if options == FieldOptions(images=asked) else None
    usual = FieldOptions()
    images = usual.images if options.price is not None else options.images
    return options if replace(options, images=images, price=None) == usual else None


def affordable(multiply_adds: int, size: tuple[int, int]) -> FieldOptions:
    """The options for a model with so many of them for an image of this height and width."""
    height, width = size
    price = multiply_adds + _A_PIXEL * height * width
    options = FieldOptions()
    if options.answers() * price <= _AFFORDED:
        return options
    for images in range(options.images - 1, LEAST_IMAGES, -1):
        fewer = replace(options, images=images, price=price)
        if fewer.answers() * price <= _AFFORDED:
            return fewer
    return replace(options, images=LEAST_IMAGES, price=price)

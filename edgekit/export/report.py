"""What an export reports. Apart from what exports, which imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from edgekit.core.documents import Document
from edgekit.targets.operators import Variant

Batch = int | Literal["dynamic"]


@dataclass(frozen=True)
class Agreement:
    """What was compared; the logits of an image count if all of its codes agree."""

    images: int
    logits_error: float  # largest difference over the largest magnitude, in the worst batch
    tolerance: float  # what was allowed: 1e-4, or more if the model itself rounds more
    codes: int
    code_ties: int  # codes that differ because the margin is below rounding

    def describe(self) -> str:
        """One line for the user."""
        text = f"{self.images} random images: logits equal torch's to {self.logits_error:.1e}"
        if self.codes:
            text += f", {self.codes - self.code_ties} of {self.codes} codes identical"
        if self.code_ties:
            text += " (the others are ties up to rounding)"
        return text


@dataclass(frozen=True)
class ExportReport(Document):
    """What was written, and what was proven about it."""

    SCHEMA: ClassVar = 1

    path: str
    bytes: int
    sha256: str
    opset: int
    batch: Batch
    """Images per inference, or "dynamic" for any number."""
    vq: Variant
    """The form of the lookup."""
    outputs: tuple[str, ...]
    fold: str
    """What the fold did, in words."""
    zero_branches: int
    """Branches that ended in zeros whatever the image, and were removed."""
    zero_channels: int
    """Channels of convolutions that were zero whatever the image, and were removed."""
    two_of_four: int
    """Layers whose weights have two zeros among every four inputs, for sparse tensor cores."""
    agreement: Agreement
    seconds: float

    def describe_zeros(self) -> str:
        """What zeros in the weights came to, in words; "" if nothing."""
        return zeros_in_words(self.zero_branches, self.zero_channels, self.two_of_four)


def zeros_in_words(branches: int, channels: int, two_of_four: int) -> str:
    """What was left out because it was zero whatever the image, and which zeros stay for a use."""
    parts = [
        f"{count:,} {one if count == 1 else several}"
        for count, one, several in (
            (branches, "branch", "branches"),
            (channels, "channel", "channels"),
        )
        if count
    ]
    removed = f"always zero, so removed: {' and '.join(parts)}" if parts else ""
    thin = f"2:4 weights in {two_of_four} layer{'' if two_of_four == 1 else 's'}"
    return "; ".join(filter(None, (removed, thin if two_of_four else "")))

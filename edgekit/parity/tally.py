"""Accumulates a comparison image by image; memory grows by about 200 bytes per image."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError
from edgekit.data.corruption_grid import Cells
from edgekit.metrics.codes import (
    MARGIN_QUANTILES,
    code_agreement,
    code_counts,
    code_usage,
    margin_histogram,
    margin_summary,
    occupied_bins,
)
from edgekit.metrics.corruption_error import CellErrors, kl_divergence
from edgekit.metrics.intervals import Interval, agreement_interval
from edgekit.parity.answer_cache import Outputs
from edgekit.parity.closeness import ClosenessTally
from edgekit.parity.document import (
    ClassAgreement,
    CodeAgreement,
    Divergence,
    Estimate,
    MarginGroup,
    MarginHistogram,
    Margins,
    Usage,
    UsageOfBoth,
)
from edgekit.parity.sweep import ImagePair
from edgekit.parity.top_five import LEAST_CLASSES, TopFiveTally

Floats = NDArray[np.float64]


class ImageScore(NamedTuple):
    """What one image contributes."""

    difference: NDArray[np.int8]  # [C, S]: candidate wrong minus reference wrong; 0 unlabeled
    measured: NDArray[np.bool_]  # [C, S]: the cells that the image went through
    same_class: float  # share of equal classes over its corrupted variants
    same_code: float | None  # share of equal codes over its corrupted variants


class Tally:
    """Sums over images; index 0 of an axis of length V = 1 + cells is the clean variant.

    An image may have gone through part of the cells; a cell's figures cover the images that went
    through it.

    ``codebook_size`` is 0 where there are no codes to compare: no codebook, or two different
    ones, whose indices mean different things.
    """

    def __init__(self, cells: Cells, *, labeled: bool, codebook_size: int) -> None:
        self.cells = cells
        self.labeled = labeled
        self.images = 0
        self.computed = 0
        self.evaluated = 0  # inferences behind the figures, of both models
        self._size = codebook_size
        self._names = cells.names()
        variants = 1 + cells.count
        self._image_counts = np.zeros(variants, np.int64)
        self._wrong = {who: np.zeros(variants, np.int64) for who in ("reference", "candidate")}
        self._same_class = np.zeros(variants, np.int64)
        self._same_code = np.zeros(variants)
        self._divergence = np.zeros(variants)
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._margins: NDArray[np.int64] | None = None
        self._differences: list[NDArray[np.int8]] = []  # [C, S] per image
        self._measured: list[NDArray[np.bool_]] = []
        self.closeness = ClosenessTally()
        self.top_five = TopFiveTally(cells)
        self._corrupted_class: list[float] = []  # an image's agreement over its corruptions
        self._corrupted_code: list[float] = []

    def add(self, pair: ImagePair) -> ImageScore:
        """Add an image."""
        numbers = np.array(pair.numbers)
        reference = self._classes("reference", pair.reference, numbers)
        candidate = self._classes("candidate", pair.candidate, numbers)
        difference = np.zeros(self.cells.count, np.int8)
        if self.labeled:
            errors = reference != pair.label, candidate != pair.label
            for who, wrong in zip(self._wrong, errors, strict=True):
                self._wrong[who][numbers] += wrong
            difference[numbers[1:] - 1] = (errors[1].astype(np.int8) - errors[0])[1:]
        measured = np.zeros(self.cells.count, np.bool_)
        measured[numbers[1:] - 1] = True
        shape = (len(self.cells.corruptions), len(self.cells.severities))
        self._differences.append(difference.reshape(shape))
        self._measured.append(measured.reshape(shape))
        same = reference == candidate
        self._same_class[numbers] += same
        self._corrupted_class.append(float(same[1:].mean()))
        self._divergence[numbers] += kl_divergence(pair.reference.log_p, pair.candidate.log_p)
        self.closeness.add(pair)
        if self.labeled and pair.reference.log_p.shape[1] >= LEAST_CLASSES:
            self.top_five.add(pair)
        self._image_counts[numbers] += 1
        self.images += 1
        self.computed += pair.computed
        self.evaluated += 2 * len(numbers)
        return ImageScore(
            self._differences[-1],
            self._measured[-1],
            self._corrupted_class[-1],
            self._add_codes(pair, numbers),
        )

    @property
    def complete(self) -> bool:
        """Whether every cell has an image, and intervals have their two."""
        return self.images > 1 and bool(self._image_counts.all())

    def _classes(self, who: str, outputs: Outputs, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The winning class of each variant; NaN is an error: its argmax would be a class."""
        bad = outputs.top < 0
        if bad.any():
            raise EdgekitError(
                f"the {who} returned NaN or infinite logits for {int(bad.sum())} of {bad.size} "
                f"variants of an image, such as {self._names[numbers[bad.argmax()]]}: build it "
                "again with another precision or calibration recipe"
            )
        return outputs.top

    def _add_codes(self, pair: ImagePair, numbers: NDArray[np.int64]) -> float | None:
        one, two = pair.reference.code, pair.candidate.code
        if not self._size or one is None or two is None:
            return None
        flat = [codes.reshape(len(codes), -1) for codes in (one, two)]
        same = code_agreement(*flat)
        self._same_code[numbers] += same
        for who, codes in (("reference", one), ("candidate", two)):
            counts = code_counts(codes, self._size)
            self._counts[who] = self._counts[who] + counts if who in self._counts else counts
        if pair.reference.margin is not None:
            margins = np.maximum(pair.reference.margin, 0).reshape(flat[0].shape)
            histogram = margin_histogram(margins, *flat)
            self._margins = histogram if self._margins is None else self._margins + histogram
        corrupted = float(same[1:].mean())
        self._corrupted_code.append(corrupted)
        return corrupted

    def differences(self) -> NDArray[np.int8]:
        """Candidate wrong minus reference wrong: [images, C, S]."""
        return np.stack(self._differences)

    def measured(self) -> NDArray[np.bool_] | None:
        """The cells that each image went through [images, C, S]; None: all of them."""
        measured = np.stack(self._measured)
        return None if measured.all() else measured

    def clean_error(self, who: str) -> float:
        """Fraction of the clean images that a model misclassifies."""
        return float(self._wrong[who][0] / self.images)

    def errors(self, who: str) -> CellErrors:
        """Error fraction of every cell."""
        shares = (self._wrong[who] / self._image_counts)[1:].reshape(
            len(self.cells.corruptions), -1
        )
        return {
            name: dict(zip(self.cells.severities, row.tolist(), strict=True))
            for name, row in zip(self.cells.corruptions, shares, strict=True)
        }

    def code_interval(self, confidence: float = 0.95) -> Interval | None:
        """Agreement of the codes over the corrupted cells, clustered by image."""
        if not self._corrupted_code:
            return None
        return agreement_interval(np.array(self._corrupted_code), confidence)

    def class_interval(self, confidence: float = 0.95) -> Interval:
        """Agreement of the classes over the corrupted cells, clustered by image."""
        return agreement_interval(np.array(self._corrupted_class), confidence)

    def classes(self) -> ClassAgreement:
        """How often the classes agree."""
        return ClassAgreement(
            clean=float(self._same_class[0] / self.images),
            corrupted=estimate(self.class_interval()),
            per_corruption=self._by_corruption(self._same_class),
        )

    def divergence(self) -> Divergence:
        """How far apart the probabilities are."""
        means = self._divergence / self._image_counts
        return Divergence(
            clean=float(means[0]),
            corrupted=float(means[1:].mean()),
            per_corruption=self._by_corruption(self._divergence),
        )

    def codes(self) -> CodeAgreement | None:
        """How often the codes agree; None where there are none to compare."""
        interval = self.code_interval()
        if interval is None:
            return None
        usage = {who: _usage(counts) for who, counts in self._counts.items()}
        return CodeAgreement(
            clean_agreement=float(self._same_code[0] / self.images),
            corrupted_agreement=estimate(interval),
            per_corruption=self._by_corruption(self._same_code),
            usage=UsageOfBoth(**usage),
            margins=None if self._margins is None else _margins(self._margins),
        )

    def _by_corruption(self, sums: NDArray[Any]) -> dict[str, float]:
        means = (
            (sums / self._image_counts)[1:].reshape(len(self.cells.corruptions), -1).mean(axis=1)
        )
        return dict(zip(self.cells.corruptions, means.tolist(), strict=True))


def estimate(interval: Interval) -> Estimate:
    """An interval for the document."""
    return Estimate(interval.estimate, interval.lower, interval.upper)


def _usage(counts: NDArray[np.int64]) -> Usage:
    usage = code_usage(counts)
    return Usage(usage.size, usage.used, usage.perplexity)


def _margins(histogram: NDArray[np.int64]) -> Margins:
    summary = margin_summary(histogram)
    return Margins(
        quantiles=MARGIN_QUANTILES,
        agreeing=MarginGroup(summary.agreeing, summary.agreeing_quantiles),
        flipped=MarginGroup(summary.flipped, summary.flipped_quantiles),
        histogram=MarginHistogram(*occupied_bins(histogram)),
    )

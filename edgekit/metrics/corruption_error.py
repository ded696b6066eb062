"""What parity measures: error per cell, mean corruption error, agreement and divergence.

A *cell* is one corruption at one severity. Errors are fractions in [0, 1]; summary figures (mCE
and its relatives) are in percent, as the literature prints them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekit.core.errors import EdgekitError, UsageError

Baseline = Literal["alexnet", "none"]
CellErrors = Mapping[str, Mapping[int, float]]
"""Error fractions as ``errors[corruption][severity]``."""

SEVERITIES = (1, 2, 3, 4, 5)

# AlexNet's error on ImageNet-C, each the mean over severities 1 to 5: the denominators of mCE
# (the table in hendrycks/robustness, at the precision AugMix's evaluation uses).
ALEXNET_ERROR: Mapping[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
# The four held-out types. They are reported, but mCE is defined over the fifteen above.
ALEXNET_ERROR_EXTRA: Mapping[str, float] = {
    "speckle_noise": 0.845,
    "gaussian_blur": 0.787,
    "spatter": 0.718,
    "saturate": 0.658,
}
ALEXNET_CLEAN_ERROR = 0.4348

BENCHMARK_CORRUPTIONS = tuple(ALEXNET_ERROR)
IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class MeanCorruptionError:
    """A mean corruption error, with everything that defines it."""

    value_percent: float
    baseline: Baseline
    relative: bool
    per_corruption: Mapping[str, float]  # percent; what `value_percent` averages, and the extras
    averaged: tuple[str, ...]  # the corruptions inside `value_percent`
    severities: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether this is the published benchmark: all 15 corruptions at all 5 severities."""
        return set(self.averaged) == set(BENCHMARK_CORRUPTIONS) and self.severities == SEVERITIES

    @property
    def label(self) -> str:
        """The figure's name, with whatever makes it incomparable with published ones."""
        name = "relative mCE" if self.relative else "mCE"
        if self.baseline == "none":
            name = f"unnormalized {name}"
        if self.complete:
            return name
        severities = ",".join(map(str, self.severities))
        plural = "" if len(self.averaged) == 1 else "s"
        return f"{name} over {len(self.averaged)} corruption{plural} at severities {severities}"


def choose_baseline(number_of_classes: int, severities: Sequence[int] = SEVERITIES) -> Baseline:
    """AlexNet's constants for ImageNet's 1000 classes, "none" for everything else.

    The constants are means over severities 1 to 5 of ImageNet-C: they say nothing about another
    data set or about part of the severities. Other data with 1000 classes needs "none", given
    explicitly.
    """
    if number_of_classes == IMAGENET_CLASSES and tuple(sorted(severities)) == SEVERITIES:
        return "alexnet"
    return "none"


def averaged_corruptions(corruptions: Sequence[str]) -> tuple[str, ...]:
    """The corruptions a mean is taken over: the extras count only where nothing else was chosen."""
    main = tuple(name for name in corruptions if name not in ALEXNET_ERROR_EXTRA)
    return main or tuple(corruptions)


def alexnet_error(corruption: str) -> float:
    """AlexNet's mean error (a fraction) for one of the 19 known corruptions."""
    for table in (ALEXNET_ERROR, ALEXNET_ERROR_EXTRA):
        if corruption in table:
            return table[corruption]
    raise UsageError(
        f"corruption '{corruption}' has no AlexNet error to normalize by: use --normalize-by none"
    )


def check_baseline(baseline: Baseline, severities: Sequence[int]) -> None:
    """Refuse AlexNet's constants where they do not apply: they are means over severities 1-5."""
    if baseline not in ("alexnet", "none"):
        raise UsageError(f"unknown mCE baseline '{baseline}': use 'alexnet' or 'none'")
    if baseline == "alexnet" and tuple(sorted(severities)) != SEVERITIES:
        raise UsageError(
            f"AlexNet's errors are means over severities 1-5, but severities {list(severities)} "
            "were measured: measure all five or use --normalize-by none"
        )


def mce(errors: CellErrors, baseline: Baseline) -> MeanCorruptionError:
    """Mean corruption error: 100 times the mean over corruptions of ``error_c / baseline_c``.

    ``error_c`` is the mean over the measured severities; ``baseline_c`` is AlexNet's mean error,
    or 1 for the baseline "none". A part of the corruptions gives the mean over that part, and the
    result's label says so. Every corruption must have been measured at the same severities.
    """
    severities = _common_severities(errors)
    check_baseline(baseline, severities)
    per_corruption = {
        name: 100 * float(np.mean(list(cells.values()))) / _denominator(name, baseline)
        for name, cells in errors.items()
    }
    return _mean_of(per_corruption, baseline, severities, relative=False)


def relative_mce(errors: CellErrors, clean_error: float, baseline: Baseline) -> MeanCorruptionError:
    """Relative mCE: how much a model loses from its own clean error, against AlexNet's loss.

    100 times the mean over corruptions of ``(error_c - clean) / (alexnet_c - alexnet_clean)``, or
    of ``error_c - clean`` for the baseline "none".
    """
    severities = _common_severities(errors)
    check_baseline(baseline, severities)
    _check_fraction(clean_error, "clean")
    per_corruption = {}
    for name, cells in errors.items():
        loss = float(np.mean(list(cells.values()))) - clean_error
        own = alexnet_error(name) - ALEXNET_CLEAN_ERROR if baseline == "alexnet" else 1.0
        per_corruption[name] = 100 * loss / own
    return _mean_of(per_corruption, baseline, severities, relative=True)


def predicted_classes(
    logits: npt.NDArray[np.floating], *, model: str, cell: str
) -> npt.NDArray[np.int64]:
    """The winning class of each row of ``logits`` [B, classes]; a NaN or infinity is an error.

    An argmax over NaN would silently be a class, and a broken engine would look like a bad one.
    """
    bad = ~np.isfinite(logits).all(axis=1)
    if bad.any():
        raise EdgekitError(
            f"the {model} returned NaN or infinite logits for {int(bad.sum())} of {len(logits)} "
            f"images in {cell}: rebuild it with another precision or calibration recipe"
        )
    return np.asarray(logits.argmax(axis=1), dtype=np.int64)


def wrong(
    predicted: npt.NDArray[np.integer], labels: npt.NDArray[np.integer] | None, *, cell: str
) -> npt.NDArray[np.bool_]:
    """For each image of a cell, whether its predicted class is not its label: bool [B]."""
    if labels is None:
        raise UsageError(f"{cell} has no labels: parity needs labeled images, one folder a class")
    if len(predicted) == 0:
        raise UsageError(f"{cell} has no images: check the data folder")
    if predicted.shape != labels.shape:
        raise EdgekitError(f"{cell} has {len(predicted)} predictions for {len(labels)} labels")
    if (labels < 0).any():
        raise UsageError(f"{cell} has {int((labels < 0).sum())} images without a label")
    return np.asarray(predicted != labels, dtype=np.bool_)


def kl_divergence(
    reference_logits: npt.NDArray[np.floating], candidate_logits: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """KL(reference || candidate) of the softmax outputs, one value per image, in nats: [B].

    Taken from log-softmax in double, so that large or far apart logits neither overflow nor
    produce 0 * log 0. Never negative: rounding below zero is clipped.
    """
    if reference_logits.shape != candidate_logits.shape:
        raise EdgekitError(
            f"logits of shape {reference_logits.shape} (reference) and "
            f"{candidate_logits.shape} (candidate): the two models do not share their classes"
        )
    log_p = _log_softmax(reference_logits)
    log_q = _log_softmax(candidate_logits)
    divergence = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    return np.asarray(np.maximum(divergence, 0.0), dtype=np.float64)


def _log_softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _mean_of(
    per_corruption: Mapping[str, float],
    baseline: Baseline,
    severities: tuple[int, ...],
    *,
    relative: bool,
) -> MeanCorruptionError:
    averaged = averaged_corruptions(tuple(per_corruption))
    value = float(np.mean([per_corruption[name] for name in averaged]))
    return MeanCorruptionError(value, baseline, relative, per_corruption, averaged, severities)


def _denominator(corruption: str, baseline: Baseline) -> float:
    return alexnet_error(corruption) if baseline == "alexnet" else 1.0


def _common_severities(errors: CellErrors) -> tuple[int, ...]:
    """Check every cell's error; returns the severities, which all corruptions must share."""
    if not errors:
        raise UsageError("no corruption was evaluated: choose at least one")
    first, cells = next(iter(errors.items()))
    severities = tuple(sorted(cells))
    for name, measured in errors.items():
        if not measured:
            raise UsageError(f"{name} has no evaluated severity: choose at least one")
        if tuple(sorted(measured)) != severities:
            raise UsageError(
                f"{name} was measured at severities {sorted(measured)} but {first} at "
                f"{list(severities)}: measure the same severities for every corruption"
            )
        for severity, error in measured.items():
            _check_fraction(error, f"{name} severity {severity}")
    return severities


def _check_fraction(error: float, cell: str) -> None:
    if not 0 <= error <= 1:  # also catches NaN, the mean error of an empty cell
        raise UsageError(
            f"the error of {cell} is {error}, not a fraction in [0, 1]: is the cell empty?"
        )

"""Calibration recipes: which images set the activation ranges, how, and what may stay float."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from edgekit.core.errors import UsageError
from edgekit.core.resources import resource
from edgekit.core.typed_toml import nearest, read_toml
from edgekit.data.corruptions import parse_seen
from edgekit.quantize.metric import METRIC, Metric
from edgekit.targets.dialects import Dialect

RECIPES = ("default", "robust", "stratified", "controlled", "nearest", "clean", "fast")

Selection = Literal["random", "balanced", "stratified", "quality"]
Statistics = Literal["mean-minmax", "minmax", "percentile", "mse"]
Rule = Literal[
    "attention", "squeeze-excite", "gated-depthwise", "activations", "batch-norms", "normed-sums"
]


@dataclass(frozen=True)
class Recipe:
    """One calibration; the file ``calib/NAME.toml`` holds what deviates from these defaults."""

    description: str = ""
    images: int = 300
    # random: any; balanced: every class in proportion; stratified: every corruption in proportion
    # and within each the codewords that the float model uses, as evenly as the images allow;
    # quality: likewise sharpness, noise, blockiness and exposure instead of codewords.
    selection: Selection = "balanced"
    # Which fraction of the images is corrupted, how (names or a group), and how strongly.
    corrupted_share: float = 0.0
    corruptions: str = "none"
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    # performance: zero-point 0 everywhere; mixed: asymmetric activations where they pay.
    preset: Literal["performance", "mixed"] = "performance"
    # An activation's range. mean-minmax: the mean over images of their extremes; minmax: the
    # extremes of all; percentile: the mean over images of a quantile; mse: the range with the
    # least squared rounding error, from a histogram.
    statistics: Statistics = "mean-minmax"
    percentile: float = 99.99  # of "percentile", in percent
    # How a convolution's weights are rounded. least-error: to minimize the error of its output on
    # the calibration images; nearest: every weight to the nearest level.
    rounding: Literal["least-error", "nearest"] = "least-error"
    # fast: NNCF's fast correction; full: also depthwise convolutions, which NNCF's leaves out.
    bias_correction: Literal["full", "fast", "none"] = "full"
    # Precision of the first depthwise convolution; edgekit.quantize.float_scope says why.
    first_depthwise: Literal["float", "int8"] = "float"
    # Parts of the backbone that stay float, if a network has them (the same module says why).
    keep: tuple[Rule, ...] = get_args(Rule)
    smooth_quant: float = 0.0  # strength for convolutions and products, 0 is off
    ignored: tuple[str, ...] = ()  # more layers in float: names or patterns of nodes or weights
    # Accuracy control: layers go back to float, the most harmful first, until the loss against
    # float is at most this many points of the metric. None leaves all layers in INT8.
    max_drop: float | None = None
    metric: Metric = METRIC
    control_images: int = 200  # of the validation part, each clean and corrupted five times

    def __post_init__(self) -> None:
        """Refuse what cannot be calibrated."""
        if self.images < 1:
            raise UsageError(f"images must be at least 1, not {self.images}")
        if not 0 <= self.corrupted_share <= 1:
            raise UsageError(f"corrupted_share must be 0 to 1, not {self.corrupted_share}")
        names = parse_seen(self.corruptions)
        if self.corrupted_share > 0 and not names:
            raise UsageError("corrupted_share is above 0, but corruptions names none")
        if not self.severities or not set(self.severities) <= {1, 2, 3, 4, 5}:
            raise UsageError(f"severities must be some of 1 to 5, not {list(self.severities)}")
        if not 50 < self.percentile <= 100:
            raise UsageError(f"percentile must be above 50 and at most 100, not {self.percentile}")
        if not 0 <= self.smooth_quant <= 1:
            raise UsageError(f"smooth_quant must be 0 to 1, not {self.smooth_quant}")
        if self.max_drop is not None and not self.max_drop >= 0:
            raise UsageError(f"max_drop must not be negative, not {self.max_drop}")
        if self.control_images < 2:
            raise UsageError(f"control_images must be at least 2, not {self.control_images}")


def read_recipe(
    name: str, *, max_drop: float | None = None, metric: Metric | None = None
) -> Recipe:
    """A shipped recipe by name, or a recipe file by path; the other arguments override its keys."""
    recipe = _read(name)
    if max_drop is not None:
        recipe = dataclasses.replace(recipe, max_drop=max_drop)
    return recipe if metric is None else dataclasses.replace(recipe, metric=metric)


def _read(name: str) -> Recipe:
    if name in RECIPES:
        return read_toml(resource(f"calib/{name}.toml"), Recipe)
    path = Path(name)
    if path.suffix == ".toml":
        return read_toml(path, Recipe)
    raise UsageError(f"unknown recipe '{name}'{nearest(name, list(RECIPES))}; or give a .toml file")


def check_dialect(recipe: Recipe, dialect: Dialect) -> None:
    """Refuse a recipe whose result the dialect could not express."""
    if recipe.preset == "mixed" and dialect.signed_only:
        raise UsageError(
            f"dialect '{dialect.name}' takes zero-point 0 only, but the recipe's preset 'mixed' "
            'yields others: use preset = "performance"'
        )

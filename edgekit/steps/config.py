"""The settings of a build: the one place that knows their defaults."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgekit.bench.options import check_duration
from edgekit.core.errors import UsageError
from edgekit.metrics.budgets import Budgets
from edgekit.parity.tolerance import TOLERANCE, check_tolerance
from edgekit.quantize.metric import Metric
from edgekit.steps.field_options import LEAST_IMAGES
from edgekit.steps.options import BundleOptions, DataOptions, SourceOptions

if TYPE_CHECKING:
    from edgekit.parity.options import ParityOptions
    from edgekit.quantize.recipes import Recipe
    from edgekit.targets.descriptor import Descriptor, Precision

# Settings that name files; a bundle, which may be given away, records only their last part.
_FILES = ("checkpoint", "labels", "data", "recipe", "quantized", "plugin")
# Settings that do not change a bundle; the target is named separately.
_ELSEWHERE = ("target", "out", "zip", "require_engine", "baseline", "budgets")


@dataclass(frozen=True)
class BuildConfig:
    """``edgekit build``: the command's options, which are also the keys of its TOML file."""

    checkpoint: str | None = None  # None: the built-in model, trained on first use
    backbone: str | None = None  # timm:NAME of a plain checkpoint, or module:function
    labels: str | None = None  # class names for a checkpoint that has none
    data: str = "builtin:fashion-mnist"
    target: tuple[str, ...] = ("cpu",)
    out: str = "build"  # every target's bundle becomes a folder in it
    recipe: str = "default"  # calibration: a name of calib/, or a file
    quantized: str | None = None  # the checkpoint's fine-tuned INT8 graph: nothing is calibrated
    # Accuracy control: layers go back to float until at most this many points are lost, of the mean
    # corruption error or of code agreement. None leaves it to the recipe.
    max_drop: float | None = None
    metric: Metric | None = None
    precision: Literal["auto", "int8", "fp32"] = "auto"  # auto: the target's
    # Refuse an INT8 model that answers differently from the float one on over a third of the
    # held-out images.
    guard: bool = True
    # Put coarse mosaics of some validation images into the bundle's self-test; without them its
    # images are synthetic, and cover fewer classes and codes.
    selftest_photos: bool = True
    seed: int = 0
    skip_bad: bool = False  # leave unreadable images out instead of stopping
    zip: bool = False  # a .zip of each bundle as well
    bench: bool = True
    bench_seconds: float = 8.0
    parity: bool = True
    tolerance: float | None = None  # points of mean corruption error; None: the budgets' max_drop
    parity_images: int = 0  # most test images to use; 0: all
    images: bool = True  # keep a few test images in the bundle, for its report
    # Put into the bundle what a monitor of the deployed model compares with. None: if there are
    # enough validation images.
    watch: bool | None = None
    # Most images that this is made of; None: 2,000, or fewer if the model is expensive.
    watch_images: int | None = None
    plugin: str | None = None  # TensorRT plugin, compiled for the device, to include
    require_engine: bool = False  # fail if a TensorRT engine can only be built on its device
    baseline: str | None = None  # an earlier bundle, or a folder with one for every target
    budgets: Budgets = field(default_factory=Budgets)  # limits that every bundle must keep

    def __post_init__(self) -> None:
        """Refuse values that cannot be built with."""
        if not self.target:
            raise UsageError("target names no device: give at least one")
        if len(set(self.target)) < len(self.target):
            raise UsageError(f"target names a device twice: {', '.join(self.target)}")
        if self.quantized is not None and self.precision == "fp32":
            raise UsageError("quantized names an INT8 graph: precision must not be fp32")
        check_tolerance(self.most_drop)
        check_duration("bench_seconds", self.bench_seconds)
        if self.parity_images < 0:
            raise UsageError(f"parity_images must not be negative, not {self.parity_images}")
        if self.watch_images is not None and self.watch_images < LEAST_IMAGES:
            raise UsageError(
                f"watch_images must be at least {LEAST_IMAGES}, not {self.watch_images}"
            )

    @property
    def most_drop(self) -> float:
        """Points of mean corruption error that parity tolerates."""
        if self.tolerance is not None:
            return self.tolerance
        return TOLERANCE if self.budgets.max_drop is None else self.budgets.max_drop

    def source(self) -> SourceOptions:
        """The model to build from."""
        return SourceOptions(self.checkpoint, self.backbone, self.labels)

    def data_options(self) -> DataOptions:
        """The images for calibration and tests."""
        return DataOptions(self.data, self.seed, self.skip_bad)

    def calibration(self) -> Recipe:
        """The recipe, with the options that override it."""
        from edgekit.quantize.recipes import read_recipe

        return read_recipe(self.recipe, max_drop=self.max_drop, metric=self.metric)

    def comparison(self) -> ParityOptions:
        """How bundles are compared with their original."""
        from edgekit.parity.options import Gates, ParityOptions

        gates = Gates(self.most_drop, min_agreement=self.budgets.min_agreement)
        return ParityOptions(gates=gates, images=self.parity_images, seed=self.seed)

    def precision_of(self, descriptor: Descriptor) -> Precision:
        """The user's choice, or else the target's."""
        return descriptor.precision if self.precision == "auto" else self.precision

    def path_of(self, descriptor: Descriptor) -> Path:
        """Where a target's bundle goes."""
        return Path(self.out) / descriptor.name

    def bundle(self, descriptor: Descriptor, key: str) -> BundleOptions:
        """How a target's bundle is written; ``key`` is the hash of everything it depends on."""
        from edgekit.bundle.build_record import BuildRecord

        return BundleOptions(
            path=self.path_of(descriptor),
            precision=self.precision_of(descriptor),
            plugin=self.plugin,
            guard=self.guard,
            selftest_photos=self.selftest_photos,
            rebuild=self.command(descriptor),
            record=BuildRecord(key, data=self.data, seed=self.seed),
        )

    def command(self, descriptor: Descriptor) -> str:
        """The command that builds a target's bundle again, where its files are at hand."""
        words = ["edgekit", "build", "--target", descriptor.name]
        for setting in fields(self):
            value, option = getattr(self, setting.name), setting.name.replace("_", "-")
            if setting.name in _ELSEWHERE or value == setting.default:
                continue
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            else:
                text = _last_part(str(value)) if setting.name in _FILES else str(value)
                words += [f"--{option}", text]
        return shlex.join(words)


def _last_part(name: str) -> str:
    """A file's or folder's own name, without its path on this machine."""
    scheme, colon, rest = name.partition(":")
    if rest.startswith("//"):  # a URL, which is the same on every machine
        return name
    if colon and "/" not in scheme:  # builtin:fashion-mnist, imagenet-c:/data/imagenet-c
        return f"{scheme}:{_last_part(rest)}"
    own = Path(name).name
    return own if own not in ("", "..") else Path(name).resolve().name

"""The settings of a build: the one place that knows their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekit.core.errors import UsageError


@dataclass(frozen=True)
class BuildConfig:
    """``edgekit build``: the command's options and, spelled alike, its TOML file's keys."""

    checkpoint: str | None = None  # None: the built-in model, trained on first use
    backbone: str | None = None  # of a plain timm checkpoint, as timm:NAME
    labels: str | None = None  # class names for a checkpoint that has none
    data: str = "builtin:fashion-mnist"
    target: tuple[str, ...] = ("cpu",)
    out: str = "build"  # every target's bundle becomes a folder in it
    recipe: str = "default"  # calibration: a name of calib/, or a file
    quantized: str | None = None  # the checkpoint's fine-tuned INT8 graph: nothing is calibrated
    # Accuracy control: layers go back to float until no more than so many points are lost, of the
    # mean corruption error or of the codes that agree. None leaves that to the recipe.
    max_drop: float | None = None
    metric: Literal["corruption-error", "code-agreement"] | None = None
    precision: Literal["auto", "int8", "fp32"] = "auto"  # auto: what the target asks for
    # Refuse an INT8 model that gives other answers than the float one for over a third of the
    # images held out.
    guard: bool = True
    # Put coarse mosaics of some validation images into the bundle's self-test; without them its
    # images are made up, and meet fewer classes and codes.
    selftest_photos: bool = True
    seed: int = 0
    skip_bad: bool = False  # leave unreadable images out instead of stopping
    zip: bool = False  # a .zip of each bundle as well
    bench: bool = True
    bench_seconds: float = 8.0
    parity: bool = True
    tolerance: float = 0.5  # points of mean corruption error
    parity_images: int = 0  # test images at most; 0 is all of them
    plugin: str | None = None  # TensorRT plugin, compiled for the device, to put into its bundle
    require_engine: bool = False  # fail where a TensorRT engine can only be built on its device

    def __post_init__(self) -> None:
        """Refuse values with which nothing can be built."""
        if not self.target:
            raise UsageError("target names no device: give at least one")
        if len(set(self.target)) < len(self.target):
            raise UsageError(f"target names a device twice: {', '.join(self.target)}")
        if self.quantized is not None and self.precision == "fp32":
            raise UsageError("quantized names an INT8 graph: precision must not be fp32")
        if not self.tolerance >= 0:
            raise UsageError(f"tolerance must not be negative, not {self.tolerance}")
        if self.bench_seconds <= 0:
            raise UsageError(f"bench_seconds must be positive, not {self.bench_seconds}")
        if self.parity_images < 0:
            raise UsageError(f"parity_images must not be negative, not {self.parity_images}")

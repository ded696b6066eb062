"""The settings that single steps read; their defaults are in the commands' options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.bundle.build_record import BuildRecord
    from edgekit.targets.descriptor import Precision


@dataclass(frozen=True)
class SourceOptions:
    """The checkpoint, and what it may not record about itself."""

    checkpoint: str | None  # None: the built-in model
    backbone: str | None = None  # timm:NAME of a plain checkpoint, or module:function
    labels: str | None = None  # a file of class names


@dataclass(frozen=True)
class DataOptions:
    """The images, and the seed of their split and of every choice among them."""

    data: str
    seed: int
    skip_bad: bool


@dataclass(frozen=True)
class BundleOptions:
    """Where a target's bundle goes, what goes into it and what it records about itself."""

    path: Path
    precision: Precision
    plugin: str | None  # TensorRT's, compiled for the device
    guard: bool  # refuse an INT8 model whose answers differ from float's
    selftest_photos: bool  # put mosaics of some images into the self-test
    rebuild: str  # the command that builds it again
    record: BuildRecord

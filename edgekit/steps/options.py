"""What single steps read of a command's settings, which have no defaults here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.bundle.build_record import BuildRecord
    from edgekit.targets.descriptor import Precision


@dataclass(frozen=True)
class SourceOptions:
    """The checkpoint, and what it may not say of itself."""

    checkpoint: str | None  # None: the built-in model
    backbone: str | None = None  # of a plain timm checkpoint, as timm:NAME
    labels: str | None = None  # a file of class names


@dataclass(frozen=True)
class DataOptions:
    """The images, and the seed of their split and of every choice among them."""

    data: str
    seed: int
    skip_bad: bool


@dataclass(frozen=True)
class BundleOptions:
    """Where a target's bundle goes, what goes into it and what it says of itself."""

    path: Path
    precision: Precision
    plugin: str | None  # TensorRT's, compiled for the device
    guard: bool  # refuse an INT8 model whose answers are not float's
    selftest_photos: bool  # put mosaics of some images into the self-test
    rebuild: str  # the command line that builds it again
    record: BuildRecord

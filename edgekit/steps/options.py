"""What single steps read of a command's settings, which have no defaults here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
class BuildRecord:
    """What a bundle says of the build that made it: its section ``build``."""

    key: str  # of all that the bundle depends on
    data: str
    seed: int

    def to_dict(self, *, complete: bool) -> dict[str, Any]:
        """The section; a bundle is ``complete`` once nothing more is to be done to it."""
        return {"key": self.key, "complete": complete, "data": self.data, "seed": self.seed}


@dataclass(frozen=True)
class BundleOptions:
    """Where a target's bundle goes, what goes into it and what it says of itself."""

    path: Path
    precision: Precision
    plugin: str | None  # TensorRT's, compiled for the device
    guard: bool  # refuse an INT8 model whose answers are not float's
    rebuild: str  # the command line that builds it again
    record: BuildRecord

"""What the steps of a build hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.bundle.engine import engine_pending
from edgekit.bundle.manifest import Manifest
from edgekit.core.console import Console
from edgekit.model.card import ModelCard
from edgekit.steps.config import BuildConfig
from edgekit.targets.descriptor import Descriptor, Precision, why_not_here
from edgekit.targets.dialects import Dialect


@dataclass(frozen=True)
class Job:
    """What every step may look at."""

    config: BuildConfig
    console: Console
    cache: Path
    forced: frozenset[str] = frozenset()  # steps to be done again although they are cached


@dataclass(frozen=True)
class Checkpoint:
    """The trained model that a build starts from."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Exported:
    """The float ONNX graph, folded where that is possible, and the model card."""

    checkpoint: Checkpoint
    onnx: Path
    card: ModelCard
    report: Mapping[str, Any]


@dataclass(frozen=True)
class Quantized:
    """A calibrated ONNX graph, or a float one where nothing was to be calibrated."""

    exported: Exported
    onnx: Path  # in NNCF's form; `legal_onnx` gives the dialect's
    dialect: Dialect | None  # None: float
    recipe: str  # SHA-256 of the recipe; "" when nothing was calibrated
    images: str  # SHA-256 of the list of calibration images
    report: Mapping[str, Any]
    finetuned: Mapping[str, Any] | None = None  # how, where `edgekit finetune` made the graph
    legal: bool = False  # it has the dialect's form already


@dataclass(frozen=True)
class Built:
    """A bundle on disk."""

    path: Path
    descriptor: Descriptor
    quantized: Quantized
    manifest: Manifest

    @property
    def pending(self) -> bool:
        """Whether the bundle runs only after a step on its device."""
        return engine_pending(self.manifest)

    def why_not_measured(self) -> str | None:
        """Why this machine cannot run the bundle, or None."""
        if self.pending:
            return "its engine is built on the device"
        return why_not_here(self.descriptor)


def precision(config: BuildConfig, descriptor: Descriptor) -> Precision:
    """ "int8" or "fp32": what the user says, or what the target asks for."""
    return descriptor.precision if config.precision == "auto" else config.precision

"""The values that the steps of a build pass to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.bundle.engine import engine_pending
from edgekit.bundle.manifest import Manifest
from edgekit.export.report import zeros_in_words
from edgekit.model.card import ModelCard
from edgekit.targets.descriptor import Descriptor, why_not_here
from edgekit.targets.dialects import Dialect

ENGINE_PENDING = "its engine is built on the device"


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

    def describe(self) -> str:
        """What became of the model, in a line."""
        text = f"export: {self.report['fold']}"
        counts = (self.report[name] for name in ("zero_branches", "zero_channels", "two_of_four"))
        zeros = zeros_in_words(*counts)
        return f"{text}; {zeros}" if zeros else text


@dataclass(frozen=True)
class Quantized:
    """A calibrated ONNX graph, or the float graph of a float target."""

    exported: Exported
    onnx: Path  # in NNCF's form; `legal_onnx` gives the dialect's
    dialect: Dialect | None  # None: float
    recipe: str  # SHA-256 of the recipe; "" when nothing was calibrated
    images: str  # SHA-256 of the list of calibration images
    report: Mapping[str, Any]
    finetuned: Mapping[str, Any] | None = None  # the record, if `edgekit finetune` made the graph
    legal: bool = False  # it already has the dialect's form

    def describe(self) -> str:
        """The result of calibration, in a line."""
        name = "float" if self.dialect is None else self.dialect.name
        return f"calibrate ({name}): {self.report['message']}"


@dataclass(frozen=True)
class Built:
    """A bundle on disk."""

    path: Path
    descriptor: Descriptor
    manifest: Manifest

    @property
    def pending(self) -> bool:
        """Whether the bundle runs only after a step on its device."""
        return engine_pending(self.manifest)

    def why_not_measured(self) -> str | None:
        """Why this machine cannot run the bundle, or None."""
        if self.pending:
            return ENGINE_PENDING
        return why_not_here(self.descriptor)

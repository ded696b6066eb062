"""``edgekit inspect``: describes a checkpoint or a bundle, as JSON and as table rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgekit.bench.document import read_summary
from edgekit.bundle.engine import EngineState, engine_pending, next_step
from edgekit.bundle.manifest import FORMAT_VERSION, Manifest
from edgekit.bundle.store import Bundle, open_bundle
from edgekit.core.documents import Document, DocumentError
from edgekit.core.json_schema import Describe, Schema, merged
from edgekit.model.card import ModelCard
from edgekit.parity.document import GRAPH_SECTION, read_graph_parity, read_parity
from edgekit.report.model_facts import model_facts
from edgekit.report.parity_table import looks_line


@dataclass(frozen=True)
class CheckpointReport(Document):
    """The result of `inspect_checkpoint`; ``macs`` are for one image at the model's input size."""

    SCHEMA: ClassVar = 1

    path: str
    file_bytes: int
    card: ModelCard
    parameters: int
    head_parameters: int
    macs: int
    head_macs: int
    fold: str
    """What the fold would do, in words."""
    notes: tuple[str, ...]

    def rows(self) -> list[tuple[str, str]]:
        """Name and value, for the table."""
        card = self.card
        vqsa = card.vqsa
        form = f"{vqsa.output}, {vqsa.quantize} quantization, {vqsa.distance} distance"
        names = ", ".join(card.classes[:4]) + (", ..." if len(card.classes) > 4 else "")
        return [
            ("format", card.origin),
            ("backbone", card.backbone),
            ("head", form if vqsa.output != "none" else "none: a plain classifier"),
            ("feature width D", str(card.width)),
            ("codebook size N", str(vqsa.codebook_size) if vqsa.output != "none" else "-"),
            ("classes", f"{len(card.classes)} ({names})"),
            ("parameters", f"{self.parameters:,} (head {self.head_parameters:,})"),
            ("file size", f"{self.file_bytes / 1e6:.1f} MB"),
            (
                "cost",
                f"{self.macs / 1e9:.3f} GMAC per image (head {self.head_macs / 1e6:.1f} MMAC)",
            ),
            ("deployable form", self.fold),
            ("training", _training(card)),
            ("input", _preprocessing(card)),
        ]


def inspect_checkpoint(
    path: Path, backbone: str | None = None, classes: tuple[str, ...] | None = None
) -> CheckpointReport:
    """Load ``path``, whatever its layout, and measure it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from edgekit.model.checkpoint import load_checkpoint
    from edgekit.model.fold import fold

    model, card, notes = load_checkpoint(path, backbone=backbone, classes=classes)
    with torch.no_grad():
        image = torch.zeros(1, 3, *card.preprocessing.size)
        with FlopCounterMode(display=False) as whole:
            features = model.backbone.features(image, card.vqsa.quantize)
            model.head(features)
        with FlopCounterMode(display=False) as head:
            model.head(features)
        _, folded = fold(model)
    return CheckpointReport(
        path=str(path),
        file_bytes=path.stat().st_size,
        card=card,
        parameters=sum(tensor.numel() for tensor in model.parameters()),
        head_parameters=sum(tensor.numel() for tensor in model.head.parameters()),
        # A multiply-add is two of torch's floating point operations.
        macs=whole.get_total_flops() // 2,
        head_macs=head.get_total_flops() // 2,
        fold=folded.message,
        notes=notes,
    )


@dataclass(frozen=True)
class StoredManifest(Document):
    """``manifest.json`` as it lies in a bundle."""

    SCHEMA: ClassVar = FORMAT_VERSION

    @classmethod
    def json_schema(cls, describe: Describe) -> Schema:
        """Of `Manifest.to_json`."""
        text = "SHA-256 of all of it but ``created``."
        digest = {"properties": {"digest": {"type": "string", "description": text}}}
        return merged(Manifest.json_schema(describe), {**digest, "required": ["digest"]})


@dataclass(frozen=True)
class _AboutFiles(Document):
    SCHEMA: ClassVar = 1

    path: str
    file_bytes: int


@dataclass(frozen=True)
class BundleReport(Document):
    """The content of a bundle's manifest, after verifying every checksum."""

    SCHEMA: ClassVar = 1

    bundle: Bundle
    file_bytes: int

    @property
    def path(self) -> str:
        """As the user named it."""
        return str(self.bundle.path)

    def to_dict(self) -> dict[str, Any]:
        """The ``--json`` document: the whole manifest."""
        own = {"schema": self.SCHEMA, "path": self.path, "file_bytes": self.file_bytes}
        return {**own, **self.bundle.manifest.to_dict()}

    @classmethod
    def json_schema(cls, describe: Describe) -> Schema:
        """The manifest's, and what `to_dict` adds."""
        return merged(Manifest.json_schema(describe), describe(_AboutFiles))

    def rows(self) -> list[tuple[str, str]]:
        """Name and value, for the table."""
        manifest, target = self.bundle.manifest, self.bundle.manifest.target
        need = manifest.runtime
        return [
            ("format", f"bundle, all checksums verified, built {manifest.created}"),
            ("target", f"{target.name}: {target.title}"),
            ("precision", f"{target.precision} (dialect {target.dialect})"),
            ("model", _or_error(self._model)),
            ("classes", str(manifest.classes)),
            ("input", f"{manifest.input.height} x {manifest.input.width} RGB, uint8"),
            ("training", _or_error(self._training)),
            (
                "runtime",
                f"{need.name} {need.version}{'' if need.match == 'exact' else ' or newer'}",
            ),
            *self._engine_row(),
            ("files", f"{', '.join(sorted(manifest.files))} ({self.file_bytes / 1e6:.1f} MB)"),
            ("plugins", self._plugins()),
            ("source checkpoint", manifest.source.checkpoint[:16] or "unknown"),
            ("built with", ", ".join(f"{k} {v}" for k, v in sorted(manifest.versions.items()))),
            ("rebuild", manifest.rebuild_line()),
            ("latency", _or_error(self._latency)),
            ("parity", _or_error(self._parity)),
            *self._graph_row(),
        ]

    def _model(self) -> str:
        model = model_facts(self.bundle.manifest, self.path)
        head = model.vqsa
        codebook = "no codebook"
        if head.has_codebook:
            codebook = f"N = {head.codebook_size}, {head.output}, {head.quantize}"
        return f"{model.backbone}, D = {model.width or 'unknown'}, {codebook}"

    def _training(self) -> str:
        return model_facts(self.bundle.manifest, self.path).training.describe_seen()

    def _latency(self) -> str:
        summary = read_summary(self.bundle)
        own = None if summary is None else summary.own
        return "not measured" if own is None else f"{own.median_ms:.2f} ms"

    def _parity(self) -> str:
        parity = read_parity(self.bundle)
        if parity is None:
            return "not measured"
        looks = [looks_line(parity)] if parity.looks > 1 else []
        return "; ".join([*(parity.reasons or [parity.verdict]), *looks])

    def _plugins(self) -> str:
        names = ", ".join(self.bundle.manifest.plugins)
        return f"{names} (for {self.bundle.manifest.arch})" if names else "none"

    def _engine_row(self) -> list[tuple[str, str]]:
        engine = EngineState.of(self.bundle.manifest)
        if engine is None:
            return []
        build = f"not built yet: {next_step(self.bundle.path)} builds it on the device"
        return [("engine", build if engine.pending else engine.describe())]

    def _graph_row(self) -> list[tuple[str, str]]:
        """Only for a bundle whose engine is, or was, left to its device."""
        sections = self.bundle.manifest.sections
        if GRAPH_SECTION not in sections and not engine_pending(self.bundle.manifest):
            return []
        return [("graph's parity", _or_error(self._graph_parity))]

    def _graph_parity(self) -> str:
        parity = read_graph_parity(self.bundle)
        if parity is None:
            return "not measured"
        return "; ".join([f"{parity.verdict} (not of the engine)", *parity.reasons])


def _or_error(row: Callable[[], str]) -> str:
    """A row from the manifest, or what is wrong with it: the other rows remain valid."""
    try:
        return row()
    except DocumentError as error:
        return str(error)


def is_bundle(path: Path) -> bool:
    """Whether ``path`` looks like a bundle: a folder, or a file named .zip."""
    return path.is_dir() or path.suffix == ".zip"


def inspect_bundle(path: Path) -> BundleReport:
    """Check a bundle as loading would, without its runtime and wherever it is to run."""
    bundle = open_bundle(path, any_arch=True)
    return BundleReport(bundle, sum(file.size for file in bundle.manifest.files.values()))


def _training(card: ModelCard) -> str:
    parts = [card.training.describe_seen()]
    if card.training.data:
        parts.append(f"on {card.training.data}")
    if card.training.note:
        parts.append(f"({card.training.note})")
    return " ".join(parts)


def _preprocessing(card: ModelCard) -> str:
    steps = card.preprocessing
    height, width = steps.size
    mean = ", ".join(f"{value:g}" for value in steps.mean)
    std = ", ".join(f"{value:g}" for value in steps.std)
    return (
        f"{steps.channel_order} {height} x {width}, {steps.interpolation} {steps.resize}, "
        f"crop {steps.crop_ratio:g}, (x - [{mean}]) / [{std}]"
    )

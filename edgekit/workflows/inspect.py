"""``edgekit inspect``: what a checkpoint or a bundle is, as numbers and as rows for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.bundle.manifest import Manifest
from edgekit.bundle.store import open_bundle
from edgekit.core.typed_toml import from_dict
from edgekit.model.card import ModelCard, TrainingProtocol


@dataclass(frozen=True)
class CheckpointReport:
    """What `inspect_checkpoint` found; ``macs`` counts one image at the model's input size."""

    path: str
    file_bytes: int
    card: ModelCard
    parameters: int
    head_parameters: int
    macs: int
    head_macs: int
    fold: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The ``--json`` document."""
        return dataclasses.asdict(self)

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
            ("cost", f"{self.macs / 1e9:.3f} GMAC an image (head {self.head_macs / 1e6:.1f} MMAC)"),
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
class BundleReport:
    """What a bundle's manifest says, after every checksum was found right."""

    path: str
    manifest: Manifest
    file_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The ``--json`` document: the whole manifest."""
        return {"path": self.path, "file_bytes": self.file_bytes, **self.manifest.to_dict()}

    def rows(self) -> list[tuple[str, str]]:
        """Name and value, for the table."""
        manifest, target = self.manifest, self.manifest.target
        model, training = manifest.model, manifest.model.get("training", {})
        seen = from_dict(TrainingProtocol, dict(training), self.path).describe_seen()
        need = manifest.runtime
        rows = [
            ("format", f"bundle, every checksum right, built {manifest.created}"),
            ("target", f"{target.name}: {target.title}"),
            ("precision", f"{target.precision} (dialect {target.dialect})"),
            ("model", f"{model.get('backbone')}, D = {model.get('width')}, {_codebook(model)}"),
            ("classes", str(manifest.classes)),
            ("input", f"{manifest.input.height} x {manifest.input.width} RGB, uint8"),
            ("training", seen),
            (
                "runtime",
                f"{need.name} {need.version}{'' if need.match == 'exact' else ' or newer'}",
            ),
            ("files", f"{', '.join(sorted(manifest.files))} ({self.file_bytes / 1e6:.1f} MB)"),
            ("plugins", ", ".join(manifest.plugins) or "none"),
            ("source checkpoint", manifest.source.checkpoint[:16] or "unknown"),
            ("built with", ", ".join(f"{k} {v}" for k, v in sorted(manifest.versions.items()))),
            ("rebuild", manifest.rebuild_line()),
        ]
        parity, bench = (manifest.sections.get(name) for name in ("parity", "bench"))
        if bench:
            rows.append(("latency", f"{bench['latencies']['bundle']['median_ms']:.2f} ms"))
        rows.append(("parity", "not measured" if not parity else _parity(parity)))
        return rows


def is_bundle(path: Path) -> bool:
    """Whether ``path`` is meant to be a bundle: a folder, or a .zip (which checkpoints are too)."""
    return path.is_dir() or path.suffix == ".zip"


def inspect_bundle(path: Path) -> BundleReport:
    """Check a bundle as loading it would, without its runtime."""
    manifest = open_bundle(path).manifest
    return BundleReport(str(path), manifest, sum(file.size for file in manifest.files.values()))


def _codebook(model: Mapping[str, Any]) -> str:
    vqsa = model.get("vqsa", {})
    if vqsa.get("output") == "none":
        return "no codebook"
    return f"N = {vqsa.get('codebook_size')}, {vqsa.get('output')}, {vqsa.get('quantize')}"


def _parity(parity: Mapping[str, Any]) -> str:
    return "; ".join([str(parity.get("verdict")), *parity.get("reasons", [])])


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

"""From a checkpoint to its float graph, and the images that go with it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from edgekit.core.errors import UsageError
from edgekit.core.files import file_sha256, write_text
from edgekit.core.step_cache import cached, find, versions_of
from edgekit.model.card import card_from_json, numbered_classes
from edgekit.model.labels import read_labels
from edgekit.steps.build_data import BuildData, open_data
from edgekit.steps.config import BuildConfig
from edgekit.steps.job import Checkpoint, Exported, Job


def load(job: Job) -> Checkpoint:
    """The checkpoint that the user named, or the built-in one, trained on first use."""
    if job.config.checkpoint is not None:
        return _hashed(Path(job.config.checkpoint))
    from edgekit.training.builtin_model import train_builtin

    return _hashed(train_builtin(job.cache / "builtin", job.console))


def known_checkpoint(job: Job) -> Checkpoint | None:
    """Like `load`, but None where the built-in model would have to be trained first."""
    if job.config.checkpoint is not None:
        return _hashed(Path(job.config.checkpoint))
    from edgekit.training.builtin_model import builtin_checkpoint

    path = builtin_checkpoint(job.cache / "builtin", job.console)
    return None if path is None else _hashed(path)


def _hashed(path: Path) -> Checkpoint:
    try:
        return Checkpoint(path, file_sha256(path))
    except OSError as error:
        raise UsageError(f"cannot read checkpoint {path}: {error.strerror}") from error


def export(job: Job, checkpoint: Checkpoint) -> Exported:
    """Fold the model and write it as float ONNX, checked against torch."""
    labels = _labels(job.config)

    def make(folder: Path) -> None:
        from edgekit.export.exporter import export_onnx
        from edgekit.model.checkpoint import load_checkpoint

        job.console.info("export: folding the model and writing float ONNX")
        loaded = load_checkpoint(checkpoint.path, backbone=job.config.backbone, classes=labels)
        for note in loaded.notes:
            job.console.info(f"note: {note}")
        report = export_onnx(
            loaded.model, loaded.card, folder / "model.onnx", source=checkpoint.sha256
        )
        write_text(folder / "card.json", loaded.card.to_json())
        document = {**report.to_dict(), "path": "model.onnx"}
        write_text(folder / "report.json", json.dumps(document, sort_keys=True, default=str))

    inputs = export_inputs(job, checkpoint)
    folder = cached(job.cache, "export", inputs, make, job.console, force="export" in job.forced)
    exported = _read_export(checkpoint, folder)
    job.console.info(f"export: {exported.report['fold']}")
    return exported


def export_inputs(job: Job, checkpoint: Checkpoint) -> dict[str, Any]:
    """All that the exported graph depends on."""
    return {
        "checkpoint": checkpoint.sha256,
        "backbone": job.config.backbone,
        "labels": _labels(job.config),
        "tools": versions_of("edgekit", "torch", "onnx", "onnxscript"),
    }


def cached_export(job: Job, checkpoint: Checkpoint) -> Exported | None:
    """The result of `export`, if it is in the cache."""
    folder = find(job.cache, "export", export_inputs(job, checkpoint), job.console)
    return None if folder is None else _read_export(checkpoint, folder)


def _read_export(checkpoint: Checkpoint, folder: Path) -> Exported:
    card = card_from_json((folder / "card.json").read_text(encoding="utf-8"), str(folder))
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return Exported(checkpoint, folder / "model.onnx", card, report)


def name_classes(job: Job, exported: Exported, data: BuildData) -> Exported:
    """Give a model without class names those of the data, where their number agrees."""
    if data.note:
        job.console.warn(data.note)
    nameless = exported.card.classes == numbered_classes(len(exported.card.classes))
    if not (nameless and data.labeled):
        return exported
    card = dataclasses.replace(exported.card, classes=data.names)
    return dataclasses.replace(exported, card=card)


def _labels(config: BuildConfig) -> tuple[str, ...] | None:
    return read_labels(Path(config.labels)) if config.labels else None


def open_build_data(job: Job, exported: Exported) -> BuildData:
    """The build's images, split and matched to the model's classes."""
    return open_data(job.config, exported.card.classes)

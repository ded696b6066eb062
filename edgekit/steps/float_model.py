"""From a checkpoint to its float graph."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.core.errors import UsageError
from edgekit.core.files import file_sha256, write_text
from edgekit.core.step_cache import cached, find, versions_of
from edgekit.model.backbones.import_path import code_key
from edgekit.model.card import card_from_json, numbered_classes
from edgekit.model.labels import read_labels
from edgekit.steps.artifacts import Checkpoint, Exported
from edgekit.steps.build_data import BuildData
from edgekit.steps.context import Context
from edgekit.steps.options import SourceOptions

BUILTIN_FOLDER = "builtin"  # in the cache


def obtain_checkpoint(
    context: Context, source: SourceOptions, *, again: bool = False
) -> Checkpoint:
    """The user's checkpoint, or the built-in one, trained on first use.

    ``again`` trains it even if it is in the cache.
    """
    if source.checkpoint is not None:
        return _hashed(Path(source.checkpoint))
    from edgekit.training.builtin_model import train_builtin

    return _hashed(train_builtin(context.cache / BUILTIN_FOLDER, context.console, force=again))


def known_checkpoint(context: Context, source: SourceOptions) -> Checkpoint | None:
    """Like `obtain_checkpoint`, but None if the built-in model would have to be trained first."""
    if source.checkpoint is not None:
        return _hashed(Path(source.checkpoint))
    from edgekit.training.builtin_model import builtin_checkpoint

    path = builtin_checkpoint(context.cache / BUILTIN_FOLDER, context.console)
    return None if path is None else _hashed(path)


def _hashed(path: Path) -> Checkpoint:
    try:
        return Checkpoint(path, file_sha256(path))
    except OSError as error:
        raise UsageError(f"cannot read checkpoint {path}: {error.strerror}") from error


def export(
    context: Context,
    checkpoint: Checkpoint,
    source: SourceOptions,
    *,
    check: Callable[[tuple[str, ...]], object] | None = None,
    again: bool = False,
) -> Exported:
    """Fold the model and write it as float ONNX, checked against torch.

    ``check`` gets the checkpoint's classes before any of that, which takes half a minute, and
    raises if the images have others. ``again`` exports even if the result is in the cache.
    """
    labels = _labels(source)

    def make(folder: Path) -> None:
        from edgekit.export.exporter import export_onnx
        from edgekit.model.checkpoint import load_checkpoint

        context.console.info("export: folding the model and writing float ONNX")
        loaded = load_checkpoint(checkpoint.path, backbone=source.backbone, classes=labels)
        if check is not None:
            check(loaded.card.classes)
        for note in loaded.notes:
            context.console.info(f"note: {note}")
        report = export_onnx(
            loaded.model, loaded.card, folder / "model.onnx", source=checkpoint.sha256
        )
        write_text(folder / "card.json", loaded.card.to_json())
        document = {**report.to_dict(), "path": "model.onnx"}
        write_text(folder / "report.json", json.dumps(document, sort_keys=True, default=str))

    inputs = _export_inputs(checkpoint, source)
    folder = cached(context.cache, "export", inputs, make, context.console, force=again)
    exported = _read_export(checkpoint, folder)
    context.console.info(exported.describe())
    return exported


def cached_export(
    context: Context, checkpoint: Checkpoint, source: SourceOptions
) -> Exported | None:
    """The result of `export`, if it is in the cache."""
    inputs = _export_inputs(checkpoint, source)
    folder = find(context.cache, "export", inputs, context.console)
    return None if folder is None else _read_export(checkpoint, folder)


def _export_inputs(checkpoint: Checkpoint, source: SourceOptions) -> dict[str, Any]:
    """Everything that the exported graph depends on."""
    return {
        **code_key(source.backbone),
        "checkpoint": checkpoint.sha256,
        "backbone": source.backbone,
        "labels": _labels(source),
        "tools": versions_of("edgekit", "torch", "onnx", "onnxscript"),
    }


def _read_export(checkpoint: Checkpoint, folder: Path) -> Exported:
    card = card_from_json((folder / "card.json").read_text(encoding="utf-8"), str(folder))
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return Exported(checkpoint, folder / "model.onnx", card, report)


def name_classes(exported: Exported, data: BuildData) -> Exported:
    """Give a model without class names those of the data, if their number matches."""
    nameless = exported.card.classes == numbered_classes(len(exported.card.classes))
    if not (nameless and data.labeled):
        return exported
    card = dataclasses.replace(exported.card, classes=data.names)
    return dataclasses.replace(exported, card=card)


def _labels(source: SourceOptions) -> tuple[str, ...] | None:
    return read_labels(Path(source.labels)) if source.labels else None

"""Finds a bundle's float original: an export of the same checkpoint that is still in the cache."""

from __future__ import annotations

import json
from pathlib import Path

from edgekit.core.console import Console
from edgekit.core.step_cache import find


def cached_original(
    cache: Path, checkpoint: str, classes: tuple[str, ...], console: Console
) -> Path | None:
    """An intact float export of this checkpoint from an earlier build; the newest that fits."""
    records = (cache / "export").glob("*/entry.json")
    for record in sorted(records, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            inputs = json.loads(record.read_text(encoding="utf-8"))["inputs"]
            matches = checkpoint and inputs.get("checkpoint") == checkpoint
            matches = matches and inputs.get("labels") in (None, list(classes))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if matches and (entry := find(cache, "export", inputs, console)) is not None:
            return entry / "model.onnx"
    return None

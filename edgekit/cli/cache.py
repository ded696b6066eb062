"""``edgekit cache``: what the cache holds, and how it is emptied."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console
from edgekit.core.documents import Document
from edgekit.core.errors import UsageError
from edgekit.core.tables import Column, Table

PARTS = Table.of(
    "part",
    Column("entries", "figure", drop=2),
    Column("MB", "figure"),
    Column("days unused", "figure", drop=1),
    Column("what it is", "prose"),
)
_DAY = 86_400
MEANINGS = {
    "builtin": "the built-in model, trained on first use",
    "bundles": "unpacked .zip bundles",
    "calibrate": "INT8 graphs",
    "compiled": "models as OpenVINO compiled them",
    "export": "float graphs, references of parity",
    "foreign": "other people's float .onnx files, made ready to calibrate",
    "parity": "answers of models to corrupted images",
    "remote": "images of s3:// and gs:// data",
    "scenes": "images of self-tests",
    "views": "images of the guard",
    "worst": "which folders 'parity --worst' wrote, and may replace",
}


@dataclass(frozen=True)
class CachedPart:
    """What one kind of work keeps."""

    name: str
    entries: int
    bytes: int
    oldest_days: float
    """Days since the entry that was not used for longest was written or taken."""


@dataclass(frozen=True)
class CacheReport(Document):
    """What the cache holds, or what was removed from it."""

    SCHEMA: ClassVar = 1

    path: Path
    removed: bool
    """Whether ``parts`` is what was removed."""
    bytes: int
    parts: tuple[CachedPart, ...]


@click.command(
    cls=Command,
    prints=("cache",),
    short_help="Show or empty the cache.",
    examples="""
    edgekit cache
    edgekit cache clean --older-than 30
    edgekit cache clean
    """,
)
@click.argument("action", type=click.Choice(["list", "clean"]), default="list")
@click.option("--older-than", type=click.FloatRange(0), help="Only what was unused for DAYS.")
@common
def cache(console: Console, action: str, older_than: float | None) -> None:
    """Show what edgekit's cache holds, or remove it with clean.

    Whatever is removed is computed or fetched again when it is needed: minutes for an INT8
    graph or the built-in model. Nothing is removed while another edgekit uses the cache.
    """
    from edgekit.core.cache_space import cache_parts, clean
    from edgekit.core.step_cache import cache_root

    root, cleans = cache_root(), action == "clean"
    if older_than is not None and not cleans:
        raise UsageError("--older-than is for 'edgekit cache clean'")
    now = time.time()
    parts = clean(root, (older_than or 0) * _DAY) if cleans else cache_parts(root)
    found = tuple(
        CachedPart(
            part.name,
            len(part.entries),
            part.bytes,
            round((now - min(entry.used for entry in part.entries)) / _DAY, 1),
        )
        for part in parts
    )
    report = CacheReport(root, cleans, sum(part.bytes for part in found), found)
    console.document(report)
    rows = [
        [
            part.name,
            str(part.entries),
            f"{part.bytes / 1e6:.1f}",
            f"{part.oldest_days:g}",
            MEANINGS.get(part.name, ""),
        ]
        for part in found
    ]
    if rows:
        console.table(PARTS, rows, str(root))
    console.text(f"{'removed ' if cleans else ''}{report.bytes / 1e6:.1f} MB in {root}")

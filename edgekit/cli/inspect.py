"""``edgekit inspect``: what a checkpoint or a bundle is."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console
from edgekit.core.tables import FACTS


@click.command(
    cls=Command,
    prints=(
        "inspect-bundle",
        "inspect-checkpoint",
    ),
    short_help="Show what a checkpoint or a bundle is, and its origin.",
    examples="""
    edgekit inspect best.pth
    edgekit inspect build/cpu
    edgekit inspect resnet50.pth --labels labels.txt --json
    edgekit inspect vit.safetensors --backbone timm:vit_tiny_patch16_224
    """,
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--backbone", help="Whose weights they are, if timm:NAME or module:function.")
@click.option(
    "--labels", type=click.Path(path_type=Path), help="Text file, one class name per line."
)
@common
def inspect(console: Console, path: Path, backbone: str | None, labels: Path | None) -> None:
    """Show what a checkpoint or a bundle is, and where it comes from."""
    from edgekit.core.errors import UsageError
    from edgekit.core.packages import require
    from edgekit.model.labels import read_labels
    from edgekit.workflows.inspect import inspect_bundle, inspect_checkpoint, is_bundle

    if is_bundle(path):
        bundle = inspect_bundle(path)
        console.document(bundle)
        console.table(FACTS, bundle.rows(), str(path))
        return
    if not path.exists():  # said at once: reading a checkpoint imports torch, for seconds
        raise UsageError(f"{path} does not exist: name a checkpoint, or a bundle's folder or .zip")
    require(("torch", "safetensors"), "edgekit inspect of a checkpoint")
    report = inspect_checkpoint(path, backbone, read_labels(labels) if labels else None)
    console.document(report)
    console.table(FACTS, report.rows(), str(path))
    for note in report.notes:
        console.info(f"note: {note}")

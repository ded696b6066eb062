"""``edgekit export``: the float ONNX file of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.common import Command, OutputFile, common
from edgekit.core.console import Console

if TYPE_CHECKING:
    from edgekit.export.report import Batch
    from edgekit.targets.operators import Variant


def _batch(ctx: click.Context, param: click.Parameter, value: str) -> int | str:
    if value == "dynamic":
        return value
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise click.BadParameter(f"'{value}' is neither 'dynamic' nor a batch size", ctx, param)


@click.command(
    cls=Command,
    prints=("export",),
    short_help="Write a checkpoint as a float ONNX file.",
    needs=("torch", "safetensors", "onnx", "onnxscript"),
    examples="""
    edgekit export best.pth
    edgekit export best.pth -o model.onnx --batch 1 --labels labels.txt
    edgekit export best.pth --vq inline        for runtimes without ONNX functions
    """,
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=OutputFile(), help="Default: the checkpoint's name, here.")
@click.option("--opset", type=int, default=18, show_default=True, help="18 to 23.")
@click.option(
    "--batch",
    callback=_batch,
    default="dynamic",
    show_default=True,
    metavar="dynamic|N",
    help="Images per inference.",
)
@click.option(
    "--vq",
    type=click.Choice(["function", "inline", "plugin"]),
    default="function",
    show_default=True,
    help="The lookup: our operator with a body that any runtime can expand, the body inlined, "
    "or our operator alone.",
)
@click.option(
    "--tables/--no-tables",
    default=True,
    help="Store every codeword's projections: larger, but faster.",
)
@click.option(
    "--margin/--no-margin", default=True, help="Add an output with each lookup's certainty."
)
@click.option("--backbone", help="Whose weights they are, if timm:NAME or module:function.")
@click.option(
    "--labels", type=click.Path(path_type=Path), help="Text file, one class name per line."
)
@common
def export(
    console: Console,
    checkpoint: Path,
    output: Path | None,
    opset: int,
    batch: Batch,
    vq: Variant,
    tables: bool,
    margin: bool,
    backbone: str | None,
    labels: Path | None,
) -> None:
    """Write CHECKPOINT as a float ONNX file and check it against PyTorch.

    The graph takes normalized images (float32 NCHW) and returns logits, codes and margins.
    """
    from edgekit.core.files import file_sha256
    from edgekit.export.exporter import export_onnx
    from edgekit.model.checkpoint import load_checkpoint
    from edgekit.model.labels import read_labels

    names = read_labels(labels) if labels else None
    model, card, notes = load_checkpoint(checkpoint, backbone=backbone, classes=names)
    for note in notes:
        console.info(f"note: {note}")
    report = export_onnx(
        model,
        card,
        output or Path(f"{checkpoint.stem}.onnx"),
        opset=opset,
        batch=batch,
        vq=vq,
        tables=tables,
        margin=margin,
        source=file_sha256(checkpoint),
    )
    console.document(report)
    console.info(report.fold)
    if zeros := report.describe_zeros():
        console.info(zeros)
    console.info(f"checked: {report.agreement.describe()}")
    console.text(f"{report.path} ({report.bytes / 1e6:.1f} MB)")

"""``edgekit calibrate``: the INT8 ONNX file of a checkpoint, without compiling it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from edgekit.cli_common import Command, common
from edgekit.console import Console
from edgekit.errors import UsageError


@click.command(
    cls=Command,
    examples="""
    edgekit calibrate best.pth --data ./photos -o model-int8.onnx
    edgekit calibrate best.pth --data ./photos --recipe robust --dialect tensorrt -o jetson.onnx
    """,
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="Images; those of its calibration part are used.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--recipe", default="default", show_default=True, help="A name, or a .toml file.")
@click.option(
    "--dialect",
    default="openvino",
    show_default=True,
    help="What the graph may contain: openvino, openvino-novnni, onnxruntime or tensorrt.",
)
@click.option("--backbone", help="Backbone of a plain timm checkpoint, as timm:NAME.")
@click.option("--labels", help="Text file, a class name a line.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of images.")
@click.option("--skip-bad", is_flag=True, help="Leave unreadable images out.")
@common
def calibrate(
    console: Console,
    checkpoint: Path,
    data: str,
    output: Path,
    recipe: str,
    dialect: str,
    backbone: str | None,
    labels: str | None,
    seed: int,
    skip_bad: bool,
) -> None:
    """Quantize CHECKPOINT to INT8 ONNX; the list of images it saw is written beside it."""
    from edgekit import steps
    from edgekit.cache import cache_root
    from edgekit.config import BuildConfig
    from edgekit.files import write_bytes

    config = BuildConfig(
        checkpoint=str(checkpoint),
        backbone=backbone,
        labels=labels,
        data=data,
        recipe=recipe,
        seed=seed,
        skip_bad=skip_bad,
    )
    listing = output.with_name(f"{output.name}.images.json")
    for path in (output, listing):
        if path.exists():
            raise UsageError(f"{path} exists: choose another name, or remove it")
    job = steps.Job(config, console, cache_root())
    exported = steps.export(job, steps.load(job))
    made = steps.calibrate(job, exported, steps.open_build_data(job, exported), dialect)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        write_bytes(output, steps.legal_onnx(made, Path(folder)).read_bytes())
    write_bytes(listing, (made.onnx.parent / "images.json").read_bytes())
    console.document({"onnx": str(output), "images": str(listing), **made.report})
    console.text(f"wrote {output} and {listing.name}")

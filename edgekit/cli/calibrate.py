"""``edgekit calibrate``: the INT8 ONNX file of a checkpoint, and which layers INT8 hurts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.core.packages import BUILD

if TYPE_CHECKING:
    from edgekit.steps import Job

_SHOWN = 15  # layers in the table; the report has them all


@click.command(
    cls=Command,
    needs=BUILD,
    examples="""
    edgekit calibrate best.pth --data ./photos -o model-int8.onnx
    edgekit calibrate best.pth --data ./photos --recipe stratified --dialect tensorrt -o jetson.onnx
    edgekit calibrate best.pth --data ./photos --max-drop 0.5 -o model-int8.onnx
    edgekit calibrate best.pth --data ./photos --images model-int8.onnx.images.json -o again.onnx
    edgekit calibrate --sensitivity -o report.json
    """,
)
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option("--data", help="Images; those of its calibration part are used.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.")
@click.option("--recipe", help="A name, or a .toml file.  [default]")
@click.option(
    "--images", type=click.Path(path_type=Path), help="Image list of another calibration."
)
@click.option("--max-drop", type=float, help="Points at most that INT8 may lose; see --metric.")
@click.option(
    "--metric",
    type=click.Choice(["corruption-error", "code-agreement"]),
    help="What --max-drop is measured in.  [corruption-error]",
)
@click.option("--sensitivity", is_flag=True, help="Rank the layers by what their INT8 does.")
@click.option("--probe-images", type=int, default=100, show_default=True, help="For --sensitivity.")
@click.option(
    "--dialect",
    default="openvino",
    show_default=True,
    help="What the graph may contain: openvino, openvino-novnni, onnxruntime or tensorrt.",
)
@click.option("--backbone", help="Backbone of a plain timm checkpoint, as timm:NAME.")
@click.option("--labels", help="Text file, a class name a line.")
@click.option("--seed", type=int, help="Of the split and the choice of images.  [0]")
@click.option("--skip-bad", is_flag=True, help="Leave unreadable images out.")
@click.option(
    "--guard/--no-guard",
    default=True,
    show_default=True,
    help="Refuse an INT8 graph whose answers are not float's.",
)
@common
def calibrate(
    console: Console,
    checkpoint: Path | None,
    output: Path | None,
    images: Path | None,
    sensitivity: bool,
    probe_images: int,
    dialect: str,
    **options: Any,
) -> None:
    """Quantize CHECKPOINT to INT8 ONNX; the list of images it saw is written beside it.

    Without a CHECKPOINT: the built-in model.
    """
    from edgekit import steps
    from edgekit.core.step_cache import cache_root
    from edgekit.steps.config import BuildConfig

    if checkpoint is not None and options["data"] is None:
        raise UsageError("--data is missing: name the images to calibrate with")
    if output is None and not sensitivity:
        raise UsageError("-o is missing: name the .onnx file to write")
    given = {name: value for name, value in options.items() if value is not None}
    if images is not None:
        given = {**_of_list(images), **given}
    config = BuildConfig(checkpoint=None if checkpoint is None else str(checkpoint), **given)
    job = steps.Job(config, console, cache_root())
    if sensitivity:
        if output is not None:
            _refuse_existing(output, output.with_suffix(".svg"))
        _rank(job, dialect, output, images, probe_images)
    else:
        assert output is not None
        _write(job, dialect, output, images)


def _of_list(path: Path) -> dict[str, Any]:
    """What a stored list decides unless the command line does: the seed."""
    from edgekit.quantize.calibration_images import read_list

    return {"seed": read_list(path).seed}


def _write(job: Job, dialect: str, output: Path, images: Path | None) -> None:
    from edgekit import steps
    from edgekit.core.files import write_bytes

    listing = output.with_name(f"{output.name}.images.json")
    _refuse_existing(output, listing)
    exported = steps.export(job, steps.load(job))
    data = steps.open_build_data(job, exported)
    made = steps.calibrate(job, exported, data, dialect, images)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        legal = steps.legal_onnx(made, Path(folder))
        closeness = steps.guard_graph(job, made, legal, data)
        write_bytes(output, legal.read_bytes())
    write_bytes(listing, (made.onnx.parent / "images.json").read_bytes())
    document = {"onnx": str(output), "images": str(listing), "guard": closeness.to_dict()}
    job.console.document({**document, **made.report})
    job.console.text(f"wrote {output} and {listing.name}")


def _rank(job: Job, dialect: str, output: Path | None, images: Path | None, count: int) -> None:
    import json

    import onnx

    from edgekit import steps
    from edgekit.core.files import write_text
    from edgekit.quantize.sensitivity import measure
    from edgekit.report.sensitivity import rows, svg

    exported = steps.export(job, steps.load(job))
    data = steps.open_build_data(job, exported)
    made = steps.calibrate(job, exported, data, dialect, images)
    found = measure(
        onnx.load(made.onnx),
        onnx.load(exported.onnx),
        steps.probe_of(job, exported, data, count),
        job.console,
    )
    job.console.document(found.to_dict())
    columns = ("layer", "operation", "margin", "KL", "codes %", "corruption error", "clipped %")
    title = f"loss with one layer in INT8, of {len(found.layers)} layers"
    table = rows(found)
    job.console.table(title, columns, table[:_SHOWN], right=",".join(columns[2:]))
    for line in found.messages():
        job.console.text(line)
    if output is not None:
        write_text(output, json.dumps(found.to_dict(), indent=1))
        write_text(output.with_suffix(".svg"), svg(found))
        job.console.text(f"wrote {output} and {output.with_suffix('.svg').name}")


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise UsageError(f"{path} exists: choose another name, or remove it")

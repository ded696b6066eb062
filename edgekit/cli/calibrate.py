"""``edgekit calibrate``: a classifier's INT8 ONNX file, and the layers that INT8 hurts."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from edgekit.cli.common import Command, OutputFile, common
from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.core.packages import BUILD
from edgekit.quantize.metric import METRIC, Metric
from edgekit.steps.config import BuildConfig
from edgekit.targets.dialects import DEFAULT_DIALECT, DIALECTS, find_dialect

if TYPE_CHECKING:
    from edgekit.quantize.recipes import Recipe
    from edgekit.steps.artifacts import Exported, Quantized
    from edgekit.steps.build_data import BuildData
    from edgekit.steps.context import Context
    from edgekit.steps.options import DataOptions, SourceOptions
    from edgekit.targets.dialects import Dialect

_REPORT = "the calibration's report"
_SHOWN = 15  # layers in the table; the report has them all


@click.command(
    cls=Command,
    prints=("calibrate", "sensitivity"),
    short_help="Quantize a checkpoint or a float ONNX file to INT8 ONNX.",
    needs=BUILD,
    examples="""
    edgekit calibrate best.pth --data ./photos -o int8.onnx
    edgekit calibrate best.pth --data ./photos --dialect tensorrt -o jetson.onnx
    edgekit calibrate best.pth --data ./photos --max-drop 0.5 -o int8.onnx
    edgekit calibrate best.pth --data . --images int8.onnx.images.json -o b.onnx
    edgekit calibrate model.onnx --preprocessing imagenet --data ./photos \\
      --dialect onnxruntime -o int8.onnx
    edgekit calibrate --sensitivity -o report.json
    """,
)
@click.argument("checkpoint", required=False)
@click.option("--data", help="Images; their calibration part is used.")
@click.option("-o", "--output", type=OutputFile(), help="The file to write.")
@click.option(
    "--recipe", default=BuildConfig.recipe, show_default=True, help="A name, or a .toml file."
)
@click.option(
    "--images", type=click.Path(path_type=Path), help="Image list of another calibration."
)
@click.option("--max-drop", type=float, help="Most points that INT8 may lose; see --metric.")
@click.option(
    "--metric",
    type=click.Choice(get_args(Metric)),
    help=f"Unit of --max-drop.  [{METRIC}]",
)
@click.option("--sensitivity", is_flag=True, help="Rank the layers by the harm their INT8 does.")
@click.option(
    "--probe-images", type=int, default=100, show_default=True, help="Images for --sensitivity."
)
@click.option(
    "--dialect",
    type=click.Choice(list(DIALECTS)),
    default=DEFAULT_DIALECT,
    show_default=True,
    help="The runtime's dialect: what the graph may contain.",
)
@click.option("--backbone", help="Whose weights they are, if timm:NAME or module:function.")
@click.option("--labels", help="Text file, one class name per line.")
@click.option("--preprocessing", help="Of an .onnx file: imagenet, lite0, timm:NAME or FILE.toml.")
@click.option(
    "--seed", type=int, help=f"Seed of the split and the choice of images.  [{BuildConfig.seed}]"
)
@click.option("--skip-bad", is_flag=True, help="Leave unreadable images out.")
@click.option(
    "--guard/--no-guard",
    default=True,
    show_default=True,
    help="Refuse an INT8 graph whose answers differ from float's.",
)
@common
def calibrate(
    console: Console,
    checkpoint: str | None,
    data: str | None,
    output: Path | None,
    recipe: str,
    images: Path | None,
    max_drop: float | None,
    metric: Metric | None,
    sensitivity: bool,
    probe_images: int,
    dialect: str,
    backbone: str | None,
    labels: str | None,
    preprocessing: str | None,
    seed: int | None,
    skip_bad: bool,
    guard: bool,
) -> None:
    """Quantize CHECKPOINT to INT8 ONNX, and list the calibration images beside it.

    CHECKPOINT may be anybody's float classifier.onnx: float32 images, channels first, with
    a free batch. Without CHECKPOINT: the built-in model.
    """
    from edgekit.core.step_cache import cache_root
    from edgekit.quantize.calibration_images import read_list
    from edgekit.quantize.recipes import read_recipe
    from edgekit.steps.context import Context
    from edgekit.steps.options import DataOptions, SourceOptions

    if checkpoint is not None and data is None:
        raise UsageError("--data is missing: name the images to calibrate with")
    if output is None and not sensitivity:
        raise UsageError("-o is missing: name the .onnx file to write")
    if preprocessing is not None and not (checkpoint or "").endswith(".onnx"):
        raise UsageError("--preprocessing is for .onnx files: a checkpoint knows its own")
    if seed is None:  # a stored list decides, unless the command line does
        seed = BuildConfig.seed if images is None else read_list(images).seed
    request = _Request(
        Context(console, cache_root()),
        SourceOptions(checkpoint, backbone, labels),
        DataOptions(data or BuildConfig.data, seed, skip_bad),
        read_recipe(recipe, max_drop=max_drop, metric=metric),
        find_dialect(dialect),
        images,
        preprocessing,
    )
    if sensitivity:
        if output is not None:
            _refuse_existing(output)
        _rank(request, output, probe_images)
    else:
        assert output is not None
        _write(request, output, guard=guard)


@dataclass(frozen=True)
class _Request:
    """A calibration as requested on the command line."""

    context: Context
    source: SourceOptions
    data: DataOptions
    recipe: Recipe
    dialect: Dialect
    listing: Path | None
    preprocessing: str | None  # of an .onnx file

    def calibrate(self) -> tuple[Quantized, BuildData]:
        """Calibrate, or use the cached result; also returns the images."""
        from edgekit.steps import calibration as step
        from edgekit.steps.build_data import split_images
        from edgekit.steps.float_model import export, obtain_checkpoint
        from edgekit.steps.foreign_model import is_onnx

        # First what is quick to refuse: a file's options and content, or the images of a model
        # that takes longer to train and to export.
        exported = self._foreign() if is_onnx(self.source.checkpoint) else None
        images = split_images(self.data)
        images.need("calibration")
        if exported is None:
            checkpoint = obtain_checkpoint(self.context, self.source)
            exported = export(self.context, checkpoint, self.source, check=images.matched)
        data = images.matched(exported.card.classes)
        console = self.context.console
        chosen = step.choose_calibration_images(console, data, self.recipe, self.listing)
        calibration = step.Calibration(exported, data, chosen, self.dialect)
        return step.calibrate(self.context, calibration), data

    def _foreign(self) -> Exported:
        from edgekit.foreign.open import ForeignOptions
        from edgekit.model.labels import read_labels
        from edgekit.steps.foreign_model import take_foreign

        source = self.source
        assert source.checkpoint is not None
        if source.backbone is not None:
            raise UsageError("--backbone is for checkpoints: leave it out with an .onnx file")
        names = None if source.labels is None else read_labels(Path(source.labels))
        told = ForeignOptions(self.preprocessing, labels=names)
        return take_foreign(self.context, Path(source.checkpoint), told)


def _write(request: _Request, output: Path, *, guard: bool) -> None:
    from edgekit.core.documents import part
    from edgekit.quantize.results import Calibrated, CalibrationReport, Controlled
    from edgekit.steps.calibration import legal_onnx
    from edgekit.steps.guard import guard_graph

    _refuse_existing(output)
    context = request.context
    quantized, data = request.calibrate()
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        legal = legal_onnx(quantized, Path(folder))
        closeness = guard_graph(context, quantized, legal, data, insist=guard)
        graph = legal.read_bytes()
    listing = output.with_name(f"{output.name}.images.json")
    control = quantized.report.get("control")
    _write_both(output, graph, listing, (quantized.onnx.parent / "images.json").read_bytes())
    context.console.document(
        Calibrated(
            onnx=str(output),
            listing=str(listing),
            message=quantized.report["message"],
            guard=closeness,
            control=None if control is None else part(Controlled, control, _REPORT),
            report=part(CalibrationReport, quantized.report, _REPORT),
        )
    )
    context.console.text(f"wrote {output} and {listing.name}")


def _rank(request: _Request, output: Path | None, count: int) -> None:
    import json

    import onnx

    from edgekit.quantize.sensitivity import measure
    from edgekit.report.sensitivity import LOSSES, rows, svg
    from edgekit.steps.calibration import probe_of

    console = request.context.console
    quantized, data = request.calibrate()
    exported = quantized.exported
    ranking = measure(
        onnx.load(quantized.onnx),
        onnx.load(exported.onnx),
        probe_of(exported, data, count),
        console,
    )
    console.document(ranking)
    title = f"loss with one layer in INT8, of {len(ranking.layers)} layers"
    table = rows(ranking)
    console.table(LOSSES, table[:_SHOWN], title)
    for line in ranking.messages():
        console.text(line)
    if output is not None:
        figure = output.with_suffix(".svg")
        text = json.dumps(ranking.to_dict(), indent=1)
        _write_both(output, text.encode(), figure, svg(ranking).encode())
        console.text(f"wrote {output} and {figure.name}")


def _refuse_existing(output: Path) -> None:
    if output.exists():
        raise UsageError(f"{output} exists: choose another name, or remove it")


def _write_both(output: Path, content: bytes, beside: Path, other: bytes) -> None:
    """``output`` comes last: ``beside`` without it is what a stopped run left, and the same."""
    from edgekit.core.files import write_bytes

    if beside.exists() and beside.read_bytes() != other:
        raise UsageError(
            f"{beside} is there and differs from what belongs to {output}: choose another name, "
            "or remove it"
        )
    write_bytes(beside, other)
    write_bytes(output, content)

"""``edgekit predict``: classify image files with a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.tables import Column, Table

if TYPE_CHECKING:
    from edgekit.runtime.model import Prediction

PREDICTIONS = Table.of(
    "image",
    "label",
    Column("probability", "figure"),
    Column("code", "figure", drop=3),
    Column("margin", "figure", drop=2),
    Column("ms", "figure", drop=1),
)


@click.command(
    cls=Command,
    prints=("predict",),
    short_help="Classify images with a bundle.",
    examples="""
    edgekit predict build/cpu photo.jpg
    edgekit predict build/cpu photos/ --top 3
    edgekit predict build/cpu.zip photos/ --json | jq '.predictions[].label'
    """,
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="Labels shown.")
@click.option(
    "--batch", type=click.IntRange(1), help="Images per inference (default: the target's)."
)
@click.option("--threads", type=click.IntRange(0), help="CPU threads (0: the runtime's choice).")
@click.option(
    "--hint",
    type=click.Choice(["latency", "throughput"]),
    help="What to optimize for (default: the target's).",
)
@common
def predict(
    console: Console,
    bundle: Path,
    images: tuple[Path, ...],
    top: int,
    batch: int | None,
    threads: int | None,
    hint: Literal["latency", "throughput"] | None,
) -> None:
    """Classify IMAGES (files or folders) with BUNDLE (a folder or a .zip).

    Unreadable images are reported and skipped; the command fails only if all are.
    """
    from edgekit.core.progress import track
    from edgekit.runtime.document import PredictedImage, PredictionList
    from edgekit.runtime.model import load

    paths = list(_image_files(images))
    model = load(bundle, threads=threads, hint=hint)
    size = batch or model.manifest.target.batch or min(len(paths), 32)
    stream = model.predict_stream(paths, batch=size, top=top)
    results = list(track(console, stream, len(paths), "images") if len(paths) > 64 else stream)
    bad = [result for result in results if result.error is not None]
    for result in bad:
        console.warn(str(result.error))
    if len(bad) == len(results):
        count = "the image" if len(bad) == 1 else f"any of the {len(bad)} images"
        raise EdgekitError(f"cannot read {count}: {bad[0].error}")
    predictions = tuple(map(PredictedImage.of, results))
    console.document(PredictionList(bundle, model.describe(), predictions, len(bad)))
    console.table(PREDICTIONS, [row for result in results for row in _rows(result)])
    if bad:
        console.warn(f"{len(bad)} of {len(results)} images could not be read")


def _image_files(paths: tuple[Path, ...]) -> Iterator[Path]:
    """The named files, and every image in the named folders, in alphabetical order."""
    from edgekit.data.image_files import EXTENSIONS

    for path in paths:
        if not path.is_dir():
            yield path
            continue
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS)
        if not files:
            raise UsageError(f"{path} has no images in it ({', '.join(EXTENSIONS)})")
        yield from files


def _rows(result: Prediction) -> list[tuple[str, ...]]:
    if result.error is not None:
        return [(result.source, "bad image", "-", "-", "-", "-")]
    rows: list[tuple[str, ...]] = []
    for rank, (label, probability) in enumerate(result.top):
        about = ("", "", "") if rank else _numbers(result)
        rows.append((result.source if rank == 0 else "", label, f"{probability:.3f}", *about))
    return rows


def _numbers(result: Prediction) -> tuple[str, str, str]:
    code, margin = result.code, result.margin
    shown_code = f"{len(code)} codes" if isinstance(code, tuple) else "-" if code is None else code
    least = min(margin) if isinstance(margin, tuple) else margin
    shown_margin = "-" if least is None else f"{least:.4f}"
    return str(shown_code), shown_margin, f"{result.milliseconds:.1f}"

"""``edgekit predict``: classify image files, videos and cameras with a bundle."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.tables import Column, Table

if TYPE_CHECKING:
    from edgekit.runtime.model import Item, Model, Prediction

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
    edgekit predict build/cpu photos/ --csv > labels.csv
    edgekit predict build/cpu clip.mp4 --every 25
    edgekit predict build/cpu camera:0 --csv
    """,
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--top", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Labels shown."
)
@click.option(
    "--batch", type=click.IntRange(1), help="Images per inference (default: the target's)."
)
@click.option("--threads", type=click.IntRange(0), help="CPU threads (0: the runtime's choice).")
@click.option(
    "--hint",
    type=click.Choice(["latency", "throughput"]),
    help="What to optimize for (default: the target's).",
)
@click.option("--csv", "as_csv", is_flag=True, help="CSV on stdout, a row as soon as it is known.")
@click.option(
    "--every", type=click.IntRange(1), default=1, help="Of videos, only every n-th frame."
)
@click.option("--frames", type=click.IntRange(1), help="At most N frames of each video or camera.")
@common
def predict(
    console: Console,
    bundle: Path,
    images: tuple[str, ...],
    top: int,
    batch: int | None,
    threads: int | None,
    hint: Literal["latency", "throughput"] | None,
    as_csv: bool,
    every: int,
    frames: int | None,
) -> None:
    """Classify IMAGES (files or folders) with BUNDLE (a folder or a .zip).

    IMAGES may also be videos, camera:0 or rtsp:// addresses, where OpenCV is installed; frames
    are named clip.mp4#25. Unreadable images are reported and skipped; the command fails only if
    all are.
    """
    from edgekit.core.progress import track
    from edgekit.field.sources import is_live
    from edgekit.runtime.document import PredictedImage, PredictionList
    from edgekit.runtime.model import load

    if as_csv and console.as_json:
        raise UsageError("--csv and --json both print to stdout: choose one")
    live = [name for name in images if is_live(name)]
    if live and frames is None and not as_csv:
        raise UsageError(f"{live[0]} has no end: add --frames N, or --csv for rows as they come")
    sources = list(_sources(images))
    model = load(bundle, threads=threads, hint=hint)
    # What is live is answered at once: nobody waits for 31 more frames.
    size = batch or model.manifest.target.batch or (1 if live else min(_count(sources), 32))
    count = _Count()
    answers = count.over(_answers(model, sources, size, top, every, frames))
    if as_csv:
        _print_csv(console, answers, top)
        count.check(images)
    else:
        if len(sources) > 64 and not any(isinstance(one, str) for one in sources):
            answers = track(console, answers, len(sources), "images")
        results = list(answers)
        for error in filter(None, (result.error for result in results)):
            console.warn(error)
        count.check(images)
        predictions = tuple(map(PredictedImage.of, results))
        console.document(PredictionList(bundle, model.describe(), predictions, count.bad))
        console.table(PREDICTIONS, [row for result in results for row in _rows(result)])
    if count.bad:
        console.warn(f"{count.bad} of {count.images} images could not be read")


@dataclass
class _Count:
    """How many answers there were, and how many say only why there is none."""

    images: int = 0
    bad: int = 0
    first_error: str = ""

    def over(self, answers: Iterator[Prediction]) -> Iterator[Prediction]:
        """Count them as they pass."""
        for answer in answers:
            self.images += 1
            if answer.error is not None:
                self.bad += 1
                self.first_error = self.first_error or answer.error
            yield answer

    def check(self, names: Sequence[str]) -> None:
        """Fail if nothing that was named could be read."""
        if not self.images:
            raise EdgekitError(f"{', '.join(names)}: no frame that OpenCV can read")
        if self.bad == self.images:
            first = self.first_error  # a sentence of its own
            raise EdgekitError(
                first if self.bad == 1 else f"none of the {self.bad} images can be read: {first}"
            )


def _print_csv(console: Console, answers: Iterator[Prediction], top: int) -> None:
    """Print each answer as soon as it is there, and keep none: a camera has no end."""
    from edgekit.runtime.predicted_csv import csv_head, csv_row

    console.csv_row(csv_head(top))
    for answer in answers:
        if answer.error is not None:
            console.warn(answer.error)
        console.csv_row(csv_row(answer, top))


def _sources(names: Iterable[str]) -> Iterator[Path | str]:
    """Paths of image files, those of folders in alphabetical order; videos and cameras by name."""
    from edgekit.data.folder import EXTENSIONS
    from edgekit.field.sources import check_frames, has_frames

    for name in names:
        path = Path(name)
        if has_frames(name) and not path.is_dir():
            check_frames(name)
            yield name
            continue
        if not path.is_dir():
            yield path
            continue
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS)
        if not files:
            raise UsageError(f"{path} has no images in it ({', '.join(EXTENSIONS)})")
        yield from files


def _count(sources: list[Path | str]) -> int:
    """Images; of a video nobody knows how many before the end."""
    return len(sources) if all(isinstance(one, Path) for one in sources) else 32


def _answers(
    model: Model, sources: list[Path | str], batch: int, top: int, every: int, frames: int | None
) -> Iterator[Prediction]:
    """In the order of the images, each under its own name."""
    from edgekit.field.sources import named_frames

    names: deque[str] = deque()  # of what is read and not answered yet

    def items() -> Iterator[Item]:
        for one in sources:
            pairs = [(str(one), one)] if isinstance(one, Path) else named_frames(one, every, frames)
            for name, item in pairs:
                names.append(name)
                yield item

    for answer in model.predict_stream(items(), batch=batch, top=top):
        name, error = names.popleft(), answer.error
        if error is not None:  # of a frame, whose name the model does not know
            error = error.replace(answer.source, name, 1)
        yield dataclasses.replace(answer, source=name, error=error)


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

"""``edgekit parity``: does a bundle keep its original's robustness?"""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli_common import Command, common
from edgekit.console import Console
from edgekit.errors import GateFailed, UsageError


@click.command(
    cls=Command,
    examples="""
    edgekit parity build/cpu
    edgekit parity build/cpu --tolerance 0.3 --min-code-agreement 0.97 || echo "robustness lost"
    edgekit parity build/cpu --data imagenet-c:/data/imagenet-c --full
    edgekit parity build/new --reference build/old --allow-different-reference
    """,
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--reference", help="Checkpoint, float .onnx or bundle; default: its float original.")
@click.option("--data", help="Images; default: the test part of what it was built with.")
@click.option("--labels", help="Class names for a reference checkpoint that has none.")
@click.option(
    "--tolerance", type=float, default=0.5, show_default=True, help="Points of corruption error."
)
@click.option("--corruptions", help="Names or a group, comma-separated.  [benchmark15]")
@click.option("--severities", default="1,2,3,4,5", show_default=True, help="Some of 1 to 5.")
@click.option("--extra", is_flag=True, help="The four extra corruptions as well.")
@click.option("--full", is_flag=True, help="All images, even if fewer would decide.")
@click.option("--images", type=click.IntRange(0), default=0, help="Images at most; 0 is all.")
@click.option("--min-code-agreement", type=click.FloatRange(0, 1), help="Gate, a fraction.")
@click.option("--max-corruption-delta", type=float, help="Gate, points for any one corruption.")
@click.option("--seed", type=int, help="Of split, order and corruptions; default: the build's.")
@click.option("--skip-bad", is_flag=True, help="Leave unreadable images out.")
@click.option("--allow-different-reference", is_flag=True, help="Compare different sources.")
@common
def parity(
    console: Console,
    bundle: Path,
    reference: str | None,
    data: str | None,
    labels: str | None,
    tolerance: float,
    corruptions: str | None,
    severities: str,
    extra: bool,
    full: bool,
    images: int,
    min_code_agreement: float | None,
    max_corruption_delta: float | None,
    seed: int | None,
    skip_bad: bool,
    allow_different_reference: bool,
) -> None:
    """Compare BUNDLE with its float original on clean and corrupted images.

    Exits with 0 when the loss is within the tolerance, with 3 when it is not or when the images
    do not decide.
    """
    from edgekit.cache import cache_root
    from edgekit.parity.compare import Gates
    from edgekit.parity.run import ParityOptions, default_job, parity_of_bundle
    from edgekit.parity.table import COLUMNS, RIGHT, lines, rows

    options = ParityOptions(
        reference=reference,
        data=data,
        labels=labels,
        gates=Gates(tolerance, min_code_agreement, max_corruption_delta),
        corruptions=corruptions,
        severities=_severities(severities),
        extra=extra,
        full=full,
        images=images,
        seed=seed,
        skip_bad=skip_bad,
        allow_different_reference=allow_different_reference,
    )
    document = parity_of_bundle(default_job(console, cache_root()), bundle, options)
    console.document(document)
    first, *rest = lines(document)
    console.text(first)
    if table := rows(document):
        console.table("", COLUMNS, table, right=RIGHT)
    for line in rest:
        console.text(line)
    if document["verdict"] in ("fail", "undecided"):
        worst = ", ".join(document["worst"]).replace("_", " ")
        reasons = "; ".join(document["reasons"])
        raise GateFailed(f"parity {document['verdict']} ({reasons}); lost most on {worst}")


def _severities(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--severities must be numbers such as 1,3,5, not '{text}'") from error

"""``edgekit parity``: does a bundle keep its original's robustness?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console
from edgekit.core.errors import GateFailed, UsageError
from edgekit.parity.tolerance import TOLERANCE

if TYPE_CHECKING:
    from edgekit.metrics.corruption_error import Baseline
    from edgekit.parity.document import ParityDocument


_REASONS = 3  # in the error line; the report has all


@click.command(
    cls=Command,
    short_help="Compare a bundle's robustness with its float original's.",
    needs=("onnx", "onnxruntime", "scipy", "cv2"),
    examples="""
    edgekit parity build/cpu
    edgekit parity build/cpu --tolerance 0.3 || echo "robustness lost"
    edgekit parity build/cpu --data imagenet-c:/data/imagenet-c --full
    edgekit parity build/cpu --reference best.pth --max-corruption-delta 2
    edgekit parity build/new --reference build/old --allow-different-reference
    edgekit parity build/jetson-orin-nano --device nano
    """,
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--reference", help="Checkpoint, float .onnx or bundle; default: its float original.")
@click.option("--data", help="Images, or imagenet-c:FOLDER; default: the build's test images.")
@click.option("--labels", help="Class names for a reference checkpoint that has none.")
@click.option(
    "--tolerance",
    type=float,
    default=TOLERANCE,
    show_default=True,
    help="Points of corruption error.",
)
@click.option("--corruptions", help="Names or a group, comma-separated.  [benchmark15]")
@click.option("--severities", default="1,2,3,4,5", show_default=True, help="Some of 1 to 5.")
@click.option("--extra", is_flag=True, help="Also the four extra corruptions, outside the mean.")
@click.option(
    "--baseline",
    type=click.Choice(["auto", "alexnet", "none"]),
    default="auto",
    show_default=True,
    help="What mCE is normalized by; auto: AlexNet for 1000 classes.",
)
@click.option("--full", is_flag=True, help="Evaluate everything, even if less would decide.")
@click.option("--images", type=click.IntRange(0), default=0, help="Most images to use; 0 for all.")
@click.option(
    "--min-code-agreement", type=float, help="Gate: least share of equal codes, a fraction."
)
@click.option(
    "--max-corruption-delta", type=float, help="Gate: most points lost on any single corruption."
)
@click.option("--seed", type=int, help="Seed of order and corruptions; default: the build's.")
@click.option("--skip-bad", is_flag=True, help="Leave unreadable images out.")
@click.option(
    "--allow-different-reference", is_flag=True, help="Allow a reference from another checkpoint."
)
@click.option("--replace", is_flag=True, help="Replace the bundle's evidence, even if weaker.")
@click.option("--device", help="Run the bundle on a registered device, or user@host.")
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
    baseline: str,
    full: bool,
    images: int,
    min_code_agreement: float | None,
    max_corruption_delta: float | None,
    seed: int | None,
    skip_bad: bool,
    allow_different_reference: bool,
    replace: bool,
    device: str | None,
) -> None:
    """Compare BUNDLE with its float original on clean and corrupted images.

    The result becomes the bundle's evidence, unless stronger evidence exists; then it
    is kept beside that.

    Exits with 0 if the loss is within the tolerance, and with 3 if it is not, if the
    images do not decide, or if they have no labels.
    """
    from edgekit.core.step_cache import cache_root
    from edgekit.parity.options import Gates, ParityOptions
    from edgekit.report.page import refresh_report
    from edgekit.report.parity_table import COLUMNS, RIGHT, header, lines, rows
    from edgekit.steps.context import Context
    from edgekit.workflows.parity import parity_of_bundle, save_report

    options = ParityOptions(
        reference=reference,
        data=data,
        labels=labels,
        gates=Gates(tolerance, min_code_agreement, max_corruption_delta),
        corruptions=corruptions,
        severities=_severities(severities),
        extra=extra,
        baseline=None if baseline == "auto" else cast("Baseline", baseline),
        full=full,
        images=images,
        skip_bad=skip_bad,
        allow_different_reference=allow_different_reference,
    )
    context = Context(console, cache_root())
    if device is None:
        document = parity_of_bundle(context, bundle, options, seed=seed)
    else:
        from edgekit.devices.remote_predictor import on_device

        with on_device(device, bundle, console) as candidate:
            document = parity_of_bundle(context, bundle, options, seed=seed, candidate=candidate)
    document = save_report(bundle, document, console, replace=replace)
    refresh_report(bundle)
    console.document(document.to_dict())
    for line in header(document):
        console.text(line)
    if table := rows(document):
        console.table("", COLUMNS, table, right=RIGHT)
    for line in lines(document):
        console.text(line)
    if document.verdict != "pass":
        raise GateFailed(failure(document))


def failure(document: ParityDocument) -> str:
    """The one line that says why parity did not pass."""
    verdict = document.verdict
    reasons = [reason for reason in document.reasons if not reason.startswith("pass: ")]
    why = "; ".join(reason.removeprefix(f"{verdict}: ") for reason in reasons[:_REASONS])
    if len(reasons) > _REASONS:
        why += f"; and {len(reasons) - _REASONS} more reasons"
    text = f"parity {verdict}: {why}"
    lost = ", ".join(document.worst).replace("_", " ")
    return f"{text}; lost most on {lost}" if lost else text


def _severities(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--severities must be numbers such as 1,3,5, not '{text}'") from error

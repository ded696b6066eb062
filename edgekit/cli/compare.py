"""``edgekit compare``: what has changed between two bundles, or two training runs."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console


@click.command(
    cls=Command,
    prints=("compare",),
    short_help="Show what differs between two bundles, or two runs.",
    examples="""
    edgekit compare build/cpu previous/cpu.zip
    edgekit compare build/cpu build/openvino-cpu-vnni -v
    edgekit compare build/cpu previous/cpu --json | jq '.differ'
    edgekit compare runs/first runs/second
    """,
)
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@common
def compare(console: Console, a: Path, b: Path) -> None:
    """Show what differs between A and B: bundles (folders or .zip), or runs.

    Runs are folders of 'edgekit train', or of 'edgekit finetune'.

    First what differs, in one line; then the facts that do (weights, target, options, versions,
    classes, calibration), and the evidence side by side: sizes, robustness, speed. Of runs, the
    settings and the best epoch's results. -v adds the error under each corruption.

    Exits with 0 whether they differ or not: for a gate, see 'edgekit parity --baseline'.
    """
    from edgekit.core.errors import UsageError
    from edgekit.report.compare_bundles import compare_bundles
    from edgekit.report.compare_runs import compare_runs
    from edgekit.report.compared_table import show
    from edgekit.training.run_log import is_run

    runs = [is_run(path) for path in (a, b)]
    if runs[0] != runs[1]:
        run, other = (a, b) if runs[0] else (b, a)
        raise UsageError(f"{run} holds a run, {other} does not: name two of the same kind")
    report = compare_runs(a, b) if runs[0] else compare_bundles(a, b)
    console.document(report)
    show(console, report)

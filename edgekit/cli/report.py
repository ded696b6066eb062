"""``edgekit report``: one HTML page about a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console


@click.command(
    cls=Command,
    prints=("report",),
    short_help="Put everything known about a bundle on one HTML page.",
    examples="""
    edgekit report build/cpu
    edgekit report build/cpu.zip -o report.html
    """,
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="HTML file; default: in the bundle."
)
@common
def report(console: Console, bundle: Path, output: Path | None) -> None:
    """Put everything known about BUNDLE on one HTML page: speed, robustness, gaps.

    The page is self-contained. Its figures come from bench.json and parity.json,
    which 'edgekit bench' and 'edgekit parity' store in the bundle.
    """
    from edgekit.report.page import WrittenReport, write_report

    path = write_report(bundle, output)
    console.document(WrittenReport(bundle, path))
    console.text(f"wrote {path}")

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
    edgekit report build/cpu build/openvino-cpu-vnni -o both.html
    """,
)
@click.argument(
    "bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="HTML file; default: in the bundle."
)
@common
def report(console: Console, bundles: tuple[Path, ...], output: Path | None) -> None:
    """Put everything known about BUNDLE on one HTML page: verdict, speed, gaps.

    The page is self-contained. Its figures come from bench.json and parity.json,
    which 'edgekit bench' and 'edgekit parity' store in the bundle. Several
    bundles are put side by side, in the file that -o names.
    """
    from edgekit.core.errors import UsageError
    from edgekit.report.page import WrittenReport, write_report
    from edgekit.report.several import write_several

    if len(bundles) == 1:
        path = write_report(bundles[0], output)
    elif output is None:
        raise UsageError("the page about several bundles is in none of them: name a file with -o")
    else:
        write_several(bundles, output)
        path = output
    console.document(WrittenReport(bundles[0], path, bundles))
    console.text(f"wrote {path}")

"""``edgekit report``: one HTML page about a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.common import Command, OutputFile, common
from edgekit.core.console import Console

if TYPE_CHECKING:
    from edgekit.field.history import FieldAgainstLab


@click.command(
    cls=Command,
    prints=("report",),
    short_help="Put everything known about a bundle on one HTML page.",
    examples="""
    edgekit report build/cpu
    edgekit report build/cpu.zip -o report.html
    edgekit report build/cpu --no-images -o public.html
    edgekit report build/cpu build/openvino-cpu-vnni -o both.html
    edgekit report build/cpu --watched pole.json -o pole.html
    """,
)
@click.argument(
    "bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("-o", "--output", type=OutputFile(), help="HTML file; default: in the bundle.")
@click.option(
    "--watched",
    type=click.Path(path_type=Path),
    metavar="STATE",
    help="Also what a monitor has seen: the file of 'edgekit watch --state'.",
)
@click.option(
    "--no-images", is_flag=True, help="No test images; without -o, remove the bundle's, too."
)
@common
def report(
    console: Console,
    bundles: tuple[Path, ...],
    output: Path | None,
    watched: Path | None,
    no_images: bool,
) -> None:
    """Put everything known about BUNDLE on one HTML page: verdict, speed, gaps.

    The page is self-contained. Its figures come from bench.json and parity.json,
    which 'edgekit bench' and 'edgekit parity' store in the bundle. Several
    bundles are put side by side, in the file that -o names.
    """
    from edgekit.core.errors import UsageError
    from edgekit.report.page import WrittenReport, write_report
    from edgekit.report.several import write_several

    if watched is not None and (len(bundles) > 1 or output is None):
        raise UsageError("--watched is for a page about one bundle, in the file that -o names")
    if len(bundles) == 1:
        seen = _watched(bundles[0], watched)
        path = write_report(bundles[0], output, seen, pictures=not no_images)
    elif output is None:
        raise UsageError("the page about several bundles is in none of them: name a file with -o")
    else:
        write_several(bundles, output)
        path = output
    console.document(WrittenReport(bundles[0], path, bundles))
    console.text(f"wrote {path}")


def _watched(bundle: Path, state: Path | None) -> FieldAgainstLab | None:
    if state is None:
        return None
    from edgekit.core.errors import UsageError
    from edgekit.field.history import LEAST, stored_against_lab
    from edgekit.field.monitor import reference_of

    if not state.is_file():
        raise UsageError(f"no monitor's state at {state}: 'edgekit watch --state' writes one")
    found = stored_against_lab(reference_of(bundle), state)
    if found is None:
        raise UsageError(f"{state} has too few images for a figure: at least {LEAST} are needed")
    return found

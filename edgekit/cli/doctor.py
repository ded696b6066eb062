"""``edgekit doctor``: what this machine can build and run."""

from __future__ import annotations

import click

from edgekit.cli.common import CHECKS, Command, common
from edgekit.core.console import Console
from edgekit.core.errors import ToolchainMissing


@click.command(
    cls=Command,
    prints=("doctor",),
    short_help="Show what this machine can build, and how to get the rest.",
    examples="""
    edgekit doctor
    edgekit doctor --json | jq '.checks[] | select(.status == "missing")'
    """,
)
@common
def doctor(console: Console) -> None:
    """Show what this machine can build and run, and how to get what is missing.

    Exits with 4 if the default target (OpenVINO on this CPU) cannot be built.
    """
    from edgekit.workflows.doctor import DoctorReport, default_target_ready, examine

    checks = examine()
    ready = default_target_ready(checks)
    console.document(DoctorReport(ready, tuple(checks)))
    rows = [
        (check.name, check.status if check.status != "none" else "-", check.found, check.fix)
        for check in checks
    ]
    console.table(CHECKS, rows)
    if not ready:
        missing = [check.name for check in checks if check.needed and check.status == "missing"]
        raise ToolchainMissing(
            f"the default target cannot be built here, missing: {', '.join(missing)}; "
            "the table above says how to get it"
        )
    console.info("The default target (OpenVINO on this CPU) can be built here.")

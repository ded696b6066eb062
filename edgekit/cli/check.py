"""``edgekit check``: does an ONNX file fit a runtime's dialect?"""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.tables import Column, Table

FINDINGS = Table.of(
    "",
    Column("node", "prose"),
    Column("rule", drop=1),
    Column("what is wrong", "prose"),
    Column("what to do", "prose"),
)


@click.command(
    cls=Command,
    prints=("check",),
    short_help="List the nodes of an ONNX file that a runtime would refuse.",
    needs=("onnx",),
    examples="""
    edgekit check model-int8.onnx --dialect tensorrt
    edgekit check int8.onnx --rtx --plugin libedgekit_tensorrt.so
    edgekit check model.onnx --dialect openvino --json
    """,
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--dialect",
    default="tensorrt",
    show_default=True,
    help="openvino, openvino-novnni, onnxruntime or tensorrt.",
)
@click.option(
    "--rtx", is_flag=True, help="Also let TensorRT-RTX parse and build it (needs no GPU)."
)
@click.option(
    "--plugin", type=click.Path(path_type=Path), help="With --rtx: a plugin library to load."
)
@common
def check(console: Console, file: Path, dialect: str, rtx: bool, plugin: Path | None) -> None:
    """List every node of an ONNX FILE that a runtime would refuse or run slowly.

    Each comes with a fix. Exits with 1 if a node would be refused; warnings alone pass.
    """
    from edgekit.bundle.engine import MODEL
    from edgekit.graph.findings import CheckReport
    from edgekit.targets.dialects import find_dialect

    chosen = find_dialect(dialect)
    if plugin is not None and not rtx:
        raise UsageError("--plugin works only with --rtx: add --rtx, or leave --plugin out")
    from edgekit.graph.lint import check_file

    if (file / MODEL).is_file():
        raise UsageError(
            f"{file} is a bundle: 'edgekit check {file / MODEL} --dialect {dialect}' reads its "
            "graph"
        )
    findings = check_file(file, chosen)
    report = None
    if rtx:
        from edgekit.graph.rtx import check_with_rtx

        report = check_with_rtx(file, plugin)
    console.document(CheckReport(str(file), dialect, tuple(findings), report))
    rows = [
        (item.severity, f"{item.operator} {item.node}", item.rule, item.message, item.fix)
        for item in findings
    ]
    if rows:
        console.table(FINDINGS, rows, str(file))
    if report is not None:
        console.text(report.describe())
    errors = sum(finding.severity == "error" for finding in findings)
    if errors:
        first = next(finding for finding in findings if finding.severity == "error")
        raise EdgekitError(
            f"{file}: {errors} node(s) do not fit dialect '{dialect}'; the first: "
            f"{first.describe()}"
        )
    if report is not None and report.problem:
        raise EdgekitError(f"{file}: TensorRT-RTX refuses it: {report.problem}")
    console.info(f"{file} fits dialect '{dialect}'.")

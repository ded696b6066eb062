"""``edgekit targets``: the devices that a bundle can be built for."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console
from edgekit.core.tables import FACTS, Column, Table

if TYPE_CHECKING:
    from edgekit.targets.descriptor import Descriptor
    from edgekit.targets.tensorrt_releases import TensorRTFacts

TARGETS = Table.of(
    "target",
    Column("what it is", "prose"),
    Column("dialect", drop=2),
    Column("precision", drop=1),
    Column("runs here", "prose"),
)


@click.command(
    cls=Command,
    prints=("targets",),
    short_help="List the devices that a bundle can be built for.",
    examples="""
    edgekit targets
    edgekit targets openvino-cpu-vnni
    edgekit targets ./my-device.toml --json
    """,
)
@click.argument("name", required=False)
@common
def targets(console: Console, name: str | None) -> None:
    """List edgekit's targets, or show one: a NAME, or your own .toml file."""
    from edgekit.targets.descriptor import descriptor_names, load_descriptor, why_not_here
    from edgekit.targets.listing import Target, TargetList

    if name is not None:
        descriptor = load_descriptor(name)
        reason = why_not_here(descriptor)
        console.document(TargetList((Target.of(descriptor, reason),)))
        console.table(FACTS, _rows(descriptor, reason), descriptor.title)
        return
    descriptors = [load_descriptor(known) for known in descriptor_names()]
    reasons = [why_not_here(descriptor) for descriptor in descriptors]
    console.document(TargetList(tuple(map(Target.of, descriptors, reasons))))
    rows = [
        (
            descriptor.name,
            descriptor.title,
            descriptor.dialect,
            descriptor.precision,
            reason or "yes",
        )
        for descriptor, reason in zip(descriptors, reasons, strict=True)
    ]
    console.table(TARGETS, rows)


def _rows(descriptor: Descriptor, reason: str | None) -> list[tuple[str, str]]:
    meanings = {"batch": "any", "threads": "automatic", "streams": "automatic"}
    rows = [("runs here", reason or "yes")]
    values = asdict(descriptor)
    values.pop("tensorrt")
    rows += _tensorrt(descriptor.tensorrt)
    for key, value in values.items():
        foreign = key == "openvino_device" and descriptor.backend != "openvino"
        if key == "title" or foreign or value in ("", ()):
            continue
        text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        if value == 0:
            text = meanings.get(key, "unknown")
        rows.append((key.replace("_", " "), text))
    return rows


def _tensorrt(facts: TensorRTFacts | None) -> list[tuple[str, str]]:
    """What the device must have: its JetPack first, which decides the rest."""
    if facts is None:
        return []
    jetpack = [("JetPack", facts.jetpack)] if facts.jetpack else []
    return [
        *jetpack,
        ("TensorRT", f"{facts.tensorrt} up to, not including, {facts.before}"),
        ("CUDA", facts.cuda),
        ("compute capability", ", ".join(f"{sm // 10}.{sm % 10}" for sm in facts.sm)),
        ("trtexec", facts.trtexec),
        ("lookup", facts.form),
    ]

"""A bundle whose engine is not built yet: what is proven already, and what the device will add."""

from __future__ import annotations

from typing import Final

from edgekit.bundle.engine import SCRIPT, EngineState
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.selftest import SELFTEST
from edgekit.core.documents import part
from edgekit.parity.document import ParityDocument
from edgekit.quantize.results import Closeness
from edgekit.report.figures.svg import signed
from edgekit.report.markup import facts, section
from edgekit.report.sizes import SECTION

_BY: Final = "the graph in ONNX Runtime here, not the engine"


def pending(
    manifest: Manifest, source: str, parity: ParityDocument | None, graph: ParityDocument | None
) -> str:
    """The section; nothing for a bundle that runs as it is.

    ``parity`` is of an engine that a device has built since, ``graph`` of what it is built from.
    """
    engine = EngineState.of(manifest)
    if engine is None or not engine.pending:
        return ""
    return section(
        "Before the device",
        "<h3>Proven already</h3>",
        facts(_proven(manifest, source, graph)),
        "<h3>What the device will add</h3>",
        facts(_to_come(manifest, parity)),
    )


def _proven(manifest: Manifest, source: str, graph: ParityDocument | None) -> list[tuple[str, str]]:
    guard = manifest.sections.get("guard")
    words = "not checked: it is float, or was built without images or without the guard"
    if guard is not None:
        found = part(Closeness, guard, f"{source}: its manifest's section 'guard'")
        words = f"{found.describe()} ({_BY})"
    stored = "none in the bundle"
    if SELFTEST in manifest.files:
        stored = (
            "in the bundle; the engine must reproduce them, but for rounding, before it is used"
        )
    reference = "recorded" if SECTION in manifest.sections else "not recorded"
    robust = "not measured: 'edgekit build' does, without --no-parity"
    if graph is not None:
        error, change = graph.corruption_error, ""
        if error is not None:
            low, high = signed(error.lower), signed(error.upper)
            change = f" {signed(error.delta)} points [{low}, {high}] of corruption error"
        robust = f"{graph.verdict}:{change or ' no labels'} on {graph.images:,} images ({_BY})"
    return [
        ("the graph's robustness", robust),
        ("the graph's answers", words),
        ("answers to compare with", stored),
        ("files", f"{len(manifest.files)} with checksums; the float model's size is {reference}"),
    ]


def _to_come(manifest: Manifest, parity: ParityDocument | None) -> list[tuple[str, str]]:
    name = manifest.target.name
    build = f"'edgekit deploy BUNDLE --device NAME' builds it on a {name}"
    if SCRIPT in manifest.files:
        build += f", or 'bash {SCRIPT}' there"
    verdict = "'edgekit parity BUNDLE --device NAME' gives the verdict"
    if parity is not None:
        verdict = f"{parity.verdict}, on {parity.device or 'its device'}: see Robustness"
    return [
        ("the engine", build),
        ("its self-test", "run by deploy, against the answers above"),
        ("robustness of the engine", verdict),
        ("speed, memory, energy", "'edgekit bench BUNDLE --device NAME'"),
    ]

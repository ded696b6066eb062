"""A bundle whose engine is not built yet: what is proven already, and what the device will add."""

from __future__ import annotations

from edgekit.bundle.engine import SCRIPT, EngineState
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.selftest import SELFTEST
from edgekit.core.documents import part
from edgekit.quantize.results import Closeness
from edgekit.report.markup import facts, section
from edgekit.report.sizes import SECTION


def pending(manifest: Manifest, source: str) -> str:
    """The section; nothing for a bundle that runs as it is."""
    engine = EngineState.of(manifest)
    if engine is None or not engine.pending:
        return ""
    return section(
        "Before the device",
        "<h3>Proven already</h3>",
        facts(_proven(manifest, source)),
        "<h3>What the device will add</h3>",
        facts(_to_come(manifest)),
    )


def _proven(manifest: Manifest, source: str) -> list[tuple[str, str]]:
    guard = manifest.sections.get("guard")
    words = "not checked: it is float, or was built without images or without the guard"
    if guard is not None:
        found = part(Closeness, guard, f"{source}: its manifest's section 'guard'")
        words = f"{found.describe()} (ONNX Runtime, the graph node by node, not the engine)"
    stored = "none in the bundle"
    if SELFTEST in manifest.files:
        stored = (
            "in the bundle; the engine must reproduce them, but for rounding, before it is used"
        )
    reference = "recorded" if SECTION in manifest.sections else "not recorded"
    return [
        ("the graph's answers", words),
        ("answers to compare with", stored),
        ("files", f"{len(manifest.files)} with checksums; the float model's size is {reference}"),
    ]


def _to_come(manifest: Manifest) -> list[tuple[str, str]]:
    name = manifest.target.name
    build = f"'edgekit deploy BUNDLE --device NAME' builds it on a {name}"
    if SCRIPT in manifest.files:
        build += f", or 'bash {SCRIPT}' there"
    return [
        ("the engine", build),
        ("its self-test", "run by deploy, against the answers above"),
        ("robustness of the engine", "'edgekit parity BUNDLE --device NAME' gives the verdict"),
        ("speed, memory, energy", "'edgekit bench BUNDLE --device NAME'"),
    ]

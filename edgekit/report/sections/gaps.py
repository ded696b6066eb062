"""Every gap in the evidence, with its reason."""

from __future__ import annotations

from edgekit.bench.document import BenchDocument
from edgekit.bench.options import SCENARIOS
from edgekit.bundle.engine import engine_pending
from edgekit.bundle.manifest import Manifest
from edgekit.parity.document import ParityDocument
from edgekit.report.markup import facts, section


def gaps(
    manifest: Manifest,
    bench: BenchDocument | None,
    parity: ParityDocument | None,
    *,
    has_codebook: bool,
) -> str:
    """The section; nothing where everything was measured."""
    rows: list[tuple[str, str]] = []
    there = ""
    if engine_pending(manifest):
        there = ", with --device once the engine is built"
    if bench is None:
        why = f"run 'edgekit bench' on it{there}"
        rows.append(("conditions, throughput, cold start, memory", why))
    else:
        measured = bench.scenarios.measured()
        rows += [
            (name, "not requested in that run of 'edgekit bench'")
            for name in SCENARIOS
            if name not in measured
        ]
        rows += [(gap.what, gap.why) for gap in bench.not_measured]
        if bench.layers is None:
            rows.append(("time of layers", "run 'edgekit bench --layers' on it"))
        energies = bench.scenarios.energies().values()
        whys = {str(energy.why): None for energy in energies if not energy.available}
        rows += [("energy", why) for why in whys]
    if parity is None:
        what = "robustness of the engine" if there else "robustness"
        rows.append((what, f"run 'edgekit parity' on it{there}"))
    elif has_codebook and parity.codes is None and parity.per_corruption is not None:
        rows.append(("codes", "the two models have no codebook in common"))
    return section("Not measured", facts(rows)) if rows else ""

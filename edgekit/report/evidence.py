"""What a bundle's documents say of it, and when two bundles' figures may not be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.bench.document import BenchDocument, BenchSummary, read_bench, read_summary
from edgekit.bundle.store import Bundle
from edgekit.parity.document import ParityDocument, read_graph_parity, read_parity
from edgekit.report.decision import Decision, decide
from edgekit.report.page import REPORT
from edgekit.report.sizes import Sizes, sizes_of


@dataclass(frozen=True)
class Evidence:
    """One bundle's."""

    mark: str
    bundle: Bundle
    decision: Decision
    sizes: Sizes
    bench: BenchDocument | None
    summary: BenchSummary | None
    parity: ParityDocument | None
    graph: ParityDocument | None
    """Of the graph of an engine that was pending when the bundle was built."""

    @property
    def name(self) -> str:
        """Not the whole path: the page is for people elsewhere."""
        folder = "/".join(self.bundle.path.parts[-2:])
        return f"{folder} ({self.bundle.manifest.target.name})"


def evidence_of(bundle: Bundle, mark: str) -> Evidence:
    """What is stored in the bundle; ``mark`` is what figures call it."""
    bench, parity, graph = read_bench(bundle), read_parity(bundle), read_graph_parity(bundle)
    summary = read_summary(bundle) if bench is None else bench.summary()
    sizes = sizes_of(bundle.manifest, REPORT, str(bundle.path))
    decision = decide(bundle.manifest, parity, graph)
    return Evidence(mark, bundle, decision, sizes, bench, summary, parity, graph)


def why_incomparable(several: Sequence[Evidence]) -> list[str]:
    """Why figures of these bundles may not be compared with each other."""
    notes = []
    places = {one.bench.where for one in several if one.bench is not None}
    if len(places) > 1:
        notes.append(
            "Latencies are of different machines: each shows what that device can do, not which "
            "bundle is the faster."
        )
    if any(len(_asked(several, graphs=graphs)) > 1 for graphs in (False, True)):
        notes.append(
            "Errors are of different images, corruptions or severities: compare changes against "
            "each one's own reference, not errors."
        )
    return notes


def _asked(several: Sequence[Evidence], *, graphs: bool) -> set[tuple[object, ...]]:
    """What bundles, or their graphs, were compared on."""
    compared = (one.graph if graphs else one.parity for one in several)
    return {
        (one.data, one.corruptions, one.severities, one.corrupted)
        for one in compared
        if one is not None
    }

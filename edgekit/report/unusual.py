"""What is unusual in a measurement's conditions: reasons to doubt its figures."""

from __future__ import annotations

from edgekit.bench.document import BenchDocument

_BUSY = 0.5  # runnable processes for each usable core, before the run
_HOT = 85.0  # °C; most processors slow down a little above
_DRIFT = 0.05


def unusual(bench: BenchDocument) -> list[str]:
    """A sentence each; the document's own notes come first."""
    at, latency = bench.conditions, bench.scenarios.latency
    usable = at.cores.usable or 1
    found = list(bench.notes)
    if at.virtual:
        found.append(
            "It ran in a virtual machine: clocks, temperatures and other guests cannot be seen."
        )
    if at.governor is not None and at.governor != "performance":
        found.append(f"The clock's governor was {at.governor}, not performance.")
    if at.cores.limit is not None and at.cores.limit < usable:
        found.append(f"Its container may use {at.cores.limit:g} of {usable} cores.")
    if at.before.load is not None and at.before.load > _BUSY * usable:
        found.append(f"The machine was busy before the run: load {at.before.load:.1f}.")
    if at.before.celsius and max(at.before.celsius.values()) >= _HOT:
        hottest = max(at.before.celsius.values())
        found.append(f"It was hot before the run: {hottest:.0f} °C.")
    if latency is not None:
        if abs(latency.drift - 1) > _DRIFT:
            found.append(
                f"Latency drifted: the last third took {latency.drift:.2f} times the first."
            )
        restless = [name for name, warm in latency.warmups.items() if not warm.stable]
        if restless:
            found.append(f"Latency had not settled when counting began: {', '.join(restless)}.")
    if bench.settings.batch is not None or bench.settings.threads is not None:
        found.append("Its batch or threads are not those that the bundle was built for.")
    return list(dict.fromkeys(found))

"""Runs hazards round-robin with ever new seeds, and keeps what was at fault."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.campaign.case import Hazard, Verdict


@dataclass
class Count:
    """What became of a hazard's cases."""

    cases: int = 0
    passed: int = 0
    refused: int = 0
    faults: int = 0
    seconds: float = 0


def run_case(hazard: Hazard, seed: int, scratch: Path, faults: Path | None = None) -> Verdict:
    """One case in a new folder below ``scratch``, which is copied to ``faults`` if it is one."""
    folder = scratch / "case"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        verdict = hazard.run(seed, folder)
    except Exception:  # noqa: BLE001 # of the campaign itself: no case may go uncounted
        verdict = Verdict("fault", f"the hazard itself failed: {traceback.format_exc()}")
    if verdict.kind == "fault" and faults is not None:
        kept = faults / f"{hazard.name} {seed}".replace(": ", "-").replace(" ", "-")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept, symlinks=True, ignore=_ignore_pipes)
        what = {"hazard": hazard.name, "seed": seed, "detail": verdict.detail}
        (kept / "fault.json").write_text(json.dumps(what, indent=2))
    shutil.rmtree(folder, ignore_errors=True)
    return verdict


def _ignore_pipes(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if (path := Path(folder, name)).exists() and not (
        path.is_file() or path.is_dir())}  # fmt: skip


def seeds(hazards: Sequence[Hazard], first: int, until: float) -> Iterator[tuple[Hazard, int]]:
    """Each hazard in turn, with new seeds, until that time of the monotonic clock."""
    seed = first
    while True:
        for hazard in hazards:
            if time.monotonic() >= until:
                return
            yield hazard, seed
        seed += 1


def run_for(
    hazards: Sequence[Hazard],
    first: int,
    minutes: float,
    scratch: Path,
    faults: Path,
    report: Callable[[Hazard, int, Verdict, dict[str, Count]], None],
) -> dict[str, Count]:
    """Run for that long; ``report`` hears of each case."""
    counts = {hazard.name: Count() for hazard in hazards}
    for hazard, seed in seeds(hazards, first, time.monotonic() + 60 * minutes):
        begin = time.monotonic()
        verdict = run_case(hazard, seed, scratch, faults)
        count = counts[hazard.name]
        count.cases += 1
        count.passed += verdict.kind == "passed"
        count.refused += verdict.kind == "refused"
        count.faults += verdict.kind == "fault"
        count.seconds += time.monotonic() - begin
        report(hazard, seed, verdict, counts)
    return counts

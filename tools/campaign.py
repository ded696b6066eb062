"""Runs the campaign of hostile cases: each must end well, or in one line and the right exit code.

    python tools/campaign.py --minutes 60
    python tools/campaign.py --minutes 5 --only "images: predict"
    python tools/campaign.py --only "images: predict" --seed 4711      # replay one

``--only`` takes a hazard's name or the beginning of it. Every fault's files, seed and reason are
kept in a folder, build/campaign unless ``--faults`` names another. Exit code 1 if there was a
fault. docs/reliability.md says what is tried.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgekit.core.console import printable  # noqa: E402 # of this checkout
from edgekit.core.tables import Column, Table, layout, plain  # noqa: E402
from tests.hostile.campaign.case import Hazard, Verdict  # noqa: E402
from tests.hostile.campaign.registry import disturbances, hazards  # noqa: E402
from tests.hostile.campaign.runner import Count, run_case, run_for  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, help="how long; not with --seed")
    parser.add_argument("--only", help="a hazard's name, or how it begins")
    parser.add_argument("--seed", type=int, help="run this one case of --only's hazards")
    parser.add_argument("--json", action="store_true", help="counts as a JSON document")
    parser.add_argument("--faults", type=Path, default=ROOT / "build" / "campaign")
    options = parser.parse_args(arguments)
    every = (*hazards(), *disturbances())
    chosen = [h for h in every if h.name.startswith(options.only or "")]
    if not chosen:
        parser.error("no such hazard; there are: " + ", ".join(h.name for h in every))
    if (options.seed is None) == (options.minutes is None):
        parser.error("say either --minutes or --seed")
    with tempfile.TemporaryDirectory(prefix="edgekit-campaign-") as scratch:
        if options.seed is not None:
            return _replay(chosen, options.seed, Path(scratch), options.faults)
        first = random.SystemRandom().randrange(1 << 31)
        counts = run_for(
            chosen, first, options.minutes, Path(scratch), options.faults,
            _progress(options.minutes),
        )  # fmt: skip
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if options.json:
        rows = {name: asdict(count) for name, count in counts.items()}
        print(json.dumps({"first_seed": first, "minutes": options.minutes, "hazards": rows}))
    else:
        print(_table(counts))
    return int(any(count.faults for count in counts.values()))


def _replay(chosen: Sequence[Hazard], seed: int, scratch: Path, faults: Path) -> int:
    verdicts = []
    for hazard in chosen:
        verdict = run_case(hazard, seed, scratch, faults)
        verdicts.append(verdict.kind)
        print(f"{hazard.name} {seed}: {verdict.kind}: {printable(verdict.detail)}")
    return int("fault" in verdicts)


def _progress(minutes: float) -> Callable[[Hazard, int, Verdict, dict[str, Count]], None]:
    """Progress in place on a terminal, a line a minute elsewhere; every fault at once."""
    begin = time.monotonic()
    last = [begin]

    def report(hazard: Hazard, seed: int, verdict: Verdict, counts: dict[str, Count]) -> None:
        terminal = sys.stderr.isatty()
        if verdict.kind == "fault":
            mark = "\r\x1b[K" if terminal else ""
            text = f"fault: {hazard.name} --seed {seed}: {printable(verdict.detail)}"
            print(mark + text, file=sys.stderr, flush=True)
        now = time.monotonic()
        if now - last[0] < (0.2 if terminal else 60):
            return
        last[0] = now
        cases = sum(count.cases for count in counts.values())
        faults = sum(count.faults for count in counts.values())
        left = max(0.0, 60 * minutes - (now - begin))
        text = f"{cases} cases, {faults} faults, {left / 60:.1f} minutes to go"
        print(f"\r\x1b[K{text}" if terminal else text, end="" if terminal else "\n",
              file=sys.stderr, flush=True)  # fmt: skip

    return report


def _table(counts: dict[str, Count]) -> str:
    rows = [
        (name, *map(str, (c.cases, c.passed, c.refused, c.faults)), f"{c.seconds:.0f}")
        for name, c in counts.items()
    ]
    total = [sum(int(row[i]) for row in rows) for i in range(1, 6)]
    rows.append(("all", *map(str, total)))  # type: ignore[arg-type]
    figures = ("cases", "passed", "refused", "faults", "seconds")
    table = Table.of("hazard", *(Column(name, "figure") for name in figures))
    return plain(layout(table, rows))


if __name__ == "__main__":
    sys.exit(main())

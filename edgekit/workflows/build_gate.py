"""The gate at the end of a build: every bundle's budgets, and an earlier bundle beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit.bench.budgets import latency_ratio, size
from edgekit.bench.document import BenchSummary, bundle_facts
from edgekit.bundle.manifest import MANIFEST
from edgekit.bundle.store import open_bundle
from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.core.step_cache import cache_root
from edgekit.metrics.budgets import Budgets, Judged, LeftOut, judge
from edgekit.parity.budgets import judge_parity
from edgekit.parity.document import ParityDocument, subject
from edgekit.report.gate import OF_GRAPH, Change, GatedBundle, GateReport, changes, report_of
from edgekit.steps.build_record import Outcome
from edgekit.steps.config import BuildConfig
from edgekit.steps.context import Context
from edgekit.targets.descriptor import load_descriptor


def check_earlier(config: BuildConfig) -> None:
    """Refuse a --baseline that no bundle can be compared with, before anything is built."""
    if config.baseline is None:
        return
    if not config.parity:
        raise UsageError("--baseline compares robustness: leave --no-parity out")
    for target in config.target:
        descriptor = load_descriptor(target)
        earlier = _earlier(config, descriptor.name)
        if not earlier.exists():
            raise UsageError(
                f"no earlier bundle at {earlier}: --baseline names one, or a folder with one for "
                "each --target"
            )
        if earlier.resolve() == config.path_of(descriptor).resolve():
            raise UsageError(
                f"--baseline: {earlier} is where the new bundle goes: copy the earlier one, or "
                "build with another --out"
            )


def compare_with_earlier(
    config: BuildConfig, outcomes: Sequence[Outcome], budgets: Budgets, console: Console
) -> dict[str, ParityDocument]:
    """The comparison of each target's bundle with the earlier one, by target.

    Targets that cannot run here have none.
    """
    if config.baseline is None or budgets.max_regression is None:
        return {}
    from edgekit.workflows.parity import parity_with_earlier  # imports onnx

    context = Context(console, cache_root())
    compared = {}
    for outcome in outcomes:
        if outcome.parity is None:
            continue
        earlier = _earlier(config, outcome.target)
        console.info(f"parity ({outcome.target}): comparing with the earlier {earlier}")
        compared[outcome.target] = parity_with_earlier(
            context, outcome.path, earlier, config.comparison(), budgets.max_regression
        )
    return compared


def judge_build(
    config: BuildConfig,
    outcomes: Sequence[Outcome],
    budgets: Budgets,
    left_out: tuple[LeftOut, ...],
    earlier: Mapping[str, ParityDocument],
) -> GateReport:
    """The outcome for all bundles; ``earlier`` are the comparisons with earlier ones."""
    gated = []
    for outcome in outcomes:
        compared = earlier.get(outcome.target)
        comparison = None if outcome.compared is None else outcome.compared.comparison
        judged = subject(comparison)
        changed: tuple[Change, ...] = ()
        if isinstance(comparison, ParityDocument):
            changed = changes(comparison, "the float model")
        if compared is not None:
            changed += changes(compared, str(_earlier(config, outcome.target)))
        rows = judge_parity(budgets, comparison, compared)
        rows = (rows if judged == "model" else _of_graph(rows)) + _of_bundle(outcome, budgets)
        verdict = None if comparison is None else comparison.verdict
        reasons = () if comparison is None or verdict == "pass" else comparison.reasons
        page = report_of(outcome.path)
        name, reason = str(outcome.path), "; ".join(reasons)
        gated.append(GatedBundle(name, rows, changed, verdict, reason, page, judged))
    return GateReport("build", tuple(gated), left_out)


def with_default(config: BuildConfig, budgets: Budgets) -> Budgets:
    """The budgets with that of the earlier bundle, where one is named.

    The images that decide about the tolerance decide about the same points here, and a loss that
    adds up over many releases still meets the tolerance, which counts from the float model.
    """
    if config.baseline is None or budgets.max_regression is not None:
        return budgets
    return dataclasses.replace(budgets, max_regression=config.most_drop)


def _of_graph(rows: tuple[Judged, ...]) -> tuple[Judged, ...]:
    """What was measured, marked so that nobody takes it for the engine's."""
    return tuple(
        row
        if row.measured is None
        else dataclasses.replace(row, note="; ".join(filter(None, (row.note, OF_GRAPH))))
        for row in rows
    )


def _of_bundle(outcome: Outcome, budgets: Budgets) -> tuple[Judged, ...]:
    rows: tuple[Judged, ...] = ()
    if budgets.max_latency_ratio is not None:
        measured = latency_ratio(outcome.bench or BenchSummary())
        why = "latency was not measured here beside a float model"
        rows += (judge("max_latency_ratio", budgets.max_latency_ratio, measured, why),)
    if budgets.max_mb is not None:
        facts = bundle_facts(open_bundle(outcome.path, any_arch=True))
        rows += (judge("max_mb", budgets.max_mb, size(facts.size_bytes)),)
    return rows


def _earlier(config: BuildConfig, target: str) -> Path:
    """The earlier bundle of a target: the one named, or the target's in the folder named."""
    assert config.baseline is not None
    named = Path(config.baseline)
    alone = named.suffix == ".zip" or (named / MANIFEST).exists()
    return named if alone else named / target

"""The gate of ``edgekit parity``: its budgets, the earlier bundle, and the line of a failure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgekit.cli.gate import OF_BENCH, Gate
from edgekit.core.errors import UsageError
from edgekit.metrics.budgets import option
from edgekit.parity.tolerance import TOLERANCE

if TYPE_CHECKING:
    from edgekit.metrics.budgets import Budgets, LeftOut
    from edgekit.parity.document import ParityDocument
    from edgekit.report.gate import GateReport
    from edgekit.workflows.foreign_parity import Side

_REASONS: Final = 3  # in the error line; the report has all
NORMALIZERS: Final = ("auto", "alexnet", "none")


def check_baseline(baseline: str | None, candidate: str, device: str | None) -> None:
    """Refuse what is no earlier bundle, and the former meaning of the option."""
    if baseline is None:
        return
    path = Path(baseline)
    if baseline in NORMALIZERS and not path.exists():
        raise UsageError(
            "--baseline names an earlier bundle; for mCE's normalization say --normalize-by "
            f"{baseline}"
        )
    if device is not None:
        raise UsageError("--baseline does not work on a device: leave it or --device out")
    if ":" not in baseline and not path.exists():
        raise UsageError(f"no earlier bundle at {baseline}: --baseline names one")
    if path.resolve() == Path(candidate).resolve():
        raise UsageError(f"--baseline: {baseline} is the candidate itself: name an earlier one")


def only_tolerance(gate: Gate, tolerance: float | None, baseline: str | None) -> float:
    """The tolerance of ``--across`` and ``--plan``, which have no other budgets."""
    given = [option(name) for name, _ in gate.options.given()]
    given += ["--baseline"] if baseline is not None else []
    given += ["--summary"] if gate.summary is not None else []
    given += ["--junit"] if gate.junit is not None else []
    if given:
        raise UsageError(f"{given[0]} compares one candidate: leave it out here")
    for candidate in (tolerance, gate.shared.max_drop):
        if candidate is not None:
            return candidate
    return TOLERANCE


def unable(candidate: Side, baseline: str | None) -> dict[str, str]:
    """The budgets that this comparison cannot judge, and why."""
    reasons = dict(OF_BENCH)
    if baseline is None:
        reasons["max_regression"] = "--baseline names no earlier bundle"
    if not candidate.bundle:
        reasons["max_mb"] = f"{candidate.name} is no bundle"
    return reasons


def judged(
    candidate: Side,
    document: ParityDocument,
    earlier: ParityDocument | None,
    baseline: str | None,
    budgets: Budgets,
    left_out: tuple[LeftOut, ...],
    out: Path | None,
) -> GateReport:
    """The outcome, from the comparisons with the reference and with the earlier bundle.

    ``out`` is the folder that has the page, where no bundle has it.
    """
    from edgekit.bench.budgets import size
    from edgekit.bench.document import bundle_facts
    from edgekit.bundle.store import open_bundle
    from edgekit.metrics.budgets import judge
    from edgekit.parity.budgets import judge_parity
    from edgekit.report.gate import GatedBundle, GateReport, changes, report_of

    rows = judge_parity(budgets, document, earlier)
    changed = changes(document, "the reference")
    if earlier is not None:
        changed += changes(earlier, str(baseline))
    if budgets.max_mb is not None:
        facts = bundle_facts(open_bundle(Path(candidate.name), any_arch=True))
        rows += (judge("max_mb", budgets.max_mb, size(facts.size_bytes)),)
    reason = "" if document.verdict == "pass" else failure(document)
    page = report_of(out or Path(candidate.name))
    bundle = GatedBundle(candidate.name, rows, changed, document.verdict, reason, page)
    return GateReport("parity", (bundle,), left_out)


def why(outcome: GateReport, document: ParityDocument, *, by_name: bool) -> str:
    """The one line of a failure; of the tolerance alone, parity's own says more.

    ``by_name``: the tolerance is the budget ``max_drop`` of a file, and called so.
    """
    names = {row.name for bundle in outcome.bundles for row in bundle.not_held}
    if not names or (names == {"max_drop"} and not by_name):
        return failure(document)
    lost = ", ".join(document.worst).replace("_", " ") if document.verdict != "pass" else ""
    return outcome.failure() + (f"; lost most on {lost}" if lost else "")


def failure(document: ParityDocument) -> str:
    """The one line that says why parity did not pass."""
    verdict = document.verdict
    reasons = [reason for reason in document.reasons if not reason.startswith("pass: ")]
    said = "; ".join(reason.removeprefix(f"{verdict}: ") for reason in reasons[:_REASONS])
    if len(reasons) > _REASONS:
        said += f"; and {len(reasons) - _REASONS} more reasons"
    text = f"parity {verdict}: {said}"
    lost = ", ".join(document.worst).replace("_", " ")
    return f"{text}; lost most on {lost}" if lost else text

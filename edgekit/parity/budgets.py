"""What comparisons say about budgets: with the original, and with an earlier bundle."""

from __future__ import annotations

from edgekit.metrics.budgets import Budgets, Judged, Measured, judge
from edgekit.parity.document import ComparisonBeside, ParityDocument

_NO_LABELS = "the data have no labels for this model"


def judge_parity(
    budgets: Budgets,
    document: ParityDocument | ComparisonBeside | None,
    earlier: ParityDocument | None,
) -> tuple[Judged, ...]:
    """A row for each gate of the comparison and each budget that asks for one.

    ``document`` is None where nothing was compared; ``earlier`` is the comparison with the earlier
    bundle.
    """
    rows = () if document is None else document.budgets or _of_former(document)
    there = {row.name for row in rows}
    why = "robustness was not measured here" if document is None else _NO_LABELS
    for name, limit in (
        ("max_drop", budgets.max_drop),
        ("min_agreement", budgets.min_agreement),
    ):
        if limit is not None and name not in there:
            rows += (judge(name, limit, None, why),)
    if budgets.max_scores_rms is not None:
        rows += (_scores(budgets.max_scores_rms, document),)
    if budgets.max_regression is not None:
        rows += (_regression(budgets.max_regression, earlier),)
    return rows


def _scores(limit: float, document: ParityDocument | ComparisonBeside | None) -> Judged:
    """Exact for the images that were compared: no error has to come of it to be seen."""
    close = document.closeness if isinstance(document, ParityDocument) else None
    if close is None:
        return judge("max_scores_rms", limit, None)
    clean, corrupted = close.scores_rms_clean, close.scores_rms_corrupted
    kind = "clean" if clean >= corrupted else "corrupted"
    measured = Measured(max(clean, corrupted), of=f"{kind} images")
    return judge("max_scores_rms", limit, measured)


def _of_former(document: ParityDocument | ComparisonBeside) -> tuple[Judged, ...]:
    """The row of a document that was written before there were any."""
    error = document.corruption_error
    if error is None:
        return ()
    measured = Measured(error.delta, error.lower, error.upper)
    return (judge("max_drop", document.asked.gates.tolerance, measured),)


def _regression(limit: float, earlier: ParityDocument | None) -> Judged:
    if earlier is None:
        return judge("max_regression", limit, None, "nothing was compared with --baseline")
    error = earlier.corruption_error
    if error is None:
        return judge("max_regression", limit, None, _NO_LABELS)
    return judge("max_regression", limit, Measured(error.delta, error.lower, error.upper))

"""Two training runs: the settings in which they differ, and the results of their best epochs."""

from __future__ import annotations

from pathlib import Path

from edgekit.report.compared import (
    ComparedReport,
    Facts,
    Figure,
    Measured,
    differences,
    figure,
    subjects,
)
from edgekit.training.config import TrainConfig
from edgekit.training.run_log import LoggedRun, read_run

_PLACES = ("out", "cache")  # where a run lies is no difference


def compare_runs(first: Path, second: Path) -> ComparedReport:
    """Read both, finished or not, and compare them."""
    a, b = read_run(first), read_run(second)
    different = differences(_facts(a), _facts(b))
    figures = tuple(_figures(a, b))
    differ = subjects(different, figures)
    return ComparedReport(
        kind="runs",
        a=first,
        b=second,
        identical=not differ,
        same_model=a.checkpoint == b.checkpoint != "",
        differ=differ,
        differences=different,
        figures=figures,
        notes=tuple(_notes(a, b)) if differ else (),
    )


def _facts(run: LoggedRun) -> Facts:
    settings = {
        ("settings", name): _text(value)
        for name, value in vars(run.config).items()
        if name not in _PLACES
    }
    return {**settings, **({("checkpoint", "best"): run.checkpoint} if run.checkpoint else {})}


def _text(value: object) -> str:
    if value is None:
        return "not set"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _figures(a: LoggedRun, b: LoggedRun) -> list[Figure]:
    def row(name: str, unit: str, of: tuple[float | None, float | None], *, detail: bool) -> None:
        one, other = (None if value is None else Measured(value) for value in of)
        rows.append(figure("validation", name, unit, one, other, detail=detail))

    rows: list[Figure] = []
    best = a.best, b.best
    row("best epoch", "", (a.best_epoch or None, b.best_epoch or None), detail=False)
    row("epochs", "", (a.epochs, b.epochs), detail=False)
    errors = [None if one is None else one.mean_corruption_error for one in best]
    clean = [None if one is None else one.clean_error for one in best]
    row("clean error", "%", (_percent(clean[0]), _percent(clean[1])), detail=False)
    row("mean corruption error", "%", (_percent(errors[0]), _percent(errors[1])), detail=False)
    used = [None if one is None else one.used_codes for one in best]
    same = [None if one is None else one.code_agreement for one in best]
    row("codes used", "", (used[0], used[1]), detail=False)
    row("same code as the clean image", "%", (_percent(same[0]), _percent(same[1])), detail=False)
    under = [{} if one is None else one.corruption_errors for one in best]
    for name in dict.fromkeys((*under[0], *under[1])):
        words = f"error under {name.replace('_', ' ')}"
        values = _percent(under[0].get(name)), _percent(under[1].get(name))
        row(words, "%", values, detail=True)
    return [one for one in rows if one.a is not None or one.b is not None]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _notes(a: LoggedRun, b: LoggedRun) -> list[str]:
    if any(getattr(a.config, name) != getattr(b.config, name) for name in _IMAGES):
        return ["Errors are of different validation images or corruptions: do not compare them."]
    return []


_IMAGES = ("data", "data_seed", "validation_images", "seen", "validate_on")
assert set(_IMAGES) <= TrainConfig.__dataclass_fields__.keys()

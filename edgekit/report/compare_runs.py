"""Two trainings or two fine-tunings: the settings in which they differ, and their best epochs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.errors import UsageError
from edgekit.quantize.qat.config import FinetuneConfig
from edgekit.quantize.qat.run_log import read_finetune
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
from edgekit.training.run_log import command_of, read_run

_PLACES = ("out", "cache")  # where a run lies is no difference


def compare_runs(first: Path, second: Path) -> ComparedReport:
    """Read both, finished or not, and compare them: two trainings, or two fine-tunings."""
    commands = command_of(first), command_of(second)
    if commands[0] != commands[1]:
        raise UsageError(
            f"{first} holds a run of 'edgekit {commands[0]}', {second} one of "
            f"'edgekit {commands[1]}': name two of the same kind"
        )
    read = _finetuning if commands[0] == "finetune" else _training
    a, b = read(first), read(second)
    different = differences(a.facts, b.facts)
    figures = tuple(_figures(a.figures, b.figures))
    differ = subjects(different, figures)
    return ComparedReport(
        kind="runs",
        a=first,
        b=second,
        identical=not differ,
        same_model=a.model == b.model != "",
        differ=differ,
        differences=different,
        figures=figures,
        notes=() if a.judged_on == b.judged_on else (_OTHER_IMAGES,),
    )


_Figures = dict[tuple[str, str, bool], float | None]
"""By name, unit and whether it is a detail."""


@dataclass(frozen=True)
class _Told:
    """What a run says of itself."""

    facts: Facts
    figures: _Figures
    model: str
    """The hash of its result; empty while there is none."""
    judged_on: tuple[object, ...]
    """Which images, under which corruptions."""


def _training(folder: Path) -> _Told:
    run = read_run(folder)
    figures: _Figures = {
        ("best epoch", "", False): run.best_epoch or None,
        ("epochs", "", False): run.epochs,
    }
    if run.best is not None:
        figures |= {
            ("clean error", "%", False): _percent(run.best.clean_error),
            ("mean corruption error", "%", False): _percent(run.best.mean_corruption_error),
            ("codes used", "", False): run.best.used_codes,
            ("same code as the clean image", "%", False): _percent(run.best.code_agreement),
        }
        for name, error in run.best.corruption_errors.items():
            figures[f"error under {name.replace('_', ' ')}", "%", True] = _percent(error)
    facts = _facts(run.config, {("checkpoint", "best"): run.checkpoint})
    return _Told(facts, figures, run.checkpoint, _judged_on(run.config))


def _finetuning(folder: Path) -> _Told:
    run = read_finetune(folder)
    figures: _Figures = {("epochs", "", False): run.epochs}
    if run.best is not None:
        best = run.best
        figures = {("best epoch", "", False): run.best_epoch, **figures}
        figures |= {
            ("clean error", "%", False): _percent(best.clean_error),
            ("mean corruption error", "%", False): _percent(best.mean_corruption_error),
            ("mean corruption error, float model", "%", False): _percent(
                best.float_mean_corruption_error
            ),
            ("same code as the float model", "%", False): _percent(best.code_agreement_clean),
            ("same code, corrupted", "%", False): _percent(best.code_agreement_corrupted),
            ("same class as the float model", "%", False): _percent(best.top1_agreement),
        }
    facts = _facts(run.config, {("graph", "INT8"): run.graph})
    return _Told(facts, figures, run.graph, (*_judged_on(run.config), run.validated_on))


def _judged_on(config: TrainConfig | FinetuneConfig) -> tuple[object, ...]:
    return tuple(getattr(config, name) for name in _IMAGES)


def _facts(config: TrainConfig | FinetuneConfig, results: Facts) -> Facts:
    settings = {
        ("settings", name): _text(value)
        for name, value in vars(config).items()
        if name not in _PLACES
    }
    return {**settings, **{name: value for name, value in results.items() if value}}


def _text(value: object) -> str:
    if value is None:
        return "not set"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _figures(a: _Figures, b: _Figures) -> Iterator[Figure]:
    for name, unit, detail in dict.fromkeys((*a, *b)):
        values = a.get((name, unit, detail)), b.get((name, unit, detail))
        one, other = (None if value is None else Measured(value) for value in values)
        if one is not None or other is not None:
            yield figure("validation", name, unit, one, other, detail=detail)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


_OTHER_IMAGES = "Errors are of different validation images or corruptions: do not compare them."
_IMAGES = ("data", "data_seed", "validation_images", "seen", "validate_on")
for _config in (TrainConfig, FinetuneConfig):
    assert set(_IMAGES) <= _config.__dataclass_fields__.keys()

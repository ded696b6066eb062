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
from edgekit.training.run_folder import command_of
from edgekit.training.run_log import read_run

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


@dataclass(frozen=True)
class _Value:
    """A number that a run says of itself; None while it has none."""

    name: str
    value: float | None
    unit: str = ""
    detail: bool = False


@dataclass(frozen=True)
class _Told:
    """What a run says of itself."""

    facts: Facts
    figures: tuple[_Value, ...]
    model: str
    """The hash of its result; empty while there is none."""
    judged_on: tuple[object, ...]
    """Which images, under which corruptions."""


def _training(folder: Path) -> _Told:
    run = read_run(folder)
    figures = [_Value("best epoch", run.best_epoch or None), _Value("epochs", run.epochs)]
    if run.best is not None:
        best = run.best
        figures += [
            _percent("clean error", best.clean_error),
            _percent("mean corruption error", best.mean_corruption_error),
            _Value("codes used", best.used_codes),
            _percent("same code as the clean image", best.code_agreement),
        ]
        figures += [
            _percent(f"error under {name.replace('_', ' ')}", error, detail=True)
            for name, error in best.corruption_errors.items()
        ]
    facts = _facts(run.config, {("checkpoint", "best"): run.checkpoint})
    return _Told(facts, tuple(figures), run.checkpoint, _judged_on(run.config))


def _finetuning(folder: Path) -> _Told:
    run = read_finetune(folder)
    figures = [_Value("epochs", run.epochs)]
    if run.best is not None:
        best = run.best
        figures = [
            _Value("best epoch", run.best_epoch),
            *figures,
            _percent("clean error", best.clean_error),
            _percent("mean corruption error", best.mean_corruption_error),
            _percent("mean corruption error, float model", best.float_mean_corruption_error),
            _percent("same code as the float model", best.code_agreement_clean),
            _percent("same code, corrupted", best.code_agreement_corrupted),
            _percent("same class as the float model", best.top1_agreement),
        ]
    facts = _facts(run.config, {("graph", "INT8"): run.graph})
    return _Told(facts, tuple(figures), run.graph, (*_judged_on(run.config), run.validated_on))


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


def _figures(a: tuple[_Value, ...], b: tuple[_Value, ...]) -> Iterator[Figure]:
    for each in {value.name: value for value in (*a, *b)}.values():
        one, other = _measured(a, each.name), _measured(b, each.name)
        if one is not None or other is not None:
            yield figure("validation", each.name, each.unit, one, other, detail=each.detail)


def _measured(values: tuple[_Value, ...], name: str) -> Measured | None:
    found = next((each.value for each in values if each.name == name), None)
    return None if found is None else Measured(found)


def _percent(name: str, share: float | None, *, detail: bool = False) -> _Value:
    return _Value(name, None if share is None else 100 * share, "%", detail)


_OTHER_IMAGES = "Errors are of different validation images or corruptions: do not compare them."
_IMAGES = ("data", "data_seed", "validation_images", "seen", "validate_on")
for _config in (TrainConfig, FinetuneConfig):
    assert set(_IMAGES) <= _config.__dataclass_fields__.keys()

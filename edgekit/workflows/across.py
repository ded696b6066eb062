"""Parity across artifacts: opens them all, says what computes in each, compares them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.errors import UsageError
from edgekit.data.corruption_grid import choose_cells
from edgekit.devices.remote_predictor import DevicePredictor, on_device
from edgekit.foreign.classifier import ForeignClassifier
from edgekit.foreign.execution import Execution
from edgekit.model.card import numbered_classes
from edgekit.parity.across import LETTERS, Entry, run_across
from edgekit.parity.across_document import AcrossDocument
from edgekit.parity.options import ParityOptions
from edgekit.parity.predictors import BundlePredictor, OnnxPredictor, Predictor, check_classes
from edgekit.parity.reference_check import check_reference
from edgekit.steps.context import Context
from edgekit.workflows.foreign_parity import (
    Side,
    check_batches,
    check_sizes,
    doubts_of,
    open_side,
    preparation,
)
from edgekit.workflows.judging_images import judging_images, lineup_over


@dataclass(frozen=True)
class Deployed:
    """A bundle that answers on a device."""

    device: str
    bundle: Path

    @property
    def name(self) -> str:
        """As the command line has it."""
        return f"{self.device}:{self.bundle}"


def parity_across(
    context: Context,
    artifacts: Sequence[Side | Deployed],
    reference: int,
    options: ParityOptions,
    *,
    seed: int | None = None,
    allow_fallback: bool = False,
    allow_weak: bool = False,
) -> AcrossDocument:
    """The document of all ``artifacts``, in their order; ``reference`` is the place of one."""
    uri = options.data
    if uri is None:
        raise UsageError("name the images that all shall answer, with --data")
    _check_names([artifact.name for artifact in artifacts])
    options = dataclasses.replace(options, seed=seed or 0)
    with contextlib.ExitStack() as stack:
        models, entries = [], []
        # The reference first, as in every comparison.
        for artifact in sorted(artifacts, key=lambda one: one is not artifacts[reference]):
            if isinstance(artifact, Deployed):
                opened = on_device(artifact.device, artifact.bundle, context.console)
                model: Predictor = stack.enter_context(opened)
            else:
                model = open_side(context, artifact, itself=True)
            execution = execution_of(model)
            execution.check(artifact.name, allow_fallback=allow_fallback)
            if execution.fell_back:
                context.console.warn(f"{artifact.name} runs elsewhere: {execution.describe()}")
            entry = Entry(artifact.name, preparation(model), execution)
            context.console.info(f"{entry.name}: {execution.describe()}; {entry.images}")
            models.append(model)
            entries.append(entry)
        trusted, *others = models
        for other, entry in zip(others, entries[1:], strict=True):
            check_classes(trusted, other)
            check_sizes(trusted, other, context.console, entry.name)
        named = (one.classes for one in models if one.classes != numbered_classes(len(one.classes)))
        classes = next(named, trusted.classes)
        cells = choose_cells(options.corruptions, options.severities, options.extra, options.seed)
        images = judging_images(context.console, uri, cells, classes, options.skip_bad)
        for model in models:
            check_batches(model, images.dataset, trusted.preprocessing, options.seed)
        checked = None
        if images.labeled:
            checked = check_reference(trusted, images.dataset, options.seed, allow_weak=allow_weak)
        doubts_of(checked, trusted, context.console)
        lineup = lineup_over(context, options, tuple(models), images, trusted.preprocessing)
        document = run_across(
            lineup,
            tuple(entries),
            options,
            context.console,
            labeled=images.labeled,
            reference=reference,
        )
        return dataclasses.replace(document, reference_check=checked)


def execution_of(model: Predictor) -> Execution:
    """What really computes a model's answers."""
    if isinstance(model, ForeignClassifier | BundlePredictor | DevicePredictor | OnnxPredictor):
        return model.execution
    return Execution(model.name, ())


def _check_names(names: list[str]) -> None:
    if len(names) < 2:
        raise UsageError("--across compares two artifacts or more: name them one after the other")
    if len(names) > len(LETTERS):
        raise UsageError(f"--across compares at most {len(LETTERS)} artifacts, not {len(names)}")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is named twice: leave one out")

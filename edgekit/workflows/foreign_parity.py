"""Parity of anybody's classifier: opens two sides, asks whether they can be, and compares."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.data.base import Dataset
from edgekit.data.corruption_grid import choose_cells
from edgekit.data.loading import epoch_order
from edgekit.data.transforms import Preprocessing
from edgekit.foreign.classifier import ForeignClassifier
from edgekit.foreign.execution import split_place
from edgekit.foreign.open import ForeignOptions, is_foreign, is_interchange, open_foreign
from edgekit.parity.closeness import suspicions
from edgekit.parity.compare import Comparison, run_comparison
from edgekit.parity.document import Sides
from edgekit.parity.engines import open_reference
from edgekit.parity.options import ParityOptions
from edgekit.parity.predictors import (
    Predictor,
    check_classes,
    named_classes,
    open_bundle_predictor,
    open_onnx,
)
from edgekit.parity.reference_check import ReferenceCheck, check_reference
from edgekit.steps.context import Context
from edgekit.steps.float_model import export, obtain_checkpoint
from edgekit.steps.options import SourceOptions
from edgekit.workflows.judging_images import judging_images, sweep_over

if TYPE_CHECKING:
    from edgekit.devices.remote_predictor import DevicePredictor

_TOGETHER = 16  # images, each asked for alone and among others
_MOST_DIFFERENT = 0.25  # of these answers: scales that are taken from a whole batch move some


@dataclass(frozen=True)
class Side:
    """A classifier by name, and what its file cannot say."""

    name: str
    told: ForeignOptions

    @cached_property
    def foreign(self) -> bool:
        """Whether edgekit did not make it, or the user knows better how to feed it."""
        if not is_foreign(self.name):
            return False
        placed = split_place(self.name)[1] is not None
        return placed or self.told.preprocessing is not None or not is_interchange(self.name)

    @property
    def bundle(self) -> bool:
        """Whether it is a bundle, or nothing at all, which whoever opens bundles says best."""
        path = Path(self.name)
        return not is_foreign(self.name) and (path.suffix == ".zip" or not path.is_file())

    def labeled(self, names: tuple[str, ...]) -> Side:
        """The same with class names."""
        return Side(self.name, dataclasses.replace(self.told, labels=names))


def parity_of_any(
    context: Context,
    candidate: Side,
    reference: Side,
    options: ParityOptions,
    *,
    seed: int | None = None,
    on_device: DevicePredictor | None = None,
    worst: int = 0,
) -> Comparison:
    """The comparison of any two classifiers of the same classes on the user's images.

    ``on_device`` is the candidate, a bundle, answering elsewhere; ``worst`` changed answers are
    kept to be looked at.
    """
    uri = options.data
    if uri is None:
        raise UsageError("name the images that judge, with --data: neither file says which")
    options = dataclasses.replace(options, seed=seed or 0)
    trusted = open_side(context, reference)
    answering = on_device or open_side(context, candidate, itself=True)
    check_classes(trusted, answering)
    for side in (trusted, answering):
        context.console.info(_described(side))
    check_sizes(trusted, answering, context.console)
    classes = named_classes(answering.classes, trusted.classes)
    cells = choose_cells(options.corruptions, options.severities, options.extra, options.seed)
    images = judging_images(context.console, uri, cells, classes, options.skip_bad)
    for side in (trusted, answering):
        check_batches(side, images.dataset, trusted.preprocessing, options.seed)
    checked = None
    if images.labeled:
        weak = reference.told.allow_weak
        checked = check_reference(trusted, images.dataset, options.seed, allow_weak=weak)
    doubts = doubts_of(checked, trusted, context.console)
    sweep = sweep_over(context, options, trusted, answering, images, trusted.preprocessing)
    comparison = run_comparison(
        sweep,
        options,
        context.console,
        labeled=images.labeled,
        device=None if on_device is None else on_device.session.device.name,
        worst=worst,
    )
    sides = Sides(reference=_described(trusted), candidate=_described(answering))
    warnings = suspicions(comparison.document)
    for line in warnings:
        context.console.warn(line)
    document = dataclasses.replace(
        comparison.document, sides=sides, warnings=(*doubts, *warnings), reference_check=checked
    )
    return comparison._replace(document=document)


def open_side(context: Context, side: Side, *, itself: bool = False) -> Predictor:
    """Whatever its name means: a foreign file, a bundle, or a checkpoint.

    For a float model of edgekit's a faster runtime may stand in, unless it is to be judged
    ``itself``: then it is ONNX Runtime that answers.
    """
    if side.foreign:
        return open_foreign(side.name, side.told)
    path = Path(side.name)
    file, place = split_place(side.name)
    if place is not None and Path(file).exists():
        raise UsageError(f"{file} runs where it was built for: leave out '@{place}'")
    if not path.exists():
        raise UsageError(
            f"no classifier at {path}: give a bundle, a checkpoint, an .onnx, .xml or .tflite "
            "file, or command:PROGRAM"
        )
    if path.is_dir() or path.suffix == ".zip":
        return open_bundle_predictor(path)
    if path.suffix != ".onnx":
        source = SourceOptions(str(path))
        path = export(context, obtain_checkpoint(context, source), source).onnx
    return open_onnx(path, f"{side.name}, ONNX Runtime") if itself else open_reference(path)


def doubts_of(
    checked: ReferenceCheck | None, reference: Predictor, console: Console
) -> tuple[str, ...]:
    """What the check of a reference leaves open, said at once: a comparison may take hours."""
    sentence = "" if checked is None else checked.sentence(reference.name)
    if not sentence:
        return ()
    console.warn(sentence)
    return (sentence,)


def _described(side: Predictor) -> str:
    if isinstance(side, ForeignClassifier):
        return side.describe()
    return f"{side.name}; {preparation(side)}"


def preparation(side: Predictor) -> str:
    """How images reach a classifier, in a line."""
    if isinstance(side, ForeignClassifier):
        return side.preparation()
    height, width = side.preprocessing.size
    return f"{height} x {width} px, as its own file says"


def check_sizes(
    reference: Predictor, candidate: Predictor, console: Console, name: str = "the candidate"
) -> None:
    """Both see the same corrupted images, made as the reference wants them."""
    told, ours = reference.preprocessing, candidate.preprocessing
    if told.size != ours.size:
        if not isinstance(candidate, ForeignClassifier):
            raise UsageError(
                f"the reference takes {told.size[0]} x {told.size[1]} px and {name} "
                f"{ours.size[0]} x {ours.size[1]} px, which a bundle cannot resize to: compare it "
                "with a reference of its own size"
            )
        console.warn(
            f"{name} takes {ours.size[0]} x {ours.size[1]} px: it sees the reference's "
            f"corrupted images of {told.size[0]} x {told.size[1]} px, resized"
        )
        return
    for key in ("resize", "crop_ratio", "interpolation"):
        if getattr(told, key) != getattr(ours, key):
            console.warn(
                f"both see images prepared as the reference's ({key} {getattr(told, key)}; "
                f"{name}'s would be {getattr(ours, key)})"
            )


def check_batches(side: Predictor, dataset: Dataset, pixels: Preprocessing, seed: int) -> None:
    """Refuse a classifier whose answers depend on the place of an image in its batch.

    A comparison would not see it: there a batch is one image in several variants.
    """
    rows = epoch_order(len(dataset), seed, 0)[:_TOGETHER]
    images = np.stack([pixels.fit(dataset.image(int(row))) for row in rows])
    together = side.run(images).logits.argmax(axis=1)
    alone = np.array([side.run(image[np.newaxis]).logits.argmax() for image in images])
    different = int((together != alone).sum())
    if different > _MOST_DIFFERENT * len(rows):
        raise EdgekitError(
            f"{side.name} answers {different} of {len(rows)} images otherwise in a batch than "
            "alone: it mixes up the images of a batch"
        )

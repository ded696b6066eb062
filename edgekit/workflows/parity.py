"""Parity of a bundle: finds its float original and its images, compares, stores the result."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.bundle.build_record import BuildRecord, build_record
from edgekit.bundle.float_original import cached_original
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.store import Bundle, change_bundle, open_bundle, update_bundle
from edgekit.core.console import Console
from edgekit.core.documents import DocumentError
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.data.corruption_grid import Cells, choose_cells
from edgekit.data.remote_folder import is_url
from edgekit.model.backbones.import_path import is_import_path
from edgekit.model.card import TIMM_PREFIX
from edgekit.parity.compare import Comparison, run_comparison
from edgekit.parity.document import (
    FILE,
    GRAPH_FILE,
    GRAPH_SECTION,
    ParityDocument,
    read_parity,
)
from edgekit.parity.engines import open_reference
from edgekit.parity.example_images import examples_of
from edgekit.parity.examples import EXAMPLES, Examples
from edgekit.parity.options import Gates, ParityOptions
from edgekit.parity.predictors import (
    Predictor,
    check_comparable,
    check_source,
    named_classes,
    open_bundle_predictor,
    open_graph,
)
from edgekit.parity.strength import settle
from edgekit.report.model_facts import model_facts
from edgekit.steps.artifacts import Exported
from edgekit.steps.build_data import BuildData, open_data
from edgekit.steps.context import Context
from edgekit.steps.float_model import export, obtain_checkpoint
from edgekit.steps.options import DataOptions, SourceOptions
from edgekit.workflows.judging_images import JudgingImages, judging_images, sweep_over

if TYPE_CHECKING:
    from edgekit.devices.remote_predictor import DevicePredictor


def parity_of_build(
    context: Context,
    path: Path,
    exported: Exported,
    data: BuildData,
    options: ParityOptions,
    *,
    pictures: bool = True,
) -> ParityDocument:
    """The parity step of a build, against the float graph that the bundle was made from.

    ``pictures``: the bundle keeps a few of the images, for its page.
    """
    candidate = open_bundle_predictor(path)
    manifest = candidate.model.manifest
    comparison = _of_build(context, candidate, manifest, exported, data, options)
    examples = examples_of(comparison) if pictures else None
    return save_report(path, comparison.document, context.console, examples=examples)


def parity_of_graph(
    context: Context, path: Path, exported: Exported, data: BuildData, options: ParityOptions
) -> ParityDocument:
    """The same for a bundle whose engine is pending, of its graph in ONNX Runtime.

    It is stored apart from the bundle's evidence, which only the engine on its device can give.
    """
    manifest = open_bundle(path, any_arch=True).manifest
    context.console.info(
        f"graph-parity ({manifest.target.name}): judging the graph in TensorRT's dialect with ONNX "
        "Runtime; the engine is judged on its device"
    )
    found = _of_build(context, open_graph(path), manifest, exported, data, options)
    document = dataclasses.replace(found.document, judged="graph")
    update_bundle(
        path,
        sections={GRAPH_SECTION: document.summary()},
        reports={GRAPH_FILE: _stored(document)},
    )
    return document


def _of_build(
    context: Context,
    candidate: Predictor,
    manifest: Manifest,
    exported: Exported,
    data: BuildData,
    options: ParityOptions,
) -> Comparison:
    reference = open_reference(exported.onnx)
    cells = choose_cells(None, options.severities, options.extra, options.seed)
    images = JudgingImages(data.test(), cells, None, data.labeled)
    return _compare(context, options, reference, candidate, images, manifest)


def parity_of_bundle(
    context: Context,
    path: Path,
    options: ParityOptions,
    *,
    seed: int | None = None,
    candidate: DevicePredictor | None = None,
    worst: int = 0,
) -> Comparison:
    """``edgekit parity``: like the build's step, with everything configurable.

    ``seed`` None means the build's. The split is always the build's own: another one could test
    on images that calibrated. ``candidate`` is the bundle running on a device; ``worst`` changed
    answers are kept to be looked at.
    """
    manifest = open_bundle(path, any_arch=candidate is not None).manifest
    build = build_record(manifest, str(path))
    options = dataclasses.replace(options, seed=build.seed if seed is None else seed)
    cells = choose_cells(options.corruptions, options.severities, options.extra, options.seed)
    device = None if candidate is None else candidate.session.device.name
    model = candidate or open_bundle_predictor(path)
    reference = _reference(context, path, manifest, model.classes, options)
    check_comparable(reference, model, allow_different_source=options.allow_different_reference)
    classes = named_classes(model.classes, reference.classes)
    images = _images(context, path, options, build, cells, classes)
    return _compare(context, options, reference, model, images, manifest, device, worst)


def parity_with_earlier(
    context: Context,
    path: Path,
    earlier: Path,
    options: ParityOptions,
    limit: float,
    *,
    seed: int | None = None,
) -> ParityDocument:
    """A bundle compared with an earlier one, of which it may be ``limit`` points worse.

    Both answer the images of the comparison with the original, whose answers are in the cache.
    """
    if not (earlier.is_dir() or earlier.suffix == ".zip"):
        raise UsageError(f"no earlier bundle at {earlier}: --baseline names a bundle")
    options = dataclasses.replace(
        options, reference=str(earlier), gates=Gates(limit), allow_different_reference=True
    )
    return parity_of_bundle(context, path, options, seed=seed).document


def save_report(
    path: Path,
    document: ParityDocument,
    console: Console,
    *,
    replace: bool = False,
    examples: Examples | None = None,
) -> ParityDocument:
    """Store a comparison in the bundle, as its evidence or beside it; returns it with its count.

    `edgekit.parity.strength` decides which; ``replace`` overrides that. ``examples`` are kept with
    the evidence alone; without them, those of the former evidence go.
    """
    why: str | None = None

    def change(bundle: Bundle) -> tuple[dict[str, Any], dict[str, bytes | None]]:
        nonlocal document, why
        standing = _standing(bundle, console)
        evidence, why = settle(standing, document, replace=replace)
        document = dataclasses.replace(document, looks=evidence.looks, beside=evidence.beside)
        if why is not None and standing is not None:
            console.warn(
                f"kept beside the bundle's evidence ({standing.verdict}, {standing.images:,} "
                f"images), which stays: {why}; --replace puts this one in its place"
            )
        reports: dict[str, bytes | None] = {FILE: _stored(evidence)}
        if why is None:
            reports[EXAMPLES] = None if examples is None else _stored(examples)
        return {"parity": evidence.summary()}, reports

    if not path.is_dir():
        change(open_bundle(path, any_arch=True))
        console.warn(
            f"{path} is a .zip and stays unchanged: unpack it to store the report in it, or save "
            "the output of --json"
        )
        return document
    try:
        change_bundle(path, change)
    except (EdgekitError, PermissionError) as error:
        console.warn(f"the report was not stored in the bundle: {error}")
    return document


def _stored(document: ParityDocument | Examples) -> bytes:
    """As the bundle has it."""
    return (json.dumps(document.to_dict(), indent=1, sort_keys=True) + "\n").encode()


def _standing(bundle: Bundle, console: Console) -> ParityDocument | None:
    """The bundle's evidence; an unreadable one may be replaced by anything."""
    try:
        return read_parity(bundle)
    except DocumentError as error:
        console.warn(f"replaced: {error}")
        return None


def _compare(
    context: Context,
    options: ParityOptions,
    reference: Predictor,
    candidate: Predictor,
    images: JudgingImages,
    manifest: Manifest,
    device: str | None = None,
    worst: int = 0,
) -> Comparison:
    check_comparable(reference, candidate, allow_different_source=options.allow_different_reference)
    sweep = sweep_over(context, options, reference, candidate, images, candidate.preprocessing)
    head = model_facts(manifest, candidate.name).vqsa
    return run_comparison(
        sweep,
        options,
        context.console,
        labeled=images.labeled,
        codebook_size=head.codebook_size if head.has_codebook else 0,
        device=device,
        worst=worst,
    )


def _images(
    context: Context,
    path: Path,
    options: ParityOptions,
    build: BuildRecord,
    cells: Cells,
    classes: tuple[str, ...],
) -> JudgingImages:
    """The test part of the build's data, or all of other data."""
    uri = options.data or build.data
    if uri is None:
        raise UsageError(f"{path} does not record its build's images: name some with --data")
    if options.data is None and is_url(uri.removeprefix("imagenet-c:")):
        # Whoever made the bundle is not to choose what is read with this user's credentials.
        raise UsageError(f"{path} was built with images from {uri}: to read them, add --data {uri}")
    if uri != build.data:
        return judging_images(context.console, uri, cells, classes, options.skip_bad)
    data = open_data(DataOptions(uri, build.seed, options.skip_bad), classes)
    if data.note:
        context.console.warn(data.note)
    return JudgingImages(data.test(), cells, None, data.labeled)


def _reference(
    context: Context,
    bundle: Path,
    manifest: Manifest,
    classes: tuple[str, ...],
    options: ParityOptions,
) -> Predictor:
    """The trusted model."""
    if options.reference is None:
        original = cached_original(
            context.cache, manifest.source.checkpoint, classes, context.console
        )
        if original is None:
            raise UsageError(
                f"the float original of {bundle} is not in the cache {context.cache}: name it "
                "with --reference CHECKPOINT (or a float .onnx, or another bundle)"
            )
        return open_reference(original)
    path = Path(options.reference)
    if not path.exists():
        raise UsageError(f"no reference at {path}: give a checkpoint, a float .onnx or a bundle")
    if path.is_dir() or path.suffix == ".zip":
        return open_bundle_predictor(path)
    if path.suffix == ".onnx":
        return open_reference(path)
    source = SourceOptions(str(path), labels=options.labels)
    checkpoint = obtain_checkpoint(context, source)
    if checkpoint.sha256 == manifest.source.checkpoint:  # a timm file does not say what it holds
        named = model_facts(manifest, str(bundle)).backbone
        if named.startswith(TIMM_PREFIX):
            source = dataclasses.replace(source, backbone=named)
        elif is_import_path(named):  # not imported on a bundle's word, but its build has done it
            known = cached_original(context.cache, checkpoint.sha256, classes, context.console)
            if known is not None:
                return open_reference(known)
    if not options.allow_different_reference:  # before it is exported, which takes a while
        check_source(checkpoint.sha256, manifest.source.checkpoint)
    return open_reference(export(context, checkpoint, source).onnx)

"""Parity of a bundle: finds its float original and its images, compares, writes the report."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import steps
from edgekit.bundle import open_bundle, update_bundle
from edgekit.config import BuildConfig
from edgekit.data.base import Dataset
from edgekit.data.imagenet_c import ImageNetC
from edgekit.data.loading import default_workers
from edgekit.errors import UsageError
from edgekit.manifest import Manifest
from edgekit.parity.cells import MakeVariants, choose_cells, published_cells
from edgekit.parity.compare import Gates, run_comparison
from edgekit.parity.predictors import (
    Predictor,
    check_comparable,
    open_bundle_predictor,
    open_onnx,
)
from edgekit.parity.sweep import Sweep
from edgekit.source import BuildData, open_data

_REPORT = "parity.json"
_DETAILS = ("per_corruption", "codes")  # in parity.json only, not in the manifest


@dataclass(frozen=True)
class ParityOptions:
    """What ``edgekit parity`` was asked for."""

    reference: str | None = None  # None: the float original, from the cache
    data: str | None = None  # None: what the bundle was built with
    labels: str | None = None
    gates: Gates = dataclasses.field(default_factory=Gates)
    corruptions: str | None = None  # None: the 15 of the benchmark
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    extra: bool = False
    full: bool = False
    images: int = 0  # at most; 0 is all
    seed: int | None = None  # None: the build's
    skip_bad: bool = False
    allow_different_reference: bool = False


def parity_of_build(job: steps.Job, built: steps.Built, data: BuildData) -> dict[str, Any]:
    """The parity step of a build, against the float graph that the bundle was made from."""
    config = job.config
    options = ParityOptions(
        gates=Gates(tolerance=config.tolerance), images=config.parity_images, seed=config.seed
    )
    card = built.quantized.exported.card
    reference = dataclasses.replace(open_onnx(built.quantized.exported.onnx), classes=card.classes)
    return _compare(job, built.path, options, reference, data)


def parity_of_bundle(job: steps.Job, path: Path, options: ParityOptions) -> dict[str, Any]:
    """``edgekit parity``: like the build's step, with everything open to choice."""
    manifest = open_bundle(path).manifest
    made_with = manifest.sections.get("build", {})
    uri = options.data or made_with.get("data")
    if uri is None:
        raise UsageError(f"{path} does not say which images it was built with: name some, --data")
    seed = options.seed if options.seed is not None else int(made_with.get("seed", 0))
    options = dataclasses.replace(options, seed=seed)
    reference = _reference(job, manifest, options)
    config = dataclasses.replace(job.config, data=uri, seed=seed, skip_bad=options.skip_bad)
    data = open_data(config, reference.classes)
    if data.note:
        job.console.warn(data.note)
    return _compare(job, path, options, reference, data)


def _compare(
    job: steps.Job,
    path: Path,
    options: ParityOptions,
    reference: Predictor,
    data: BuildData,
) -> dict[str, Any]:
    candidate = open_bundle_predictor(path)
    check_comparable(reference, candidate, allow_different_source=options.allow_different_reference)
    dataset: Dataset = data.dataset
    seed = options.seed or 0
    cells = choose_cells(options.corruptions, options.severities, options.extra, seed)
    if isinstance(dataset, ImageNetC):
        cells = published_cells(dataset, cells)
    else:
        dataset = data.test()
    sweep = Sweep(
        dataset=dataset,
        make=MakeVariants(candidate.preprocessing, cells),
        reference=reference,
        candidate=candidate,
        cache=job.cache / "parity",
        images=options.images or len(dataset),
        workers=default_workers(),
        seed=seed,
    )
    vqsa = candidate.model.manifest.model["vqsa"]
    size = 0 if vqsa["output"] == "none" else int(vqsa["codebook_size"])
    document = run_comparison(
        sweep,
        options.gates,
        job.console,
        labeled=data.labeled,
        full=options.full,
        codebook_size=size,
    )
    summary = {name: value for name, value in document.items() if name not in _DETAILS}
    if path.is_dir():
        text = json.dumps(document, indent=1, sort_keys=True) + "\n"
        update_bundle(path, sections={"parity": summary}, reports={_REPORT: text.encode()})
    return document


def _reference(job: steps.Job, manifest: Manifest, options: ParityOptions) -> Predictor:
    """The model that is taken for right."""
    if options.reference is None:
        found = _cached_original(job.cache, manifest.source.checkpoint)
        if found is None:
            raise UsageError(
                "the bundle's float original is not in the cache: name it, with --reference "
                "CHECKPOINT (or a float .onnx, or another bundle)"
            )
        return open_onnx(found)
    path = Path(options.reference)
    if path.is_dir() or path.suffix == ".zip":
        return open_bundle_predictor(path)
    if path.suffix == ".onnx":
        return open_onnx(path)
    config = dataclasses.replace(job.config, checkpoint=str(path), labels=options.labels)
    job = dataclasses.replace(job, config=config)
    return open_onnx(steps.export(job, steps.load(job)).onnx)


def _cached_original(cache: Path, checkpoint: str) -> Path | None:
    """A float export of this checkpoint, from an earlier build."""
    for record in sorted((cache / "export").glob("*/entry.json")):
        try:
            inputs = json.loads(record.read_text(encoding="utf-8"))["inputs"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if inputs.get("checkpoint") == checkpoint:
            return record.parent / "model.onnx"
    return None


def default_job(console: Any, cache: Path) -> steps.Job:
    """A job for commands that build nothing."""
    return steps.Job(BuildConfig(), console, cache)

"""From the float graph to the INT8 one of a dialect."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.core.errors import UsageError
from edgekit.core.files import write_bytes, write_text
from edgekit.core.step_cache import cached, versions_of
from edgekit.quantize.calibration_images import (
    CalibrationImage,
    ImageList,
    candidates,
    choose_images,
    choose_stratified,
    listed_images,
    load_images,
    pixels_hash,
    read_list,
)
from edgekit.quantize.recipes import Recipe, check_dialect, read_recipe
from edgekit.steps.build_data import BuildData
from edgekit.steps.config import BuildConfig
from edgekit.steps.guard import hold_out
from edgekit.steps.job import Exported, Job, Quantized, precision
from edgekit.targets.descriptor import Descriptor
from edgekit.targets.dialects import Dialect, find_dialect

_PROBE_VIEWS = 5  # corrupted variants of each image


def quantize(job: Job, exported: Exported, data: BuildData, descriptor: Descriptor) -> Quantized:
    """Calibrate for a target, unless it wants floats."""
    if precision(job.config, descriptor) == "fp32":
        return Quantized(exported, exported.onnx, None, "", "", {"precision": "fp32"})
    if job.config.quantized is not None:
        return take_finetuned(job, exported, descriptor.dialect)
    return calibrate(job, exported, data, descriptor.dialect)


def calibrate(
    job: Job,
    exported: Exported,
    data: BuildData,
    dialect_name: str,
    listing: Path | None = None,
) -> Quantized:
    """Calibrate the float graph to INT8; dialects that calibrate alike share the result.

    ``listing`` is the image list of an earlier calibration, whose images are taken again.
    """
    dialect = find_dialect(dialect_name)
    recipe, images = _calibration_images(job.config, data, listing)
    check_dialect(recipe, dialect)
    if min(len(images), recipe.images) < recipe.images:
        job.console.warn(
            f"calibrating on {len(images)} images, the recipe asks for {recipe.images}: "
            "the data have no more for calibration"
        )
    inputs = calibration_inputs(job, exported, data, dialect, listing)
    held_out = hold_out(job, exported, data, again="calibrate" in job.forced)

    def make(folder: Path) -> None:
        import onnx

        from edgekit.quantize.calibrate import calibrate as run_nncf

        original, preprocessing = onnx.load(exported.onnx), exported.card.preprocessing
        chosen = images
        if recipe.selection == "stratified" and listing is None:
            chosen = _stratified(job, exported, data, recipe, images)
        pixels = _calibration_pixels(job, exported, data, chosen)
        listed = ImageList(job.config.seed, pixels_hash(pixels), recipe, chosen)
        if listing is not None and listed.pixels != read_list(listing).pixels:
            job.console.warn(
                f"the images of {listing} have other pixels here (another release of Pillow, "
                "OpenCV or NumPy, or another model's size): the ranges may differ"
            )
        model, report = run_nncf(
            original,
            pixels,
            held_out.probe.flat(),
            preprocessing,
            recipe,
            dialect,
            job.console,
        )
        document = {**asdict(report), "message": report.message()}
        if recipe.max_drop is not None:
            from edgekit.graph.layers import weight_names
            from edgekit.quantize.accuracy_control import control
            from edgekit.quantize.calibrate import describe

            model, controlled = control(
                model,
                original,
                probe_of(job, exported, data, recipe.control_images),
                max_drop=recipe.max_drop,
                metric=recipe.metric,
                dialect=dialect,
                console=job.console,
            )
            report = describe(model, report, weight_names(original))
            message = f"{report.message()}; {controlled.message()}"
            document = {**asdict(report), "message": message, "control": controlled.to_dict()}
        write_bytes(folder / "model.onnx", model.SerializeToString(deterministic=True))
        write_text(folder / "images.json", listed.to_json())
        write_text(folder / "report.json", json.dumps(document))

    folder = cached(
        job.cache, "calibrate", inputs, make, job.console, force="calibrate" in job.forced
    )
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    job.console.info(f"calibrate ({dialect.name}): {report['message']}")
    listed = read_list(folder / "images.json")
    return Quantized(
        exported,
        folder / "model.onnx",
        dialect,
        _hash(asdict(recipe)),
        _hash([asdict(image) for image in listed.images]),
        report,
    )


def probe_of(job: Job, exported: Exported, data: BuildData, images: int) -> Any:
    """Validation images, clean and corrupted, on which INT8 graphs are judged while in the making.

    At least so many that every corruption meets every severity.
    """
    from edgekit.data.loading import default_workers
    from edgekit.quantize.probe import load_probe

    validation = data.splits.part("validation", data.dataset)
    return load_probe(
        validation,
        exported.card.preprocessing,
        images=images,
        views=_PROBE_VIEWS,
        labeled=data.labeled,
        seed=job.config.seed,
        workers=min(default_workers(), images // 64),
    )


def _stratified(
    job: Job,
    exported: Exported,
    data: BuildData,
    recipe: Recipe,
    pool: tuple[CalibrationImage, ...],
) -> tuple[CalibrationImage, ...]:
    """Those of ``pool`` that show the float model's every code."""
    import onnx

    from edgekit.quantize.engine import answers

    def codes_of(images: tuple[CalibrationImage, ...]) -> Any:
        pixels = _calibration_pixels(job, exported, data, images)
        codes = answers(onnx.load(exported.onnx), pixels, exported.card.preprocessing).code
        if codes is None:
            raise UsageError(
                'this model has no codebook, so no selection = "stratified": use "balanced"'
            )
        return codes

    return choose_stratified(pool, recipe, codes_of)


def _calibration_pixels(
    job: Job, exported: Exported, data: BuildData, images: tuple[CalibrationImage, ...]
) -> Any:
    from edgekit.data.loading import default_workers

    workers = min(default_workers(), len(images) // 64)  # starting one costs a second
    return load_images(
        data.calibration(), images, exported.card.preprocessing, job.config.seed, workers
    )


def take_finetuned(job: Job, exported: Exported, dialect_name: str) -> Quantized:
    """The INT8 graph that the user had fine-tuned, in the place of a calibration."""
    from edgekit.quantize.qat.record import check_target, read_finetuned, suits

    path, dialect = Path(str(job.config.quantized)), find_dialect(dialect_name)
    _, record = read_finetuned(path)
    if record.checkpoint != exported.checkpoint.sha256:
        raise UsageError(
            f"{path} was fine-tuned from another checkpoint (SHA-256 {record.checkpoint[:8]}...) "
            f"than {exported.checkpoint.path} ({exported.checkpoint.sha256[:8]}...)"
        )
    check_target(record, dialect, path)
    job.console.info(f"calibrate ({dialect.name}): skipped, {path} is fine-tuned")
    fits = suits(record, dialect)
    if not fits:
        job.console.warn(
            f"{path} was fine-tuned in the form of dialect {record.dialect}: its scales are "
            f"changed for {dialect.name}; 'edgekit finetune --dialect {dialect.name}' avoids that"
        )
    report = {"message": f"fine-tuned for {record.dialect}"}
    return Quantized(
        exported, path, dialect, record.recipe, record.images, report, record.to_dict(), fits
    )


def legal_onnx(quantized: Quantized, folder: Path) -> Path:
    """The graph as its dialect wants it, written to ``folder`` where that is another one."""
    if quantized.dialect is None or quantized.legal or not quantized.dialect.rewrites:
        return quantized.onnx
    import onnx

    from edgekit.graph.legalize import legalize

    legal = legalize(onnx.load(quantized.onnx), quantized.dialect)
    write_bytes(folder / "legal.onnx", legal.SerializeToString(deterministic=True))
    return folder / "legal.onnx"


def calibration_inputs(
    job: Job,
    exported: Exported,
    data: BuildData,
    dialect: Dialect,
    listing: Path | None = None,
) -> dict[str, Any]:
    """All that a calibration depends on."""
    recipe, images = _calibration_images(job.config, data, listing)
    inputs = {
        "onnx": exported.report["sha256"],
        "images": [asdict(image) for image in images],
        "listed": listing is not None,
        "recipe": asdict(recipe),
        "half_range": "all weights" if dialect.saturates else "",
        "seed": job.config.seed,
        "held_out": data.splits.summary()["sha256"],  # they decide which corrections are kept
        "preprocessing": exported.card.preprocessing.to_dict(),
        "tools": versions_of("edgekit", "nncf", "onnx", "onnxruntime", "openvino", "numpy"),
    }
    if recipe.max_drop is not None:  # decided on what the dialect makes of the graph
        validation = data.splits.summary()["sha256"]
        inputs["control"] = {"dialect": dialect.name, "split": validation, "labels": data.labeled}
    return inputs


def _calibration_images(
    config: BuildConfig, data: BuildData, listing: Path | None
) -> tuple[Recipe, tuple[CalibrationImage, ...]]:
    """The recipe and its images; for a stratified selection those that it chooses from."""
    recipe = read_recipe(config.recipe, max_drop=config.max_drop, metric=config.metric)
    part = data.calibration()
    if listing is not None:
        return recipe, listed_images(part, read_list(listing), listing)
    if recipe.selection == "stratified":
        return recipe, candidates(part, recipe, config.seed)
    return recipe, choose_images(part, recipe, config.seed)


def _hash(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

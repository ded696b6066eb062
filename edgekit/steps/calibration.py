"""From the float graph to a dialect's INT8 graph."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.core.files import write_bytes, write_text
from edgekit.core.step_cache import cached, find, versions_of
from edgekit.quantize.calibration_images import (
    CalibrationImage,
    ImageList,
    Prepare,
    candidates,
    choose_images,
    choose_stratified,
    listed_images,
    load_images,
    pixels_hash,
    read_list,
)
from edgekit.quantize.recipes import Recipe, check_dialect
from edgekit.steps.artifacts import Exported, Quantized
from edgekit.steps.build_data import BuildData
from edgekit.steps.context import Context
from edgekit.steps.guard import hold_out
from edgekit.targets.dialects import Dialect, find_dialect

_PROBE_VIEWS = 5  # corrupted variants of each image


@dataclass(frozen=True)
class ChosenImages:
    """The calibration images, or the candidates for a selection that has yet to look at them.

    Choosing reads and hashes every image, so it is done once for all targets.
    """

    recipe: Recipe
    images: tuple[CalibrationImage, ...]
    listing: Path | None  # the earlier calibration's list they come from, if any

    @property
    def are_candidates(self) -> bool:
        """Whether the float model's codes, or their own quality, must still select among them."""
        return _looks_at_images(self.recipe) and self.listing is None


def _looks_at_images(recipe: Recipe) -> bool:
    return recipe.selection in ("stratified", "quality")


def choose_calibration_images(
    console: Console, data: BuildData, recipe: Recipe, listing: Path | None = None
) -> ChosenImages:
    """The images that ``recipe`` takes from the calibration part, or those of ``listing``."""
    part = data.calibration()
    if listing is not None:
        images = listed_images(part, read_list(listing), listing)
    elif _looks_at_images(recipe):
        images = candidates(part, recipe, data.seed)
    else:
        images = choose_images(part, recipe, data.seed)
    if len(images) < recipe.images:
        console.warn(
            f"calibrating on {len(images)} images, the recipe asks for {recipe.images}: "
            "the data have no more for calibration"
        )
    return ChosenImages(recipe, images, listing)


@dataclass(frozen=True)
class Calibration:
    """Everything that a calibration depends on."""

    exported: Exported
    data: BuildData
    chosen: ChosenImages
    dialect: Dialect

    def __post_init__(self) -> None:
        """Refuse a recipe whose result the dialect cannot express."""
        check_dialect(self.chosen.recipe, self.dialect)

    def inputs(self) -> dict[str, Any]:
        """The same as plain values, which are the result's key in the cache."""
        recipe, split = self.chosen.recipe, self.data.splits.summary()["sha256"]
        inputs = {
            "onnx": self.exported.report["sha256"],
            "images": [asdict(image) for image in self.chosen.images],
            "listed": self.chosen.listing is not None,
            "recipe": asdict(recipe),
            "half_range": "all weights" if self.dialect.saturates else "",
            "seed": self.data.seed,
            "held_out": split,  # these images decide which corrections are kept
            "preprocessing": self.exported.card.preprocessing.to_dict(),
            "tools": versions_of("edgekit", "nncf", "onnx", "onnxruntime", "openvino", "numpy"),
        }
        if recipe.max_drop is not None:  # decided on the graph in the dialect's form
            inputs["control"] = {
                "dialect": self.dialect.name,
                "split": split,
                "labels": self.data.labeled,
            }
        return inputs


def calibrate_alike(recipe: Recipe, one: Dialect, other: Dialect) -> bool:
    """Whether two dialects' calibrations, and so their `Calibration.inputs`, are the same."""
    return one.saturates == other.saturates and (recipe.max_drop is None or one.name == other.name)


def calibrate(context: Context, calibration: Calibration, *, again: bool = False) -> Quantized:
    """Calibrate the float graph to INT8; dialects that calibrate alike share the result.

    ``again`` does so even if the result is in the cache.
    """

    def make(folder: Path) -> None:
        _calibrate_to(context, calibration, folder)

    inputs = calibration.inputs()
    folder = cached(context.cache, "calibrate", inputs, make, context.console, force=again)
    quantized = _read_calibration(calibration, folder)
    context.console.info(quantized.describe())
    return quantized


def cached_calibration(context: Context, calibration: Calibration) -> Quantized | None:
    """The result of `calibrate`, if it is in the cache."""
    folder = find(context.cache, "calibrate", calibration.inputs(), context.console)
    return None if folder is None else _read_calibration(calibration, folder)


def _read_calibration(calibration: Calibration, folder: Path) -> Quantized:
    listed = read_list(folder / "images.json")
    return Quantized(
        calibration.exported,
        folder / "model.onnx",
        calibration.dialect,
        _hash(asdict(calibration.chosen.recipe)),
        _hash([asdict(image) for image in listed.images]),
        json.loads((folder / "report.json").read_text(encoding="utf-8")),
    )


def _calibrate_to(context: Context, calibration: Calibration, folder: Path) -> None:
    import onnx

    from edgekit.quantize.calibrate import calibrate as run_nncf

    exported, data, chosen = calibration.exported, calibration.data, calibration.chosen
    recipe, dialect, console = chosen.recipe, calibration.dialect, context.console
    again = "calibrate" in context.forced
    held_out = hold_out(context, exported, data, again=again)
    original = onnx.load(exported.onnx)
    images = _selected(exported, data, chosen) if chosen.are_candidates else chosen.images
    pixels = _calibration_pixels(exported, data, images)
    listed = ImageList(data.seed, pixels_hash(pixels), recipe, images)
    listing = chosen.listing
    if listing is not None and listed.pixels != read_list(listing).pixels:
        console.warn(
            f"the images of {listing} have different pixels here (another release of Pillow, "
            "OpenCV or NumPy, or another model's size): the ranges may differ"
        )
    model, report = run_nncf(
        original,
        pixels,
        held_out.probe.flat(),
        exported.card.preprocessing,
        recipe,
        dialect,
        console,
    )
    document = {**asdict(report), "message": report.message()}
    if recipe.max_drop is not None:
        from edgekit.graph.layers import weight_names
        from edgekit.quantize.accuracy_control import control
        from edgekit.quantize.calibrate import describe

        model, controlled = control(
            model,
            original,
            probe_of(exported, data, recipe.control_images),
            max_drop=recipe.max_drop,
            metric=recipe.metric,
            dialect=dialect,
            console=console,
        )
        report = describe(model, report, weight_names(original))
        message = f"{report.message()}; {controlled.message()}"
        document = {**asdict(report), "message": message, "control": controlled.to_dict()}
    write_bytes(folder / "model.onnx", model.SerializeToString(deterministic=True))
    write_text(folder / "images.json", listed.to_json())
    write_text(folder / "report.json", json.dumps(document))


def probe_of(exported: Exported, data: BuildData, images: int) -> Any:
    """Validation images, clean and corrupted, for evaluating INT8 graphs during calibration.

    At least enough for every corruption to occur at every severity.
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
        seed=data.seed,
        workers=min(default_workers(), images // 64),
    )


def _selected(
    exported: Exported, data: BuildData, pool: ChosenImages
) -> tuple[CalibrationImage, ...]:
    """Select from ``pool`` so that all codes of the float model occur, or all qualities."""
    if pool.recipe.selection == "quality":
        return _by_quality(exported, data, pool)
    import onnx

    from edgekit.quantize.engine import answers

    def codes_of(images: tuple[CalibrationImage, ...]) -> Any:
        pixels = _calibration_pixels(exported, data, images)
        codes = answers(onnx.load(exported.onnx), pixels, exported.card.preprocessing).code
        if codes is None:
            raise UsageError(
                'this model has no codebook for selection = "stratified": use "balanced"'
            )
        return codes

    return choose_stratified(pool.images, pool.recipe, codes_of)


def _by_quality(
    exported: Exported, data: BuildData, pool: ChosenImages
) -> tuple[CalibrationImage, ...]:
    from edgekit.data.loading import default_workers, load_each
    from edgekit.quantize.quality_selection import Measure, choose_by_quality

    look = Measure(Prepare(exported.card.preprocessing, data.seed))
    workers = min(default_workers(), len(pool.images) // 64)
    qualities = list(load_each(data.calibration(), pool.images, look, workers=workers))
    return choose_by_quality(pool.images, pool.recipe, qualities)


def _calibration_pixels(
    exported: Exported, data: BuildData, images: tuple[CalibrationImage, ...]
) -> Any:
    from edgekit.data.loading import default_workers

    workers = min(default_workers(), len(images) // 64)  # starting one costs a second
    return load_images(data.calibration(), images, exported.card.preprocessing, data.seed, workers)


def leave_float(exported: Exported) -> Quantized:
    """The float graph, for a float target."""
    return Quantized(exported, exported.onnx, None, "", "", {"precision": "fp32"})


def take_finetuned(
    console: Console, exported: Exported, path: Path, dialect_name: str
) -> Quantized:
    """The user's fine-tuned INT8 graph, instead of a calibration."""
    from edgekit.quantize.qat.record import check_target, read_finetuned, suits

    dialect = find_dialect(dialect_name)
    _, record = read_finetuned(path)
    if record.checkpoint != exported.checkpoint.sha256:
        raise UsageError(
            f"{path} was fine-tuned from another checkpoint (SHA-256 {record.checkpoint[:8]}...) "
            f"than {exported.checkpoint.path} ({exported.checkpoint.sha256[:8]}...)"
        )
    check_target(record, dialect, path)
    console.info(f"calibrate ({dialect.name}): skipped, {path} is fine-tuned")
    fits = suits(record, dialect)
    if not fits:
        console.warn(
            f"{path} was fine-tuned for dialect {record.dialect}: its scales are changed "
            f"for {dialect.name}; 'edgekit finetune --dialect {dialect.name}' avoids that"
        )
    report = {"message": f"fine-tuned for {record.dialect}"}
    return Quantized(
        exported, path, dialect, record.recipe, record.images, report, record.to_dict(), fits
    )


def legal_onnx(quantized: Quantized, folder: Path) -> Path:
    """The graph in its dialect's form, written to ``folder`` if that differs."""
    if quantized.dialect is None or quantized.legal or not quantized.dialect.rewrites:
        return quantized.onnx
    import onnx

    from edgekit.graph.legalize import legalize

    legal = legalize(onnx.load(quantized.onnx), quantized.dialect)
    write_bytes(folder / "legal.onnx", legal.SerializeToString(deterministic=True))
    return folder / "legal.onnx"


def _hash(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

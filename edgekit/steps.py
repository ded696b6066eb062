"""The steps of a build, each a plain function from what it needs to what it made.

Steps whose result is worth keeping put it into the cache; none keeps state of its own. Heavy
packages are imported inside the step that needs them, so that a build with nothing to do starts
and ends without them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.backends import CompiledFiles, compiler
from edgekit.bundle import update_bundle, write_bundle, zip_bundle
from edgekit.cache import cached, find
from edgekit.config import BuildConfig
from edgekit.console import Console
from edgekit.descriptors import Descriptor, Precision, why_not_here
from edgekit.errors import ToolchainMissing, UsageError
from edgekit.files import file_sha256, write_bytes, write_text
from edgekit.inspection import read_labels
from edgekit.jetson import PENDING, SCRIPT, SELFTEST, carry_plugin
from edgekit.manifest import Manifest, ModelInput, Source, tool_versions
from edgekit.model.card import ModelCard, card_from_json, numbered_classes
from edgekit.quantize.dialects import Dialect, find_dialect
from edgekit.quantize.images import (
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
from edgekit.source import BuildData, open_data


@dataclass(frozen=True)
class Job:
    """What every step may look at."""

    config: BuildConfig
    console: Console
    cache: Path
    forced: frozenset[str] = frozenset()  # steps to be done again although they are cached


@dataclass(frozen=True)
class Checkpoint:
    """The trained model that a build starts from."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Exported:
    """The float ONNX graph, folded where that is possible, and the model card."""

    checkpoint: Checkpoint
    onnx: Path
    card: ModelCard
    report: Mapping[str, Any]


@dataclass(frozen=True)
class Quantized:
    """A calibrated ONNX graph, or a float one where nothing was to be calibrated."""

    exported: Exported
    onnx: Path  # in NNCF's form; `legal_onnx` gives the dialect's
    dialect: Dialect | None  # None: float
    recipe: str  # SHA-256 of the recipe; "" when nothing was calibrated
    images: str  # SHA-256 of the list of calibration images
    report: Mapping[str, Any]
    finetuned: Mapping[str, Any] | None = None  # how, where `edgekit finetune` made the graph
    legal: bool = False  # it has the dialect's form already


@dataclass(frozen=True)
class Built:
    """A bundle on disk."""

    path: Path
    descriptor: Descriptor
    quantized: Quantized
    manifest: Manifest

    @property
    def pending(self) -> bool:
        """Whether the bundle runs only after a step on its device."""
        return self.manifest.sections.get("engine") == PENDING

    def why_not_measured(self) -> str | None:
        """Why this machine cannot run the bundle, or None."""
        if self.pending:
            return "its engine is built on the device"
        return why_not_here(self.descriptor)


def load(job: Job) -> Checkpoint:
    """The checkpoint that the user named, or the built-in one, trained on first use."""
    if job.config.checkpoint is not None:
        return _hashed(Path(job.config.checkpoint))
    from edgekit.model.builtin_model import train_builtin

    return _hashed(train_builtin(job.cache / "builtin", job.console))


def known_checkpoint(job: Job) -> Checkpoint | None:
    """Like `load`, but None where the built-in model would have to be trained first."""
    if job.config.checkpoint is not None:
        return _hashed(Path(job.config.checkpoint))
    from edgekit.model.builtin_model import builtin_checkpoint

    path = builtin_checkpoint(job.cache / "builtin", job.console)
    return None if path is None else _hashed(path)


def _hashed(path: Path) -> Checkpoint:
    try:
        return Checkpoint(path, file_sha256(path))
    except OSError as error:
        raise UsageError(f"cannot read checkpoint {path}: {error.strerror}") from error


def export(job: Job, checkpoint: Checkpoint) -> Exported:
    """Fold the model and write it as float ONNX, checked against torch."""
    labels = _labels(job.config)

    def make(folder: Path) -> None:
        from edgekit.export.onnx import export_onnx
        from edgekit.model.checkpoint import load_checkpoint

        job.console.info("export: folding the model and writing float ONNX")
        loaded = load_checkpoint(checkpoint.path, backbone=job.config.backbone, classes=labels)
        for note in loaded.notes:
            job.console.info(f"note: {note}")
        report = export_onnx(
            loaded.model, loaded.card, folder / "model.onnx", source=checkpoint.sha256
        )
        write_text(folder / "card.json", loaded.card.to_json())
        document = {**report.to_dict(), "path": "model.onnx"}
        write_text(folder / "report.json", json.dumps(document, sort_keys=True, default=str))

    inputs = export_inputs(job, checkpoint)
    folder = cached(job.cache, "export", inputs, make, job.console, force="export" in job.forced)
    exported = _read_export(checkpoint, folder)
    job.console.info(f"export: {exported.report['fold']}")
    return exported


def export_inputs(job: Job, checkpoint: Checkpoint) -> dict[str, Any]:
    """All that the exported graph depends on."""
    return {
        "checkpoint": checkpoint.sha256,
        "backbone": job.config.backbone,
        "labels": _labels(job.config),
        "tools": _versions("edgekit", "torch", "onnx", "onnxscript"),
    }


def cached_export(job: Job, checkpoint: Checkpoint) -> Exported | None:
    """The result of `export`, if it is in the cache."""
    folder = find(job.cache, "export", export_inputs(job, checkpoint), job.console)
    return None if folder is None else _read_export(checkpoint, folder)


def _read_export(checkpoint: Checkpoint, folder: Path) -> Exported:
    card = card_from_json((folder / "card.json").read_text(encoding="utf-8"), str(folder))
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return Exported(checkpoint, folder / "model.onnx", card, report)


def name_classes(job: Job, exported: Exported, data: BuildData) -> Exported:
    """Give a model without class names those of the data, where their number agrees."""
    if data.note:
        job.console.warn(data.note)
    nameless = exported.card.classes == numbered_classes(len(exported.card.classes))
    if not (nameless and data.labeled):
        return exported
    card = dataclasses.replace(exported.card, classes=data.names)
    return dataclasses.replace(exported, card=card)


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
        model, report = run_nncf(original, pixels, preprocessing, recipe, dialect, job.console)
        document = {**asdict(report), "message": report.message()}
        if recipe.max_drop is not None:
            from edgekit.quantize.calibrate import describe
            from edgekit.quantize.control import control
            from edgekit.quantize.layers import weight_names

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


_PROBE_VIEWS = 5  # corrupted variants of each image


def _stratified(
    job: Job,
    exported: Exported,
    data: BuildData,
    recipe: Recipe,
    pool: tuple[CalibrationImage, ...],
) -> tuple[CalibrationImage, ...]:
    """Those of ``pool`` that show the float model's every code."""
    import onnx

    from edgekit.quantize.probe import answers

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
    from edgekit.quantize.finetuned import check_target, read_finetuned, suits

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

    from edgekit.quantize.dialects import legalize

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
        "saturates": dialect.saturates,
        "seed": job.config.seed,
        "preprocessing": exported.card.preprocessing.to_dict(),
        "tools": _versions("edgekit", "nncf", "onnx", "onnxruntime", "openvino", "numpy"),
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


def compile_bundle(job: Job, quantized: Quantized, descriptor: Descriptor, key: str) -> Built:
    """Compile for the target's runtime and write the bundle, whole or not at all."""
    card = quantized.exported.card
    path = bundle_path(job.config, descriptor)
    with (
        tempfile.TemporaryDirectory(prefix="edgekit-") as folder,
        tempfile.TemporaryDirectory(prefix="edgekit-") as scratch,
    ):
        graph = legal_onnx(quantized, Path(scratch))
        made = compiler(descriptor.backend)(graph, card.preprocessing, descriptor, Path(folder))
        made = _with_plugin(job.config, made, descriptor, card.preprocessing.size)
        height, width = card.preprocessing.size
        model = asdict(card)
        del model["classes"], model["preprocessing"]
        manifest = Manifest(
            model=json.loads(json.dumps(model)),  # lists for tuples, as they will be read back
            classes=len(card.classes),
            preprocessing=card.preprocessing,
            input=ModelInput(made.input_name, height, width),
            target=dataclasses.replace(descriptor, precision=precision(job.config, descriptor)),
            arch=made.arch,
            main=made.main,
            plugins=made.plugins,
            runtime=made.runtime,
            versions=tool_versions(),
            source=Source(quantized.exported.checkpoint.sha256, quantized.recipe, quantized.images),
            rebuild=command(job.config, descriptor),
            sections={
                **made.sections,
                **({"finetuned": quantized.finetuned} if quantized.finetuned else {}),
                "build": _provenance(job.config, key, complete=False),
            },
        )
        files = {file.name: file for file in made.files}
        if quantized.dialect is not None:  # which images, with hashes, so that it can be repeated
            listing = quantized.onnx.with_name("images.json")
            if listing.exists() or quantized.finetuned is None:  # a graph may be given alone
                files["calibration.json"] = listing
        written = write_bundle(path, manifest, files, card.classes)
    job.console.info(f"compile ({descriptor.name}): wrote {path}")
    built = Built(path, descriptor, quantized, written)
    if SELFTEST not in files and built.why_not_measured() is None:
        from edgekit.bench.selftest import stored_answers

        written = update_bundle(path, reports={SELFTEST: stored_answers(path)})
        built = dataclasses.replace(built, manifest=written)
    if built.pending:
        script = path / SCRIPT
        job.console.info(f"engine ({descriptor.name}): {PENDING}, with 'bash {script}' there")
    return built


def _with_plugin(
    config: BuildConfig, made: CompiledFiles, descriptor: Descriptor, size: tuple[int, int]
) -> CompiledFiles:
    """Add the compiled plugin that the user named to a bundle whose engine is pending."""
    if config.plugin is None or made.sections.get("engine") != PENDING:
        return made
    folder = made.files[0].parent
    library = carry_plugin(folder, Path(config.plugin), descriptor, size=size)
    return dataclasses.replace(made, files=(*made.files, library))


def _control_section(quantized: Quantized) -> dict[str, Any]:
    """Which layers accuracy control left in float, and why."""
    found = quantized.report.get("control")
    return {} if found is None else {"accuracy_control": found}


def check_engine(descriptor: Descriptor) -> None:
    """Refuse a target whose engine this machine cannot build."""
    if descriptor.backend != "tensorrt":
        return
    from edgekit.backends.tensorrt_compile import builds_here

    if not builds_here(descriptor):
        raise ToolchainMissing(
            f"no engine for {descriptor.name} can be built here: build on the device, where "
            "trtexec is (apt-get install libnvinfer-bin), or without --require-engine"
        )


def pack(job: Job, built: Built) -> Path | None:
    """The bundle as one .zip beside it, when asked for."""
    if not job.config.zip:
        return None
    target = built.path.with_name(f"{built.path.name}.zip")
    zip_bundle(built.path, target)
    job.console.info(f"zip: wrote {target}")
    return target


def bundle_path(config: BuildConfig, descriptor: Descriptor) -> Path:
    """Where a target's bundle goes."""
    return Path(config.out) / descriptor.name


def precision(config: BuildConfig, descriptor: Descriptor) -> Precision:
    """ "int8" or "fp32": what the user says, or what the target asks for."""
    return descriptor.precision if config.precision == "auto" else config.precision


def command(config: BuildConfig, descriptor: Descriptor) -> str:
    """The command line that builds this bundle again; file names as they were given."""
    words = ["edgekit build", f"--target {descriptor.name}"]
    defaults = BuildConfig()
    for name in (
        *("checkpoint", "backbone", "labels", "data", "recipe", "max_drop", "metric"),
        *("quantized", "precision", "seed"),
    ):
        value = getattr(config, name)
        if value != getattr(defaults, name):
            words.append(f"--{name.replace('_', '-')} {Path(str(value)).name}")
    return " ".join(words)


def complete(job: Job, built: Built, key: str) -> None:
    """Mark a bundle as finished; one that was killed before this is built again."""
    update_bundle(built.path, sections={"build": _provenance(job.config, key, complete=True)})


def _provenance(config: BuildConfig, key: str, *, complete: bool) -> dict[str, Any]:
    return {"key": key, "complete": complete, "data": config.data, "seed": config.seed}


def _labels(config: BuildConfig) -> tuple[str, ...] | None:
    return read_labels(Path(config.labels)) if config.labels else None


def open_build_data(job: Job, exported: Exported) -> BuildData:
    """The build's images, split and matched to the model's classes."""
    return open_data(job.config, exported.card.classes)


def _versions(*names: str) -> dict[str, str]:
    from importlib import metadata

    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError as error:
            raise ToolchainMissing(
                f"{name} is not installed: pip install 'edgekit[build]'"
            ) from error
    return found


def _hash(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

"""From an INT8 or float graph to a bundle on disk."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.bundle.build_record import BuildRecord
from edgekit.bundle.engine import EngineState, next_step
from edgekit.bundle.manifest import Manifest, ModelInput, Source, tool_versions
from edgekit.bundle.selftest import SELFTEST, SelfTest
from edgekit.bundle.store import elf_arch, update_bundle, write_bundle
from edgekit.compilers.base import CompiledFiles, compiler
from edgekit.compilers.device_build import carry_plugin
from edgekit.core.console import Console
from edgekit.core.errors import ToolchainMissing
from edgekit.report.sizes import SECTION, FloatSize
from edgekit.steps.artifacts import ENGINE_PENDING, Built, Quantized
from edgekit.steps.build_data import BuildData
from edgekit.steps.calibration import legal_onnx
from edgekit.steps.context import Context
from edgekit.steps.guard import guard_bundle, guard_graph
from edgekit.steps.options import BundleOptions
from edgekit.targets.descriptor import Descriptor, why_not_here
from edgekit.targets.intel_devices import REMEDIES, why_no_device


def compile_bundle(
    context: Context,
    quantized: Quantized,
    descriptor: Descriptor,
    options: BundleOptions,
    data: BuildData | None = None,
) -> Built:
    """Compile for the target's runtime and write the bundle, whole or not at all.

    An INT8 bundle is first checked on images of ``data``, if given; its self-test includes some
    of them.
    """
    card = quantized.exported.card
    path = options.path
    with (
        tempfile.TemporaryDirectory(prefix="edgekit-") as folder,
        tempfile.TemporaryDirectory(prefix="edgekit-") as scratch,
    ):
        graph = legal_onnx(quantized, Path(scratch))
        compiled = compiler(descriptor.backend)(graph, card.preprocessing, descriptor, Path(folder))
        compiled = _with_plugin(options.plugin, compiled, descriptor, card.preprocessing.size)
        height, width = card.preprocessing.size
        model = asdict(card)
        del model["classes"], model["preprocessing"]
        manifest = Manifest(
            model=json.loads(json.dumps(model)),  # tuples become lists, as when read back
            classes=len(card.classes),
            preprocessing=card.preprocessing,
            input=ModelInput(compiled.input_name, height, width),
            target=dataclasses.replace(descriptor, precision=options.precision),
            arch=compiled.arch,
            main=compiled.main,
            plugins=compiled.plugins,
            runtime=compiled.runtime,
            versions=tool_versions(),
            source=Source(quantized.exported.checkpoint.sha256, quantized.recipe, quantized.images),
            rebuild=options.rebuild,
            sections={
                **compiled.sections,
                **_control_section(quantized),
                **({"finetuned": quantized.finetuned} if quantized.finetuned else {}),
                SECTION: asdict(FloatSize(quantized.exported.onnx.stat().st_size)),
                "build": options.record.to_dict(),
            },
        )
        files: dict[str, Path | bytes] = {file.name: file for file in compiled.files}
        photos = options.selftest_photos
        test = _self_test_of(context, quantized, graph, descriptor.backend, data, photos=photos)
        files[SELFTEST] = test.to_bytes()
        if quantized.dialect is not None:  # the images, with hashes, so it can be repeated
            listing = quantized.onnx.with_name("images.json")
            if listing.exists() or quantized.finetuned is None:  # a graph may come without its list
                files["calibration.json"] = listing
        built = Built(path, descriptor, manifest)
        if quantized.dialect is not None and data is not None:
            if built.why_not_measured() is None:
                trial = Path(scratch) / descriptor.name
                write_bundle(trial, manifest, files, card.classes)
                closeness = guard_bundle(context, quantized, trial, data, insist=options.guard)
            else:
                closeness = guard_graph(context, quantized, graph, data, insist=options.guard)
            sections = {**manifest.sections, "guard": closeness.to_dict()}
            manifest = dataclasses.replace(manifest, sections=sections)
        written = write_bundle(path, manifest, files, card.classes)
    if compiled.without_plugin:
        context.console.info(
            f"compile ({descriptor.name}): the lookup and the head run in the runtime's own "
            f"operators, more slowly: {compiled.without_plugin}"
        )
    context.console.info(f"compile ({descriptor.name}): wrote {path}")
    built = dataclasses.replace(built, manifest=written)
    if built.why_not_measured() is None:
        from edgekit.steps.selftest import with_own_answers

        whole = with_own_answers(path, test)
        written = update_bundle(path, reports={SELFTEST: whole.to_bytes()})
        built = dataclasses.replace(built, manifest=written)
    if built.pending:
        context.console.info(
            f"engine ({descriptor.name}): pending, {next_step(path)} builds it on the device"
        )
    return built


def _self_test_of(
    context: Context,
    quantized: Quantized,
    graph: Path,
    backend: str,
    data: BuildData | None,
    *,
    photos: bool,
) -> SelfTest:
    """A self-test of the compiled ``graph``."""
    import onnx

    from edgekit.steps.selftest import make_self_test
    from edgekit.steps.selftest_scenes import scenes_of

    scenes = scenes_of(context, quantized.exported, data, photos=photos)
    preprocessing = quantized.exported.card.preprocessing
    return make_self_test(onnx.load(graph), preprocessing, scenes, backend)


def _with_plugin(
    plugin: str | None, compiled: CompiledFiles, descriptor: Descriptor, size: tuple[int, int]
) -> CompiledFiles:
    """Add the compiled plugin that the user named to a bundle whose engine is pending."""
    if plugin is None or compiled.sections.get("engine") != EngineState().to_section():
        return compiled
    folder = compiled.files[0].parent
    library = carry_plugin(folder, Path(plugin), descriptor, size=size)
    return dataclasses.replace(
        compiled,
        files=(*compiled.files, library),
        plugins=(library.name,),
        arch=elf_arch(library.read_bytes()[:20], library.name),
    )


def _control_section(quantized: Quantized) -> dict[str, Any]:
    """Which layers accuracy control left in float, and why."""
    control = quantized.report.get("control")
    return {} if control is None else {"accuracy_control": control}


def check_engine(descriptor: Descriptor) -> None:
    """Refuse a target whose engine this machine cannot build."""
    if engine_elsewhere(descriptor):
        raise ToolchainMissing(
            f"no engine for {descriptor.name} can be built here: build on the device, where "
            "trtexec is (apt-get install libnvinfer-bin), or without --require-engine"
        )


def check_device(descriptor: Descriptor, console: Console) -> None:
    """Refuse a target whose bundles only its own device can check, where there is none."""
    device = descriptor.openvino_device
    if device == "AUTO" and all(why_no_device(name) is not None for name in REMEDIES):
        console.warn(
            f"{descriptor.name}: this machine shows no Intel GPU or NPU, so everything here is "
            "measured on its CPU"
        )
    if device in ("GPU", "NPU") and (reason := why_not_here(descriptor)) is not None:
        raise ToolchainMissing(
            f"a bundle for {descriptor.name} is built where it runs: {reason}; 'openvino-auto' "
            "builds anywhere"
        )


def why_not_measured(descriptor: Descriptor) -> str | None:
    """Why this machine cannot run the bundles it builds for a target, or None."""
    return ENGINE_PENDING if engine_elsewhere(descriptor) else why_not_here(descriptor)


def engine_elsewhere(descriptor: Descriptor) -> bool:
    """Whether a target's bundles get their engine on their device, not here."""
    if descriptor.backend != "tensorrt":
        return False
    from edgekit.compilers.tensorrt import builds_here

    return not builds_here(descriptor)


def zip_path(bundle: Path) -> Path:
    """Where a bundle's .zip goes."""
    return bundle.with_name(f"{bundle.name}.zip")


def mark_complete(bundle: Path, record: BuildRecord) -> None:
    """Mark a bundle as finished; a build killed before this point is repeated."""
    complete = dataclasses.replace(record, complete=True)
    update_bundle(bundle, sections={"build": complete.to_dict()})

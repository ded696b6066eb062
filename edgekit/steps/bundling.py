"""From an INT8 or float graph to a bundle on disk."""

from __future__ import annotations

import dataclasses
import json
import shlex
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.bundle.build_record import BuildRecord
from edgekit.bundle.engine import SCRIPT, EngineState
from edgekit.bundle.manifest import Manifest, ModelInput, Source, tool_versions
from edgekit.bundle.selftest import SELFTEST, SelfTest
from edgekit.bundle.store import elf_arch, update_bundle, write_bundle, zip_bundle
from edgekit.compilers.base import CompiledFiles, compiler
from edgekit.compilers.device_build import carry_plugin
from edgekit.core.errors import ToolchainMissing
from edgekit.steps.build_data import BuildData
from edgekit.steps.calibration import legal_onnx
from edgekit.steps.config import BuildConfig
from edgekit.steps.guard import guard_bundle, guard_graph
from edgekit.steps.job import Built, Job, Quantized, precision
from edgekit.targets.descriptor import Descriptor


def compile_bundle(
    job: Job,
    quantized: Quantized,
    descriptor: Descriptor,
    key: str,
    data: BuildData | None = None,
) -> Built:
    """Compile for the target's runtime and write the bundle, whole or not at all.

    An INT8 one is tried on images of ``data`` first, where there are any; its self-test takes
    some of them along.
    """
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
                **_control_section(quantized),
                **({"finetuned": quantized.finetuned} if quantized.finetuned else {}),
                "build": _provenance(job.config, key, complete=False),
            },
        )
        files: dict[str, Path | bytes] = {file.name: file for file in made.files}
        test = _self_test_of(job, quantized, graph, data)
        files[SELFTEST] = test.to_bytes()
        if quantized.dialect is not None:  # which images, with hashes, so that it can be repeated
            listing = quantized.onnx.with_name("images.json")
            if listing.exists() or quantized.finetuned is None:  # a graph may be given alone
                files["calibration.json"] = listing
        built = Built(path, descriptor, quantized, manifest)
        if quantized.dialect is not None and data is not None:
            if built.why_not_measured() is None:
                tried = Path(scratch) / descriptor.name
                write_bundle(tried, manifest, files, card.classes)
                closeness = guard_bundle(job, quantized, tried, data)
            else:
                closeness = guard_graph(job, quantized, graph, data)
            sections = {**manifest.sections, "guard": closeness.to_dict()}
            manifest = dataclasses.replace(manifest, sections=sections)
        written = write_bundle(path, manifest, files, card.classes)
    job.console.info(f"compile ({descriptor.name}): wrote {path}")
    built = dataclasses.replace(built, manifest=written)
    if built.why_not_measured() is None:
        from edgekit.steps.selftest import with_own_answers

        whole = with_own_answers(path, test)
        written = update_bundle(path, reports={SELFTEST: whole.to_bytes()})
        built = dataclasses.replace(built, manifest=written)
    if built.pending:
        script = path / SCRIPT
        said = EngineState().describe()
        job.console.info(f"engine ({descriptor.name}): {said}, with 'bash {script}' there")
    return built


def _self_test_of(job: Job, quantized: Quantized, graph: Path, data: BuildData | None) -> SelfTest:
    """The self-test of the graph that is compiled."""
    import onnx

    from edgekit.steps.selftest import make_self_test

    preprocessing = quantized.exported.card.preprocessing
    photos = data if job.config.selftest_photos else None
    return make_self_test(onnx.load(graph), preprocessing, photos, job.config.seed)


def _with_plugin(
    config: BuildConfig, made: CompiledFiles, descriptor: Descriptor, size: tuple[int, int]
) -> CompiledFiles:
    """Add the compiled plugin that the user named to a bundle whose engine is pending."""
    if config.plugin is None or made.sections.get("engine") != EngineState().to_section():
        return made
    folder = made.files[0].parent
    library = carry_plugin(folder, Path(config.plugin), descriptor, size=size)
    return dataclasses.replace(
        made,
        files=(*made.files, library),
        plugins=(library.name,),
        arch=elf_arch(library.read_bytes()[:20], library.name),
    )


def _control_section(quantized: Quantized) -> dict[str, Any]:
    """Which layers accuracy control left in float, and why."""
    found = quantized.report.get("control")
    return {} if found is None else {"accuracy_control": found}


def check_engine(descriptor: Descriptor) -> None:
    """Refuse a target whose engine this machine cannot build."""
    if descriptor.backend != "tensorrt":
        return
    from edgekit.compilers.tensorrt import builds_here

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
            words.append(f"--{name.replace('_', '-')} {shlex.quote(Path(str(value)).name)}")
    return " ".join(words)


def complete(job: Job, built: Built, key: str) -> None:
    """Mark a bundle as finished; one that was killed before this is built again."""
    update_bundle(built.path, sections={"build": _provenance(job.config, key, complete=True)})


def _provenance(config: BuildConfig, key: str, *, complete: bool) -> dict[str, Any]:
    return BuildRecord(key, complete, config.data, config.seed).to_dict()

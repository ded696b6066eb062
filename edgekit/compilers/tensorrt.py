"""TensorRT's compiler: everything but the engine, and on the device itself the engine as well.

An engine fits one GPU and one TensorRT release, so the bundle's ``build_on_device.sh`` builds it on
the device. If this machine is such a device, this module runs that script.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import onnx

from edgekit.bundle.engine import ENGINE, MODEL, PLUGIN, SCRIPT, EngineState
from edgekit.bundle.manifest import RuntimeNeed
from edgekit.compilers import device_build
from edgekit.compilers.base import CompiledFiles, LookupForm
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.files import write_bytes
from edgekit.core.host import host_arch
from edgekit.data.transforms import Preprocessing
from edgekit.graph.lint import check_model
from edgekit.graph.uint8_input import INPUT, add_uint8_input
from edgekit.graph.variants import lookup_node, to_variant
from edgekit.targets.descriptor import Descriptor
from edgekit.targets.dialects import find_dialect
from edgekit.targets.operators import Variant
from edgekit.targets.tensorrt_releases import TensorRTFacts, version


def compile_model(
    onnx_path: Path,
    preprocessing: Preprocessing,
    descriptor: Descriptor,
    out_dir: Path,
    lookup: LookupForm = "auto",
) -> CompiledFiles:
    """Write the graph, the script and the plugin's source to ``out_dir``."""
    facts = descriptor.tensorrt
    if facts is None:
        raise UsageError(f"target {descriptor.name} is not a TensorRT device")
    model = onnx.load(onnx_path)
    _refuse_what_does_not_fit(model, onnx_path, descriptor)
    add_uint8_input(model.graph, preprocessing)
    form = lookup_form(facts, lookup, descriptor.name)
    plugin = form != "inline" and lookup_node(model) is not None
    data = to_variant(model, form).SerializeToString(deterministic=True)
    write_bytes(out_dir / MODEL, data)
    files = (
        out_dir / MODEL,
        *device_build.write_device_build(
            out_dir, descriptor, size=preprocessing.size, plugin=plugin
        ),
    )
    if builds_here(descriptor):
        return _with_engine(out_dir, files, plugin)
    return CompiledFiles(
        main=MODEL,
        files=files,
        plugins=(),
        arch="any",
        runtime=RuntimeNeed("tensorrt", facts.tensorrt, "same-or-newer"),
        input_name=INPUT,
        sections={"engine": EngineState().to_section()},
    )


def lookup_form(facts: TensorRTFacts, requested: LookupForm, target: str) -> Variant:
    """The form of the lookup in the graph."""
    if requested == "inline":
        return "inline"
    if requested == "plugin" and not facts.has_plugins:
        raise UsageError(
            f"target {target} has TensorRT {facts.tensorrt}, plugins need 10.0: use lookup 'inline'"
        )
    return facts.form


def builds_here(descriptor: Descriptor) -> bool:
    """Whether this machine is of the target's kind and can build engines."""
    facts = descriptor.tensorrt
    if facts is None or descriptor.arch not in ("any", host_arch()):
        return False
    if facts.jetpack and not Path("/etc/nv_tegra_release").exists():
        return False
    return shutil.which(facts.trtexec) is not None or shutil.which("trtexec") is not None


def _refuse_what_does_not_fit(model: onnx.ModelProto, path: Path, descriptor: Descriptor) -> None:
    findings = check_model(model, find_dialect("tensorrt"))
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise EdgekitError(
            f"{path.name} does not fit target {descriptor.name} in {len(errors)} place(s); the "
            f"first: {errors[0].describe()}"
        )


def _with_engine(folder: Path, files: tuple[Path, ...], plugin: bool) -> CompiledFiles:
    """Run the script here; it leaves the engine and the plugin in a folder beside this one."""
    run = subprocess.run(
        ["bash", str(folder / SCRIPT), "--engine-only"],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        lines = (run.stderr.strip() or run.stdout.strip() or "no output").splitlines()
        message = lines[-1].removeprefix("error: ")
        if run.returncode == 2:
            raise UsageError(message)
        raise EdgekitError(f"the engine was not built: {message}")
    work = folder.with_name(f"{folder.name}.build")
    release = (work / "tensorrt.version").read_text(encoding="utf-8").strip()
    assert version(release)
    built = [folder / ENGINE]
    shutil.move(work / ENGINE, folder / ENGINE)
    if plugin:
        shutil.copyfile(work / "plugin" / PLUGIN, folder / PLUGIN)
        built.append(folder / PLUGIN)
    shutil.rmtree(work)
    return CompiledFiles(
        main=ENGINE,
        files=(*files, *built),
        plugins=(PLUGIN,) if plugin else (),
        arch=host_arch() if plugin else "any",
        runtime=RuntimeNeed("tensorrt", release, "exact"),
        input_name=INPUT,
        sections={"engine": EngineState(release).to_section()},
    )

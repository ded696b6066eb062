"""OpenVINO's compiler: a calibrated ONNX file becomes an IR that takes uint8 images.

Normalization, channel order and layout are compiled into the graph. Weights keep their type: int8
stays int8, and nothing is rounded to f16, which would include the codebook and the head's tables.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx
import openvino as ov
from openvino import preprocess

from edgekit.bundle.manifest import RuntimeNeed
from edgekit.bundle.store import elf_arch
from edgekit.compilers.base import CompiledFiles, LookupForm
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.data.transforms import Preprocessing
from edgekit.graph.fused_head import fuse_head
from edgekit.graph.variants import lookup_node, to_variant
from edgekit.native.openvino_extension import extension_for, extension_path, operators
from edgekit.runtime.openvino import runtime_version
from edgekit.targets.descriptor import Descriptor
from edgekit.targets.operators import HEAD

INPUT: Final = "images"


def compile_model(
    onnx_path: Path,
    preprocessing: Preprocessing,
    descriptor: Descriptor,
    out_dir: Path,
    lookup: LookupForm = "auto",
) -> CompiledFiles:
    """Write ``model.xml`` and ``model.bin`` (and the plugin) to ``out_dir``.

    ``lookup`` says what executes the codebook lookup: "plugin" is our compiled operator, which
    goes into the bundle; "inline" is OpenVINO's own operators; "auto" uses the plugin if there is
    one for the target's architecture and the target is a CPU. The IR takes any number of images.
    """
    graph = onnx.load(onnx_path)
    has_lookup = lookup_node(graph) is not None
    plugins, without = _plugins(descriptor, lookup) if has_lookup else (None, "")
    core = ov.Core()
    if plugins is None:
        graph = to_variant(graph, "inline")
    else:
        core.add_extension(str(plugins.here))
        if all(HEAD in operators(plugin) for plugin in (plugins.here, plugins.there)):
            graph = fuse_head(graph) or graph
    names = {name for node in graph.graph.node for name in (node.name, *node.output)}
    names |= {tensor.name for tensor in graph.graph.initializer}
    try:
        model = core.read_model(graph.SerializeToString())
        model = _with_uint8_input(model, preprocessing)
        _name_reproducibly(model, names)
        ov.save_model(model, str(out_dir / "model.xml"), compress_to_fp16=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise EdgekitError(f"OpenVINO cannot compile {onnx_path.name}: {reason}") from error
    files = [out_dir / "model.xml", out_dir / "model.bin"]
    plugin = None if plugins is None else plugins.there
    if plugin is not None:
        shutil.copyfile(plugin, out_dir / plugin.name)
        files.append(out_dir / plugin.name)
    return CompiledFiles(
        main="model.xml",
        files=tuple(files),
        plugins=() if plugin is None else (plugin.name,),
        arch="any" if plugin is None else _arch(plugin),
        runtime=RuntimeNeed("openvino", runtime_version(), "exact"),
        input_name=INPUT,
        without_plugin=without,
    )


@dataclass(frozen=True)
class _Plugins:
    """The extension twice; the same file, unless the target's processor is another."""

    here: Path
    """Reads the graph."""
    there: Path
    """Runs it."""


def _plugins(descriptor: Descriptor, lookup: LookupForm) -> tuple[_Plugins | None, str]:
    """Our compiled operators if requested and at hand; else why they are missing, if they are."""
    device = descriptor.openvino_device
    if device != "CPU" and lookup == "plugin":
        raise UsageError(f"the compiled lookup runs on the CPU, {descriptor.name} on {device}")
    if lookup == "inline" or device != "CPU":
        return None, ""
    try:
        return _Plugins(extension_path(), extension_for(descriptor.arch)), ""
    except ToolchainMissing as error:
        if lookup == "plugin":
            raise
        return None, str(error)


def _arch(plugin: Path) -> str:
    with plugin.open("rb") as stream:
        return elf_arch(stream.read(20), plugin.name)


def _with_uint8_input(model: Any, preprocessing: Preprocessing) -> Any:
    """Prepend `Preprocessing.normalize`: the input becomes RGB uint8 [B, height, width, 3]."""
    steps = preprocess.PrePostProcessor(model)
    image = steps.input()
    image.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    image.tensor().set_color_format(preprocess.ColorFormat.RGB)
    image.model().set_layout(ov.Layout("NCHW"))
    if preprocessing.channel_order == "BGR":
        image.preprocess().reverse_channels()
    image.preprocess().convert_element_type(ov.Type.f32)
    image.preprocess().mean(list(preprocessing.mean)).scale(list(preprocessing.std))
    model = steps.build()
    height, width = preprocessing.size
    model.reshape({0: [-1, height, width, 3]})
    model.inputs[0].set_names({INPUT})
    return model


def _name_reproducibly(model: Any, onnx_names: set[str]) -> None:
    """Rename the nodes that OpenVINO numbered, because its count spans the whole process.

    With the ONNX file's own names, and the others numbered here, the same model gives the same
    bytes.
    """
    for index, node in enumerate(model.get_ordered_ops()):
        if node.get_friendly_name() not in onnx_names:
            node.set_friendly_name(f"edgekit/{node.get_type_name()}_{index}")

"""ONNX Runtime, compile side: the calibrated ONNX file with uint8 images as its input.

The graph stays as it is, the codebook lookup a function of standard operators, so the bundle
needs nothing but ONNX Runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgekit.backends import CompiledFiles, LookupForm
from edgekit.data.transforms import Preprocessing
from edgekit.descriptors import Descriptor
from edgekit.errors import UsageError
from edgekit.export.variants import to_variant
from edgekit.files import write_bytes
from edgekit.manifest import RuntimeNeed

INPUT: Final = "images"
# What ONNX Runtime 1.20, the oldest release we support, reads.
_OLDEST: Final = "1.20.0"
_OLDEST_IR, _OLDEST_OPSET = 10, 21
_PREFIX: Final = "edgekit/normalize"


def compile_model(
    onnx_path: Path,
    preprocessing: Preprocessing,
    descriptor: Descriptor,
    out_dir: Path,
    lookup: LookupForm = "auto",
) -> CompiledFiles:
    """Write ``model.onnx`` to ``out_dir``; it takes any number of images."""
    if lookup == "plugin":
        raise UsageError(f"target {descriptor.name} runs without plugins: use lookup 'inline'")
    model = onnx.load(onnx_path)
    if lookup == "inline":
        model = to_variant(model, "inline")
    _add_uint8_input(model.graph, preprocessing)
    write_bytes(out_dir / "model.onnx", model.SerializeToString(deterministic=True))
    return CompiledFiles(
        main="model.onnx",
        files=(out_dir / "model.onnx",),
        plugins=(),
        arch="any",
        runtime=RuntimeNeed("onnxruntime", _oldest_runtime(model), "same-or-newer"),
        input_name=INPUT,
    )


def _oldest_runtime(model: onnx.ModelProto) -> str:
    """The oldest release that is known to read the file; newer ones read older files."""
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if model.ir_version <= _OLDEST_IR and opset <= _OLDEST_OPSET:
        return _OLDEST
    version: str = onnxruntime.__version__
    return version


def _add_uint8_input(graph: onnx.GraphProto, preprocessing: Preprocessing) -> None:
    """Put `Preprocessing.normalize` in front: RGB uint8 [B, height, width, 3] comes in."""
    (old,) = [value for value in graph.input if value.name not in _stored(graph)]
    batch = old.type.tensor_type.shape.dim[0]
    inner = f"{_PREFIX}/done"
    for node in graph.node:
        node.input[:] = [inner if name == old.name else name for name in node.input]
    new = helper.make_tensor_value_info(
        INPUT,
        TensorProto.UINT8,
        [batch.dim_param or batch.dim_value or "batch", *preprocessing.size, 3],
    )
    del graph.input[:]
    graph.input.append(new)
    nodes, constants = _normalization(preprocessing, inner)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    graph.initializer.extend(constants)


def _stored(graph: onnx.GraphProto) -> set[str]:
    return {tensor.name for tensor in graph.initializer}


def _normalization(
    preprocessing: Preprocessing, result: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Channels in the model's order, minus the mean, over the deviation, channels first."""
    constants = [
        numpy_helper.from_array(np.array(preprocessing.mean, np.float32), f"{_PREFIX}/mean"),
        numpy_helper.from_array(np.array(preprocessing.std, np.float32), f"{_PREFIX}/std"),
    ]
    nodes, value = [], INPUT
    if preprocessing.channel_order == "BGR":
        order = numpy_helper.from_array(np.array([2, 1, 0], np.int64), f"{_PREFIX}/order")
        constants.append(order)
        nodes.append(_node("Gather", [value, order.name], "bgr", axis=3))
        value = nodes[-1].output[0]
    nodes.append(_node("Cast", [value], "float", to=TensorProto.FLOAT))
    nodes.append(_node("Sub", [f"{_PREFIX}/float", f"{_PREFIX}/mean"], "centered"))
    nodes.append(_node("Div", [f"{_PREFIX}/centered", f"{_PREFIX}/std"], "scaled"))
    nodes.append(_node("Transpose", [f"{_PREFIX}/scaled"], "done", perm=[0, 3, 1, 2]))
    assert nodes[-1].output[0] == result
    return nodes, constants


def _node(kind: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    name = f"{_PREFIX}/{output}"
    return helper.make_node(kind, inputs, [name], name=name, **attributes)

"""Corrects the biases that NNCF's bias correction leaves out: those of depthwise convolutions.

A depthwise convolution sums few products (9 for 3 x 3), so the rounding of its weights does not
average out: every channel's output is shifted, and all images alike. The shift's mean over the
calibration images is known, and the bias takes it back. As in NNCF's fast correction each layer is
measured on the float model's activations, all of them in one pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgekit.data.transforms import Preprocessing
from edgekit.quantize.layers import Graph
from edgekit.quantize.probe import BATCH, compile_graph, run_compiled


def correct_depthwise(
    calibrated: onnx.ModelProto,
    original: onnx.ModelProto,
    images: NDArray[np.uint8],
    preprocessing: Preprocessing,
) -> int:
    """Change the biases of ``calibrated`` in place; how many layers that were.

    ``original`` is the float graph that was calibrated, ``images`` uint8 [M, height, width, 3].
    """
    layers = _depthwise(calibrated)
    if not layers:
        return 0
    measured = _with_branches(calibrated, original, layers)
    compiled = compile_graph(measured)
    totals: dict[str, NDArray[np.float64]] = {}
    name = original.graph.input[0].name
    for start in range(0, len(images), 8 * BATCH):
        block = images[start : start + 8 * BATCH]
        batches: list[dict[str, NDArray[Any]]] = [
            {name: preprocessing.normalize(block[at : at + BATCH])}
            for at in range(0, len(block), BATCH)
        ]
        for found in run_compiled(compiled, batches):
            for output, value in found.items():  # [B, channels]
                totals[output] = totals.get(output, 0.0) + value.astype(np.float64).sum(axis=0)
    tensors = {tensor.name: tensor for tensor in calibrated.graph.initializer}
    for node in layers:
        shift = (totals[f"{node.name}/int8"] - totals[f"{node.name}/mean"]) / len(images)
        bias = numpy_helper.to_array(tensors[node.input[2]])
        # A bias may be shared with a layer that is not shifted: each gets its own.
        own = f"{node.input[2]}/corrected"
        corrected = (bias - shift).astype(bias.dtype)
        calibrated.graph.initializer.append(numpy_helper.from_array(corrected, own))
        node.input[2] = own
    return len(layers)


def cover_pixels(calibrated: onnx.ModelProto, preprocessing: Preprocessing) -> bool:
    """Let the images' own INT8 range reach from black to white, in place; whether it changed.

    NNCF takes the mean of the images' extremes, which cuts the brightest pixels off; but what an
    image can hold is known. Only where the range is symmetric, as preset "performance" has it.
    """
    tensors = {tensor.name: tensor for tensor in calibrated.graph.initializer}
    name = calibrated.graph.input[0].name
    pairs = [node for node in calibrated.graph.node if name in node.input[:1]]
    if len(pairs) != 1 or pairs[0].op_type != "QuantizeLinear":
        return False
    scale, zero = (numpy_helper.to_array(tensors[value]) for value in pairs[0].input[1:3])
    if zero.dtype != np.int8 or zero.any() or scale.size != 1:
        return False
    height, width = preprocessing.size
    extremes = np.zeros((2, height, width, 3), np.uint8)
    extremes[1] = 255
    widest = np.abs(preprocessing.normalize(extremes)).max() / 127
    wide = numpy_helper.from_array(np.array(widest, scale.dtype).reshape(scale.shape))
    wide.name = f"{pairs[0].input[1]}/pixels"
    calibrated.graph.initializer.append(wide)
    before = pairs[0].input[1]
    for node in calibrated.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] == before:
            node.input[1] = wide.name
    return True


def _depthwise(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Quantized convolutions with a bias: of one input channel a group, or of the images.

    The latter, because `cover_pixels` has changed their range since NNCF corrected them.
    """
    graph = Graph(model)
    image = model.graph.input[0].name
    stored = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or node.input[2] not in stored:
            continue
        group = next((item.i for item in node.attribute if item.name == "group"), 1)
        depthwise = group > 1 and group == stored[node.input[2]][0]
        if not graph.is_quantized(node.input[0]):
            continue
        if depthwise or graph.unquantized(node.input[0], {}) == image:
            found.append(node)
    return found


def _with_branches(
    calibrated: onnx.ModelProto, original: onnx.ModelProto, layers: list[onnx.NodeProto]
) -> onnx.ModelProto:
    """The float graph with every layer beside itself in INT8; outputs are means over positions."""
    graph = Graph(calibrated)
    model = onnx.ModelProto()
    model.CopyFrom(original)
    del model.graph.output[:]
    constants = {tensor.name: tensor for tensor in calibrated.graph.initializer}
    needed: dict[str, onnx.TensorProto] = {}
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), "depthwise/axes")
    model.graph.initializer.append(axes)

    def copy(node: onnx.NodeProto, prefix: str) -> onnx.NodeProto:
        branch = onnx.NodeProto()
        branch.CopyFrom(node)
        branch.name = f"{prefix}{node.name}"
        for place, value in enumerate(node.input):
            if value in constants:
                needed[value] = constants[value]
                branch.input[place] = f"int8/{value}"
            elif value in graph.producer and graph.producer[value].op_type in (
                "QuantizeLinear",
                "DequantizeLinear",
            ):
                inner = copy(graph.producer[value], prefix)
                branch.input[place] = inner.output[0]
        branch.output[:] = [f"{prefix}{value}" for value in node.output]
        model.graph.node.append(branch)
        return branch

    for node in layers:
        branch = copy(node, f"{node.name}/")
        for source, output in ((branch.output[0], "int8"), (node.output[0], "mean")):
            name = f"{node.name}/{output}"
            mean = helper.make_node(
                "ReduceMean", [source, "depthwise/axes"], [name], name=name, keepdims=0
            )
            model.graph.node.append(mean)
            kind = onnx.TensorProto.FLOAT
            model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    for value, tensor in needed.items():
        stored = model.graph.initializer.add()
        stored.CopyFrom(tensor)
        stored.name = f"int8/{value}"
    return model

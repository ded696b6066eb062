"""Corrects the biases of convolutions, those too that NNCF's bias correction leaves out.

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


def correct_biases(
    calibrated: onnx.ModelProto,
    original: onnx.ModelProto,
    images: NDArray[np.uint8],
    preprocessing: Preprocessing,
) -> int:
    """Change the convolutions' biases of ``calibrated`` in place; how many layers that were.

    ``original`` is the float graph that was calibrated, ``images`` uint8 [M, height, width, 3].
    """
    layers = _convolutions(calibrated)
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
        own = f"{node.name}/bias"
        corrected = (bias - shift).astype(bias.dtype)
        calibrated.graph.initializer.append(numpy_helper.from_array(corrected, own))
        node.input[2] = own
    return len(layers)


def fit_pixels(
    calibrated: onnx.ModelProto, images: NDArray[np.uint8], preprocessing: Preprocessing
) -> bool:
    """Choose the images' own INT8 step by the squared error of their pixels; whether it changed.

    NNCF takes the mean of the images' extremes, which cuts the brightest pixels off. But pixels
    are 256 numbers: a step that meets most of them exactly is better than any range, even where
    it cuts white off by one level. Only where the range is symmetric, as preset "performance" has
    it; ``calibrated`` is changed in place.
    """
    tensors = {tensor.name: tensor for tensor in calibrated.graph.initializer}
    name = calibrated.graph.input[0].name
    pairs = [node for node in calibrated.graph.node if name in node.input[:1]]
    if len(pairs) != 1 or pairs[0].op_type != "QuantizeLinear":
        return False
    scale, zero = (numpy_helper.to_array(tensors[value]) for value in pairs[0].input[1:3])
    if zero.dtype != np.int8 or zero.any() or scale.size != 1:
        return False
    step = pixel_step(images, preprocessing)
    fitted = numpy_helper.from_array(np.array(step, scale.dtype).reshape(scale.shape))
    fitted.name = f"{pairs[0].input[1]}/pixels"
    calibrated.graph.initializer.append(fitted)
    before = pairs[0].input[1]
    for node in calibrated.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] == before:
            node.input[1] = fitted.name
    return True


def pixel_step(images: NDArray[np.uint8], preprocessing: Preprocessing) -> float:
    """The step of an int8 with zero-point 0 that rounds normalized pixels with the least error."""
    height, width = preprocessing.size
    count = -(-256 // (height * width))
    grays = (np.arange(count * height * width) % 256).astype(np.uint8)
    shown_once = np.repeat(grays[:, None], 3, axis=1).reshape(count, height, width, 3)
    planes = preprocessing.normalize(shown_once).transpose(0, 2, 3, 1).reshape(-1, 3)
    values = planes[:256].astype(np.float64)
    shown = images if preprocessing.channel_order == "RGB" else images[..., ::-1]
    counts = np.stack([np.bincount(shown[..., c].ravel(), minlength=256) for c in range(3)], axis=1)
    # From a range that cuts a tenth off to one that gives a tenth away.
    steps = np.abs(values).max() / np.linspace(115, 140, 251)
    levels = np.clip(np.rint(values / steps[:, None, None]), -128, 127)
    errors = (np.square(levels * steps[:, None, None] - values) * counts).sum(axis=(1, 2))
    return float(steps[np.argmin(errors)])


def _convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Quantized convolutions with a bias."""
    graph = Graph(model)
    stored = {tensor.name for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type == "Conv"
        and len(node.input) > 2
        and node.input[2] in stored
        and graph.is_quantized(node.input[0])
    ]


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
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), "biases/axes")
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
                "ReduceMean", [source, "biases/axes"], [name], name=name, keepdims=0
            )
            model.graph.node.append(mean)
            kind = onnx.TensorProto.FLOAT
            model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    for value, tensor in needed.items():
        stored = model.graph.initializer.add()
        stored.CopyFrom(tensor)
        stored.name = f"int8/{value}"
    return model

"""The small classifier as a .tflite file, float or with integers on the outside.

Written with the format's own schema, which LiteRT's package brings: there is no converter here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.foreign.classifiers import SIDE, STRIDE, Network

SCALE, ZERO_POINT = 0.02, 100  # of the integer input
_OUT_SCALE, _OUT_ZERO_POINT = 0.25, -20  # of the integer output


class _Writer:
    """Collects tensors and operators of one subgraph."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: list[Any] = []

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: int,
        data: NDArray[Any] | None = None,
        scale: tuple[float, int] | None = None,
    ) -> int:
        made = self.schema.TensorT()
        made.name, made.shape, made.type = name, list(shape), kind
        if scale is not None:
            made.quantization = self.schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [scale[0]], [scale[1]]
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            made.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.tensors.append(made)
        return len(self.tensors) - 1

    def operator(
        self,
        code: int,
        inputs: list[int],
        outputs: list[int],
        options: Any = None,
        kind: int = 0,
    ) -> None:
        operator_code = self.schema.OperatorCodeT()
        operator_code.builtinCode, operator_code.version = code, 1
        operator_code.deprecatedBuiltinCode = code
        made = self.schema.OperatorT()
        made.opcodeIndex = len(self.codes)
        made.inputs, made.outputs = inputs, outputs
        made.builtinOptions, made.builtinOptionsType = options, kind
        self.codes.append(operator_code)
        self.operators.append(made)

    def save(self, path: Path, input_: int, output: int) -> Path:
        import flatbuffers

        graph = self.schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs, graph.name = [input_], [output], "main"
        model = self.schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [graph], self.buffers
        model.operatorCodes, model.description = self.codes, "test"
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def save_tflite(net: Network, path: Path, *, integers: bool) -> Path:
    """``integers``: uint8 in and int8 out, with dequantize and quantize inside."""
    writer = _Writer()
    schema = writer.schema
    kinds, codes, options = schema.TensorType, schema.BuiltinOperator, schema.BuiltinOptions
    pixels = writer.tensor("pixels", (1, SIDE, SIDE, 3), kinds.FLOAT32)
    first = pixels
    if integers:
        first = writer.tensor("bytes", (1, SIDE, SIDE, 3), kinds.UINT8, scale=(SCALE, ZERO_POINT))
        writer.operator(codes.DEQUANTIZE, [first], [pixels])
    (count, _, kernel, _), classes = net.filters.shape, len(net.bias)
    out = (SIDE - kernel) // STRIDE + 1
    filters = writer.tensor(
        "filters", (count, kernel, kernel, 3), kinds.FLOAT32, net.filters.transpose(0, 2, 3, 1)
    )
    nothing = writer.tensor("zeros", (count,), kinds.FLOAT32, np.zeros(count, np.float32))
    maps = writer.tensor("maps", (1, out, out, count), kinds.FLOAT32)
    convolution = schema.Conv2DOptionsT()
    convolution.padding = schema.Padding.VALID
    convolution.strideH = convolution.strideW = STRIDE
    convolution.dilationHFactor = convolution.dilationWFactor = 1
    convolution.fusedActivationFunction = schema.ActivationFunctionType.RELU
    writer.operator(
        codes.CONV_2D, [first if not integers else pixels, filters, nothing], [maps],
        convolution, options.Conv2DOptions,
    )  # fmt: skip
    shape = writer.tensor("shape", (2,), kinds.INT32, np.array([1, out * out * count], np.int32))
    flat = writer.tensor("flat", (1, out * out * count), kinds.FLOAT32)
    writer.operator(codes.RESHAPE, [maps, shape], [flat])
    # ONNX flattens channels first, TFLite channels last.
    rows = net.weights.reshape(count, out, out, classes).transpose(3, 1, 2, 0)
    weights = writer.tensor(
        "weights", (classes, out * out * count), kinds.FLOAT32, rows.reshape(classes, -1)
    )
    bias = writer.tensor("bias", (classes,), kinds.FLOAT32, net.bias)
    logits = writer.tensor("logits", (1, classes), kinds.FLOAT32)
    writer.operator(
        codes.FULLY_CONNECTED, [flat, weights, bias], [logits],
        schema.FullyConnectedOptionsT(), options.FullyConnectedOptions,
    )  # fmt: skip
    last = logits
    if integers:
        last = writer.tensor(
            "scores", (1, classes), kinds.INT8, scale=(_OUT_SCALE, _OUT_ZERO_POINT)
        )
        writer.operator(codes.QUANTIZE, [logits], [last])
    return writer.save(path, first, last)

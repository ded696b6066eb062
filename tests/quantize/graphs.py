"""A small quantized graph with everything that a dialect may have to rewrite."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 4


def quantized(
    *,
    unsigned: bool = True,
    zero_point: int = 0,
    by_channel: bool = True,
    pooling: bool = True,
) -> onnx.ModelProto:
    """images -> Conv -> ReLU -> Q/DQ -> MaxPool -> (depthwise Conv -> Q/DQ, itself) -> Add.

    The pair before the pooling has one scale a channel, as NNCF gives the input of a depthwise
    convolution.
    """
    random = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []

    def add(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=f"node_{output}", **attributes))
        return output

    def pair(source: str, scale: np.ndarray, unsigned: bool) -> str:
        kind = np.uint8 if unsigned else np.int8
        constants[f"{source}_scale"] = scale.astype(np.float32)
        constants[f"{source}_zero"] = np.full(scale.shape, zero_point, kind)
        extra = [f"{source}_scale", f"{source}_zero"]
        axis = {"axis": 1} if scale.shape else {}
        add("QuantizeLinear", [source, *extra], f"{source}_q", **axis)
        return add("DequantizeLinear", [f"{source}_q", *extra], f"{source}_dq", **axis)

    def weight(name: str, shape: tuple[int, ...]) -> str:
        constants[name] = random.integers(-127, 128, shape).astype(np.int8)
        constants[f"{name}_scale"] = random.uniform(2e-4, 6e-4, shape[0]).astype(np.float32)
        constants[f"{name}_zero"] = np.zeros(shape[0], np.int8)
        return add(
            "DequantizeLinear", [name, f"{name}_scale", f"{name}_zero"], f"{name}_dq", axis=0
        )

    by = random.uniform(0.01, 0.03, CHANNELS) if by_channel else np.array(0.02)
    constants["bias"] = random.standard_normal(CHANNELS).astype(np.float32)
    images = pair("images", np.array(0.03), unsigned=False) if zero_point == 0 else "images"
    add("Conv", [images, weight("w1", (CHANNELS, 3, 3, 3)), "bias"], "conv1", pads=[1, 1, 1, 1])
    relu = pair(add("Relu", ["conv1"], "relu"), by, unsigned)
    pool = relu
    if pooling:
        pool = add("MaxPool", [relu], "pool", kernel_shape=[2, 2], strides=[2, 2])
    add(
        "Conv",
        [pool, weight("w2", (CHANNELS, 1, 3, 3))],
        "conv2",
        group=CHANNELS,
        pads=[1, 1, 1, 1],
    )
    main = pair("conv2", np.array(0.05), unsigned=False) if zero_point == 0 else "conv2"
    add("Add", [main, pool], "sum")
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [
            helper.make_tensor_value_info(
                "sum", TensorProto.FLOAT, ["batch", 4, *([4, 4] if pooling else [8, 8])]
            )
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model

"""Multiply-adds of an image, counted by hand and by torch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from edgekit.graph.multiply_adds import multiply_adds
from edgekit.model.config import Quantize
from tests import bundles

FLOAT = TensorProto.FLOAT
QUANTIZED: tuple[Quantize, Quantize] = ("spatial", "pooled")


def saved(
    path: Path,
    node: onnx.NodeProto,
    data: tuple[object, ...],
    weights: tuple[int, ...],
    *before: onnx.NodeProto,
) -> Path:
    """A graph of one product, whose first input is ``x``, and whose weights are ``w``."""
    graph = helper.make_graph(
        [*before, node],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, data)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [
            numpy_helper.from_array(np.zeros(weights, np.float32), "w"),
            numpy_helper.from_array(np.array([0, -1, 6], np.int64), "shape"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


@pytest.mark.parametrize(
    ("kind", "options", "data", "weights", "count"),
    [
        ("Conv", {"pads": [1, 1, 1, 1]}, ("n", 8, 10, 6), (16, 8, 3, 3), 16 * 8 * 9 * 60),
        ("Conv", {"strides": [2, 2]}, ("n", 8, 10, 6), (8, 1, 2, 2), 8 * 4 * 15),
        ("ConvTranspose", {"strides": [2, 2]}, ("n", 4, 5, 3), (4, 6, 2, 2), 4 * 6 * 4 * 15),
        ("Gemm", {"transB": 1}, ("n", 12), (7, 12), 12 * 7),
        ("Gemm", {"transA": 1}, (12, 1), (12, 7), 12 * 7),
        ("MatMul", {}, ("n", 5, 12), (12, 7), 5 * 12 * 7),
        ("Conv", {}, ("n", 80, 10, 6), (160, 80, 1, 1), 160 * 80 * 60),  # large weights
    ],
)
def test_products_by_hand(
    kind: str,
    options: dict[str, object],
    data: tuple[object, ...],
    weights: tuple[int, ...],
    count: int,
    tmp_path: Path,
) -> None:
    if kind == "Conv" and weights[1] == 1:
        options = {**options, "group": weights[0]}
    node = helper.make_node(kind, ["x", "w"], ["y"], **options)
    assert multiply_adds(saved(tmp_path / "m.onnx", node, data, weights)) == count


def test_a_shape_that_the_batch_hides(tmp_path: Path) -> None:
    """Sixty values of an image in rows of six: of any batch, the number of rows is unknown."""
    reshape = helper.make_node("Reshape", ["x", "shape"], ["rows"])
    node = helper.make_node("MatMul", ["rows", "w"], ["y"])
    path = saved(tmp_path / "m.onnx", node, ("n", 4, 15), (6, 7), reshape)
    assert multiply_adds(path) == 10 * 6 * 7


def test_a_network_as_torch_counts_it() -> None:
    made = bundles.made(plain=True)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        made.model(torch.zeros(1, 3, *bundles.SIZE))
    assert multiply_adds(made.onnx) == counted.get_total_flops() // 2


def test_a_lookup_of_every_position_counts() -> None:
    everywhere, pooled = (
        multiply_adds(bundles.made(quantize=quantize).onnx) for quantize in QUANTIZED
    )
    positions = math.prod(-(-side // 8) for side in bundles.SIZE)
    assert everywhere - pooled >= (positions - 1) * 16 * bundles.TinyBackbone.channels

"""Appends reductions to a graph, in the form that its opset has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekit.graph.view import opset


def reduce_over(
    model: onnx.ModelProto,
    operator: Literal["ReduceMean", "ReduceMin", "ReduceMax", "ReduceSum"],
    source: str,
    axes: Sequence[int] | None,
    name: str,
    *,
    keep: bool,
) -> str:
    """Append the reduction of ``source`` over these axes (None: all) and name its value so."""
    assert axes is None or len(axes)  # ONNX would take none for all
    inputs: list[str] = [source]
    options: dict[str, Any] = {"keepdims": int(keep)}
    if axes is not None:
        if opset(model) < (13 if operator == "ReduceSum" else 18):
            options["axes"] = list(axes)
        else:
            inputs.append(numbers(model, axes))
    model.graph.node.append(helper.make_node(operator, inputs, [name], name=name, **options))
    return name


def numbers(model: onnx.ModelProto, values: Sequence[int]) -> str:
    """The name of a constant of the graph, stored only once."""
    name = f"edgekit/numbers/{','.join(map(str, values))}"
    if all(tensor.name != name for tensor in model.graph.initializer):
        tensor = numpy_helper.from_array(np.array(values, np.int64), name)
        model.graph.initializer.append(tensor)
    return name

"""The ONNX operators of edgekit's graphs as differentiable torch functions.

Only the forms that exporters write for image classifiers are covered; anything else is refused
by name rather than computed almost right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.core.errors import EdgekitError

Attributes = Mapping[str, Any]
Inputs = Sequence[Tensor | None]


def run_operator(kind: str, inputs: Inputs, attributes: Attributes) -> tuple[Tensor, ...]:
    """Compute one node; ``inputs`` are None where the node omits an optional one."""
    if kind not in _OPERATORS:
        raise EdgekitError(unsupported([kind]))
    outputs = _OPERATORS[kind](inputs, attributes)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def unsupported(kinds: Sequence[str]) -> str:
    """The error message for graphs that cannot be fine-tuned."""
    return (
        f"fine-tuning cannot run the ONNX operator {', '.join(sorted(set(kinds)))}: calibrate this "
        "model instead ('edgekit calibrate')"
    )


def is_supported(kind: str) -> bool:
    """Whether `run_operator` knows the operator."""
    return kind in _OPERATORS


def _need(inputs: Inputs, position: int) -> Tensor:
    value = inputs[position]
    assert value is not None
    return value


def _optional(inputs: Inputs, position: int) -> Tensor | None:
    return inputs[position] if position < len(inputs) else None


def _numbers(inputs: Inputs, position: int) -> list[int] | None:
    """An input that lists sizes or axes."""
    value = _optional(inputs, position)
    return None if value is None else [int(number) for number in value.reshape(-1).tolist()]


def _padded(x: Tensor, attributes: Attributes, value: float) -> tuple[Tensor, list[int]]:
    """Resolve padding: symmetric padding is left to the operator, other padding is done here."""
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise EdgekitError(unsupported(["auto_pad"]))
    pads = list(attributes.get("pads", [0] * (2 * (x.dim() - 2))))
    half = len(pads) // 2
    before, after = pads[:half], pads[half:]
    if before == after:
        return x, before
    sides = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
    return F.pad(x, sides, value=value), [0] * half


def _conv(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, weight, bias = _need(inputs, 0), _need(inputs, 1), _optional(inputs, 2)
    if weight.dim() != 4:
        raise EdgekitError(unsupported([f"Conv of {weight.dim() - 2} dimensions"]))
    x, padding = _padded(x, attributes, 0.0)
    return F.conv2d(
        x,
        weight,
        bias,
        attributes.get("strides", [1, 1]),
        padding,
        attributes.get("dilations", [1, 1]),
        attributes.get("group", 1),
    )


def _gemm(inputs: Inputs, attributes: Attributes) -> Tensor:
    a, b, c = _need(inputs, 0), _need(inputs, 1), _optional(inputs, 2)
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    product = a @ b
    if attributes.get("alpha", 1.0) != 1.0:
        product = product * attributes["alpha"]
    if c is None:
        return product
    return product + (c if attributes.get("beta", 1.0) == 1.0 else c * attributes["beta"])


def _clip(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, low, high = _need(inputs, 0), _optional(inputs, 1), _optional(inputs, 2)
    if low is not None and high is not None:  # the same as clamp, with a faster gradient
        return F.hardtanh(x, float(low.item()), float(high.item()))
    return x.clamp(None if low is None else low.item(), None if high is None else high.item())


def _max_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, padding = _padded(_need(inputs, 0), attributes, -torch.inf)
    kernel = attributes["kernel_shape"]
    return F.max_pool2d(
        x,
        kernel,
        attributes.get("strides", [1] * len(kernel)),
        padding,
        attributes.get("dilations", [1] * len(kernel)),
        bool(attributes.get("ceil_mode", 0)),
    )


def _average_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, kernel = _need(inputs, 0), attributes["kernel_shape"]
    pads = list(attributes.get("pads", [0] * (2 * len(kernel))))
    half = len(pads) // 2
    if pads[:half] != pads[half:] or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise EdgekitError(unsupported(["AveragePool with uneven padding"]))
    return F.avg_pool2d(
        x,
        kernel,
        attributes.get("strides", [1] * len(kernel)),
        pads[:half],
        bool(attributes.get("ceil_mode", 0)),
        bool(attributes.get("count_include_pad", 0)),
    )


def _reduced(
    inputs: Inputs, attributes: Attributes, reduce: Callable[..., Tensor], power: int = 1
) -> Tensor:
    x = _need(inputs, 0)
    axes = _numbers(inputs, 1) or list(attributes.get("axes", [])) or list(range(x.dim()))
    return reduce(x.pow(power) if power > 1 else x, axes, bool(attributes.get("keepdims", 1)))


def _gather(inputs: Inputs, attributes: Attributes) -> Tensor:
    data, indices = _need(inputs, 0), _need(inputs, 1)
    axis = attributes.get("axis", 0) % data.dim()
    rows = data.index_select(axis, indices.reshape(-1))
    return rows.reshape(*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])


def _gather_nd(inputs: Inputs, attributes: Attributes) -> Tensor:
    data, indices = _need(inputs, 0), _need(inputs, 1)
    if attributes.get("batch_dims", 0):
        raise EdgekitError(unsupported(["GatherND with batch_dims"]))
    return data[tuple(indices.unbind(-1))]


def _split(inputs: Inputs, attributes: Attributes) -> tuple[Tensor, ...]:
    x, axis = _need(inputs, 0), attributes.get("axis", 0)
    sizes = _numbers(inputs, 1)
    if sizes is None:
        sizes = [len(part) for part in torch.arange(x.shape[axis]).chunk(attributes["num_outputs"])]
    return tuple(torch.split(x, sizes, axis))


def _slice(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = _need(inputs, 0)
    starts, ends = _numbers(inputs, 1), _numbers(inputs, 2)
    assert starts is not None
    assert ends is not None
    axes = _numbers(inputs, 3) or list(range(len(starts)))
    steps = _numbers(inputs, 4) or [1] * len(starts)
    if min(steps) < 1:
        raise EdgekitError(unsupported(["Slice backwards"]))
    where = [slice(None)] * x.dim()
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        where[axis] = slice(start, end, step)
    return x[tuple(where)]


def _reshape(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, shape = _need(inputs, 0), _numbers(inputs, 1)
    assert shape is not None
    if not attributes.get("allowzero", 0):  # 0 keeps the input's size
        shape = [x.shape[at] if size == 0 else size for at, size in enumerate(shape)]
    return x.reshape(shape)


def _flatten(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axis = _need(inputs, 0), attributes.get("axis", 1)
    return x.reshape(-1 if axis == 0 else int(torch.tensor(x.shape[:axis]).prod()), -1)


def _squeeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axes = _need(inputs, 0), _numbers(inputs, 1)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axes = _need(inputs, 0), _numbers(inputs, 1)
    assert axes is not None
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _layer_norm(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, scale, bias = _need(inputs, 0), _optional(inputs, 1), _optional(inputs, 2)
    axis = attributes.get("axis", -1) % x.dim()
    return F.layer_norm(x, x.shape[axis:], scale, bias, attributes.get("epsilon", 1e-5))


def _batch_norm(inputs: Inputs, attributes: Attributes) -> Tensor:
    """A batch norm that the exporter could not fold; its statistics stay fixed."""
    x, scale, bias, mean, variance = (_need(inputs, at) for at in range(5))
    epsilon = float(attributes.get("epsilon", 1e-5))
    result: Tensor = F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)
    return result


def _hard_sigmoid(inputs: Inputs, attributes: Attributes) -> Tensor:
    alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    result: Tensor = (_need(inputs, 0) * alpha + beta).clamp(0, 1)
    return result


def _gelu(inputs: Inputs, attributes: Attributes) -> Tensor:
    mode = attributes.get("approximate", b"none").decode()
    return F.gelu(_need(inputs, 0), approximate=mode)


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[[Inputs, Attributes], Tensor]:
    return lambda inputs, attributes: function(_need(inputs, 0))


def _binary(
    function: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[Inputs, Attributes], Tensor]:
    return lambda inputs, attributes: function(_need(inputs, 0), _need(inputs, 1))


def _concat(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.cat([_need(inputs, at) for at in range(len(inputs))], attributes["axis"])


def _transpose(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = _need(inputs, 0)
    return x.permute(attributes.get("perm", list(reversed(range(x.dim())))))


_OPERATORS: dict[str, Callable[[Inputs, Attributes], Tensor | tuple[Tensor, ...]]] = {
    "Add": _binary(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _binary(torch.div),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _unary(lambda x: x.mean(dim=(2, 3), keepdim=True)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(F.hardswish),
    "Identity": _unary(lambda x: x),
    "LayerNormalization": _layer_norm,
    "MatMul": _binary(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _binary(torch.mul),
    "Pow": _binary(torch.pow),
    "ReduceMean": lambda inputs, attributes: _reduced(inputs, attributes, torch.mean),
    "ReduceSum": lambda inputs, attributes: _reduced(inputs, attributes, torch.sum),
    "ReduceSumSquare": lambda inputs, attributes: _reduced(inputs, attributes, torch.sum, 2),
    "Relu": _unary(torch.relu),
    "Reshape": _reshape,
    "Sigmoid": _unary(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda inputs, attributes: _need(inputs, 0).softmax(attributes.get("axis", -1)),
    "Split": _split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}

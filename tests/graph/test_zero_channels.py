"""Channels that are zero go with all that reads and writes them, and nothing else changes."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from edgekit.graph.channels import Channels
from edgekit.graph.view import copied
from edgekit.graph.zero_channels import remove_zero_channels
from edgekit.model.onnx_graph import onnx_graph

IMAGES = np.random.default_rng(0).standard_normal((2, 3, 12, 12), dtype=np.float32)


class Kinds(nn.Module):
    """What convolutional networks do with channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)  # keeps its channels, and those it reads
        self.entry = nn.Conv2d(8, 10, 1)
        self.expand = nn.Conv2d(10, 12, 1)
        self.depthwise = nn.Conv2d(12, 12, 3, groups=12)
        self.squeeze = nn.Conv2d(12, 4, 1)
        self.excite = nn.Conv2d(4, 12, 1)
        self.project = nn.Conv2d(12, 10, 1)
        self.shift = nn.Parameter(torch.randn(10, 1, 1))
        self.last = nn.Conv2d(10, 6, 1)
        self.classify = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = F.hardswish(self.entry(F.relu(self.grouped(self.stem(images)))))
        y = F.gelu(self.depthwise(F.pad(F.relu6(self.expand(x)), (2, 0, 1, 1))))
        y = F.max_pool2d(F.silu(y), 3, 1, 1)
        gate = self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True))))
        x = F.relu(x + self.project(y * F.hardsigmoid(gate)) * self.shift) / 2
        x = F.avg_pool2d(self.last(x), 2)
        logits: Tensor = self.classify(F.leaky_relu(x).mean((2, 3)))
        return logits


# The layers of each group, by the names of their weights.
RESIDUAL = ("entry.weight", "project.weight")
EXPANDED = ("expand.weight", "depthwise.weight")  # the gate's are not zero, and go along
SQUEEZED, LAST = ("squeeze.weight",), ("last.weight",)


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    torch.manual_seed(0)
    return onnx_graph(Kinds(), torch.zeros(2, 3, 12, 12), ["logits"], 18)


def answers(model: onnx.ModelProto) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (result,) = session.run(None, {"images": IMAGES})
    return np.asarray(result)


def silenced(model: onnx.ModelProto, zero: Mapping[str, NDArray[np.bool_]]) -> onnx.ModelProto:
    """A copy in which channels of these layers, by the names of their weights, are zero."""
    result = copied(model)
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}
    for node in result.graph.node:
        if node.op_type == "Conv" and node.input[1] in zero:
            for name in node.input[1:]:
                values = numpy_helper.to_array(tensors[name]).copy()
                values[zero[node.input[1]]] = 0
                tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    return result


def shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def masks(size: int) -> st.SearchStrategy[NDArray[np.bool_]]:
    return st.lists(st.booleans(), min_size=size, max_size=size).map(np.array)


def test_channels_that_meet_are_a_group(graph: onnx.ModelProto) -> None:
    channels = Channels(graph)
    groups: dict[str, set[str]] = {}
    for node in channels.convolutions():
        groups.setdefault(channels.group(node.output[0]), set()).add(node.input[1])
    expected = [RESIDUAL, (*EXPANDED, "excite.weight"), SQUEEZED, LAST]
    assert sorted(map(sorted, groups.values())) == sorted(map(sorted, expected))
    assert sorted(channels.groups().values()) == [4, 6, 10, 12]


@settings(max_examples=30, deadline=None)
@given(residual=masks(10), expanded=masks(12), squeezed=masks(4), last=masks(6))
def test_what_is_left_computes_the_same(
    graph: onnx.ModelProto,
    residual: NDArray[np.bool_],
    expanded: NDArray[np.bool_],
    squeezed: NDArray[np.bool_],
    last: NDArray[np.bool_],
) -> None:
    zero = {
        name: mask
        for names, mask in (
            (RESIDUAL, residual),
            (EXPANDED, expanded),
            (SQUEEZED, squeezed),
            (LAST, last),
        )
        for name in names
    }
    masked = silenced(graph, zero)
    expected = answers(masked)
    before = shapes(masked)
    removed = remove_zero_channels(masked)
    onnx.checker.check_model(masked, full_check=True)
    np.testing.assert_allclose(answers(masked), expected, rtol=0, atol=1e-6)
    after = shapes(masked)

    def kept(mask: NDArray[np.bool_]) -> int:
        return max(1, int((~mask).sum()))

    assert after["entry.weight"] == (kept(residual), *before["entry.weight"][1:])
    assert after["depthwise.weight"][0] == after["excite.bias"][0] == kept(expanded)
    assert after["project.weight"][:2] == (kept(residual), kept(expanded))
    assert after["squeeze.weight"][:2] == (kept(squeezed), kept(expanded))
    assert after["shift"][0] == kept(residual)
    assert after["classify.weight"] in [(5, kept(last)), (kept(last), 5)]
    gone = [2 * (10 - kept(residual)), 3 * (12 - kept(expanded))]
    assert removed == sum(gone) + 4 - kept(squeezed) + 6 - kept(last)
    assert remove_zero_channels(masked) == 0


@pytest.mark.parametrize(
    "alone",
    [{"entry.weight"}, {"project.weight"}, {"expand.weight"}, {"excite.weight"}, {"stem.weight"}],
)
def test_a_channel_that_only_some_leave_zero_stays(graph: onnx.ModelProto, alone: set[str]) -> None:
    """Behind ``expand`` alone a depthwise layer still adds its bias."""
    zero = {name: np.arange(size) < 4 for name in alone for size in [shapes(graph)[name][0]]}
    masked = silenced(graph, zero)
    assert remove_zero_channels(masked) == 0
    assert masked.SerializeToString() == silenced(graph, zero).SerializeToString()


def test_a_network_without_such_channels_stays_as_it_is(graph: onnx.ModelProto) -> None:
    same = copied(graph)
    assert remove_zero_channels(same) == 0
    assert same == graph

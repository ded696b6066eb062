"""2:4 weights: found, and kept by all that happens to a model on its way to a device."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgekit.core.console import Console
from edgekit.export.exporter import export_onnx
from edgekit.graph.legalize import legalize
from edgekit.graph.two_of_four import is_two_of_four, two_of_four_layers
from edgekit.model.backbones.base import Backbone
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.qat.network import Network
from edgekit.quantize.recipes import Recipe
from edgekit.targets.dialects import find_dialect
from tests.export.models import SIZE, card, spread

THIN = ("twice", "wide", "mixed")


class Small(Backbone):
    """Layers with 2:4 weights, one of them in two places, and layers without."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 4, 1)
        self.twice, self.norm = nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.wide = nn.Conv2d(8, 6, 1, bias=False)
        self.odd = nn.Conv2d(6, 16, 1)
        self.mixed = nn.Linear(16, 16)
        self.channels = 16
        with torch.no_grad():
            for name in THIN:
                weight = self.get_parameter(f"{name}.weight")
                fours = weight.unflatten(1, (-1, 4))
                second = fours.abs().sort(2).values[:, :, 1:2]
                weight.mul_((fours.abs() > second).flatten(1, 2))

    def forward(self, images: Tensor) -> Tensor:
        x = F.hardswish(self.stem(images))
        x = F.hardswish(self.norm(self.twice(F.hardswish(self.norm(self.twice(x))))))
        x = F.hardswish(self.odd(F.hardswish(self.wide(self.depthwise(x)))))
        features: Tensor = self.mixed(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return features


@pytest.mark.parametrize("dialect", ["tensorrt", "openvino-novnni"])
def test_the_way_to_a_device_keeps_the_pattern(dialect: str, tmp_path: Path) -> None:
    """Batch norm folded, weights rounded, fine-tuned, in a dialect's form."""
    torch.manual_seed(0)
    model = spread(VQSA(Small(), 3, VQSAConfig(codebook_size=8)))
    report = export_onnx(model, card(model), tmp_path / "thin.onnx")
    assert (report.two_of_four, report.describe_zeros()) == (4, "2:4 weights in 4 layers")
    graph = onnx.load(tmp_path / "thin.onnx")
    found = two_of_four_layers(graph)
    assert len(found) == 4
    images = np.random.default_rng(0).integers(0, 256, (24, *SIZE, 3), np.uint8)
    rounded, _ = calibrate(
        graph,
        images[:16],
        images[16:],
        card(model).preprocessing,
        Recipe(),
        find_dialect(dialect),
        Console(verbosity=-1),
    )
    assert two_of_four_layers(rounded) == found
    legal = legalize(rounded, find_dialect(dialect))
    assert two_of_four_layers(legal) == found
    # Fine-tuning moves what is left, as far as it likes.
    network = Network(rounded, graph)
    network(torch.randn(4, 3, *SIZE)).logits.square().sum().backward()
    with torch.no_grad():
        for values in network.parameters():
            if values.grad is not None:
                values.sub_(10 * values.grad.sign())
    learned = network.to_onnx()
    assert learned != rounded
    assert two_of_four_layers(learned) == found


def test_what_is_two_of_four() -> None:
    thin = np.zeros((2, 8, 1, 1), np.int8)
    assert not is_two_of_four(thin, 1)  # a layer of zeros is no sparse one
    thin[0, 2:6] = 1
    assert is_two_of_four(thin, 1)
    assert not is_two_of_four(thin, 0)
    assert not is_two_of_four(thin[:, :6], 1)
    thin[0, 6] = 1
    assert not is_two_of_four(thin, 1)


@pytest.mark.parametrize("order", [None, [1, 0]])
def test_products_are_found_however_their_weights_come(order: list[int] | None) -> None:
    thin = np.array([[1, 0, 0, 2], [0, 3, 4, 0], [0, 0, 0, 5]], np.float32)  # [out, in]
    options = {} if order is None else {"perm": order}
    nodes = [
        helper.make_node("Transpose", ["weights"], ["turned"], **options),
        helper.make_node("MatMul", ["x", "turned"], ["a"], name="matmul"),
        helper.make_node("Gemm", ["x", "weights"], ["b"], name="gemm", transB=1),
        helper.make_node("Gemm", ["x", "turned"], ["c"], name="plain"),
        helper.make_node("Gemm", ["y", "turned"], ["d"], name="across", transB=1),
    ]
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, [1, 4]), value("y", TensorProto.FLOAT, [1, 3])]
    graph = helper.make_graph(nodes, "g", inputs, [], [numpy_helper.from_array(thin, "weights")])
    assert two_of_four_layers(helper.make_model(graph)) == ("matmul", "gemm", "plain")

"""The exported file in OpenVINO, with our operator and with OpenVINO's own."""

from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
import torch

import edgekit
from edgekit.graph.variants import to_variant
from tests.export.conftest import Exported

F32 = {"INFERENCE_PRECISION_HINT": "f32"}


@pytest.fixture(scope="module")
def core() -> Any:
    core = ov.Core()
    core.add_extension(edgekit.extension_path())
    return core


@pytest.mark.parametrize("form", ["function", "inline"])
@pytest.mark.parametrize("name", ["small", "lite0", "authors"])
def test_equal_to_torch(core: Any, request: pytest.FixtureRequest, name: str, form: str) -> None:
    exported: Exported = request.getfixturevalue(name)
    graph = to_variant(onnx.load(exported.path), form)  # type: ignore[arg-type]
    compiled = core.compile_model(core.read_model(graph.SerializeToString()), "CPU", F32)
    types = {
        op.get_rt_info()["layerType"].astype(str) for op in compiled.get_runtime_model().get_ops()
    }
    assert ("Reference" in types) == (form == "function")  # the device's word for an extension
    for count in (1, 3):
        side = 32 if name == "small" else 64
        generator = torch.Generator().manual_seed(count)
        images = torch.randn(count, 3, side, side, generator=generator)
        with torch.no_grad():
            expected = exported.model(images)
        result = compiled(images.numpy())
        logits = expected.logits.numpy()
        assert np.abs(result["logits"] - logits).max() <= 1e-4 * np.abs(logits).max()
        assert result["code"].tolist() == expected.code.tolist()
        scale = float(expected.margin.abs().max()) + 1
        np.testing.assert_allclose(result["margin"], expected.margin, atol=1e-3 * scale)


def test_the_plain_file_needs_the_extension(small: Exported) -> None:
    with pytest.raises(RuntimeError, match=r"edgekit\.CodebookLookup"):
        ov.Core().read_model(small.path)

"""A calibrated head in one node: it must compute what the nodes that it replaces compute."""

import concurrent.futures
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino as ov
import pytest
from numpy.typing import NDArray
from onnx import helper

import edgekit
from edgekit.core.console import Console
from edgekit.export.exporter import export_onnx
from edgekit.graph.fused_head import fuse_head
from edgekit.native.codebook import Codebook
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.emulation import in_float
from edgekit.quantize.recipes import Recipe
from edgekit.targets.dialects import DIALECTS
from edgekit.targets.operators import HEAD
from tests.export.conftest import Exported
from tests.export.models import card, tiny

F32 = {"INFERENCE_PRECISION_HINT": "f32"}
Results = dict[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Int8:
    float_graph: onnx.ModelProto
    graph: onnx.ModelProto
    pixels: NDArray[np.float32]


FORMS: dict[str, tuple[dict[str, Any], bool, Any]] = {
    "attention": ({}, True, "performance"),
    "residual, l2, no margin": ({"output": "residual", "distance": "l2"}, False, "performance"),
    "zero-points": ({"output": "residual"}, True, "mixed"),
}


@pytest.fixture(scope="module", params=list(FORMS))
def int8(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Int8:
    return calibrated(request.param, tmp_path_factory.mktemp("int8") / "m.onnx")


def calibrated(form: str, path: Path) -> Int8:
    """A network with a head of that form, whose float graph goes to ``path``."""
    options, margin, preset = FORMS[form]
    model = tiny(**options)
    described = card(model)
    export_onnx(model, described, path, margin=margin)
    generator = np.random.default_rng(5)
    images = generator.integers(0, 256, (24, *described.preprocessing.size, 3), dtype=np.uint8)
    graph, _ = calibrate(
        onnx.load(path),
        images,
        generator.integers(0, 256, images.shape, dtype=np.uint8),
        described.preprocessing,
        Recipe(images=len(images), preset=preset),
        DIALECTS["openvino"],
        Console(verbosity=-1),
    )
    return Int8(onnx.load(path), graph, described.preprocessing.normalize(images))


@pytest.fixture(scope="module")
def core() -> Any:
    core = ov.Core()
    core.add_extension(edgekit.extension_path())
    return core


def fused(graph: onnx.ModelProto) -> onnx.ModelProto:
    result = fuse_head(graph)
    assert result is not None
    return result


def outputs(found: Any) -> Results:
    return {port.get_any_name(): np.array(value) for port, value in found.items()}


def check_equal(found: Results, expected: Results) -> None:
    assert set(found) == set(expected)
    np.testing.assert_array_equal(found["code"], expected["code"])
    assert found["code"].dtype == np.int64
    scale = np.abs(expected["logits"]).max()
    error = np.abs(found["logits"] - expected["logits"])
    # One value in 24 that is rounded to the next 8-bit code moves a logit by about a hundredth.
    assert error.max() <= 0.03 * scale
    assert error.mean() <= 0.002 * scale
    if "margin" in expected:
        np.testing.assert_allclose(found["margin"], expected["margin"], atol=1e-4)


def test_equal_to_the_nodes_it_replaces(core: Any, int8: Int8) -> None:
    # Sums of the backbone's 8-bit products overflow on some CPUs, and differently in the two.
    whole = in_float(int8.graph, readers={"Conv"})
    graph = fused(whole)
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count(HEAD) == 1
    assert not {"CodebookLookup", "Gather", "Sigmoid"} & set(kinds)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # exact, on any CPU
    session = onnxruntime.InferenceSession(whole.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    network = core.compile_model(core.read_model(graph.SerializeToString()), "CPU", F32)
    for count in (24, 1, 3):
        pixels = int8.pixels[:count]
        expected = dict(zip(names, session.run(None, {"images": pixels}), strict=True))
        assert len(np.unique(expected["code"])) > 1 or count < 24
        check_equal(outputs(network(pixels)), expected)


def test_every_instruction_set_gives_the_same_numbers(
    core: Any, int8: Int8, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fused(int8.graph).SerializeToString()
    with Codebook(np.eye(3, dtype=np.float32)) as codebook:
        paths = {path.split("-")[0] for path in codebook.describe()["available"]}
    found = {}
    for path in paths:
        monkeypatch.setenv("EDGEKIT_LOOKUP_PATH", path)
        network = core.compile_model(core.read_model(data), "CPU", F32)
        found[path] = outputs(network(int8.pixels))["logits"]
    assert len(found) >= 2
    for logits in found.values():
        np.testing.assert_array_equal(logits, found["portable"])


@pytest.mark.every_core
def test_saved_imported_and_run_from_many_threads(core: Any, int8: Int8, tmp_path: Path) -> None:
    network = core.read_model(fused(int8.graph).SerializeToString())
    expected = outputs(core.compile_model(network, "CPU", F32)(int8.pixels))
    ov.save_model(network, tmp_path / "m.xml")  # rounds to f16 what it may
    for restored in (
        core.compile_model(tmp_path / "m.xml", "CPU", F32),
        core.import_model(core.compile_model(network, "CPU", F32).export_model(), "CPU", F32),
    ):
        found = outputs(restored(int8.pixels))
        np.testing.assert_array_equal(found["code"], expected["code"])
        assert (
            np.abs(found["logits"] - expected["logits"]).max()
            <= 0.05 * np.abs(expected["logits"]).max()
        )
    shared = core.compile_model(network, "CPU", {**F32, "NUM_STREAMS": 4})
    requests = [shared.create_infer_request() for _ in range(4)]

    def run(index: int) -> bool:
        pixels = int8.pixels[index : index + 5]
        found = outputs(requests[index].infer({0: pixels}))
        return bool((found["logits"] == expected["logits"][index : index + 5]).all())

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            assert all(pool.map(run, range(4)))


def change_names(graph: onnx.ModelProto) -> None:
    del graph.functions[:]  # so that nothing but the change is the reason
    for node in graph.graph.node:
        node.name = f"renamed_{node.name}"


def swap_gates(graph: onnx.ModelProto) -> None:
    gates = [node for node in graph.graph.node if node.op_type == "Sigmoid"]
    gates[0].input[0], gates[1].input[0] = gates[1].input[0], gates[0].input[0]


def other_rows(graph: onnx.ModelProto) -> None:
    gather = next(node for node in graph.graph.node if node.op_type == "Gather")
    zero = helper.make_tensor("zero", onnx.TensorProto.INT64, [1], [0])
    graph.graph.initializer.append(zero)
    gather.input[1] = "zero"


def scale_logits(graph: onnx.ModelProto) -> None:
    gemm = next(node for node in graph.graph.node if node.output[0] == "logits")
    for attribute in gemm.attribute:
        if attribute.name == "alpha":
            attribute.f = 2.0


@pytest.mark.parametrize(
    ("change", "matches"),
    [(change_names, True), (swap_gates, False), (other_rows, False), (scale_logits, False)],
)
def test_only_exactly_that_graph_is_fused(
    int8: Int8, change: Callable[[onnx.ModelProto], None], matches: bool
) -> None:
    graph = onnx.ModelProto()
    graph.CopyFrom(int8.graph)
    change(graph)
    assert (fuse_head(graph) is not None) == matches


def test_other_graphs_stay_as_they_are(int8: Int8, small: Exported) -> None:
    assert fuse_head(int8.float_graph) is None
    assert fuse_head(onnx.load(small.path)) is None  # spatial


def test_a_wrong_shape_is_said(core: Any, int8: Int8) -> None:
    graph = fused(int8.graph)
    steps = next(t for t in graph.graph.initializer if t.name == "vqsa_head/projection_steps")
    steps.dims[0] -= 1
    steps.raw_data = steps.raw_data[:-4]
    with pytest.raises(RuntimeError, match=r"input 6 is \[71\], expected \[72\]"):
        core.read_model(graph.SerializeToString())

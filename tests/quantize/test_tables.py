"""Large tables stay out of the copies of a graph, and come back."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.console import Console
from edgekit.quantize import tables
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.engine import compile_graph, run_compiled
from edgekit.quantize.recipes import Recipe
from edgekit.targets.dialects import find_dialect
from tests import bundles


def test_a_graph_without_its_tables_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runtime reads them from the folder."""
    import onnxruntime

    monkeypatch.setattr(tables, "_LARGE", 1000)
    made = bundles.made()
    model = onnx.load(made.onnx)
    before = model.SerializeToString(deterministic=True)
    pixels = made.card.preprocessing.normalize(bundles.images(5))
    names = [output.name for output in model.graph.output]
    expected = onnxruntime.InferenceSession(str(made.onnx)).run(names, {"images": pixels})
    with tables.tables_in_files(model) as (light, folder):
        outside = [t.name for t in light.graph.initializer if t.data_location]
        assert len(outside) >= 2  # the codebook, and the fold's tables
        assert sorted(path.stat().st_size for path in folder.iterdir()) == sorted(
            len(t.raw_data) for t in model.graph.initializer if t.name in outside
        )
        assert light.ByteSize() < model.ByteSize()
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(folder)
        )
        found = onnxruntime.InferenceSession(light.SerializeToString(), options).run(
            names, {"images": pixels}
        )
        with tables.tables_in_files(light) as (same, also):
            assert also == folder
            assert same == light
        again = tables.set_aside_again(model, light)
        assert list(again.graph.initializer) == list(light.graph.initializer)
    assert not folder.exists()
    for one, two in zip(found, expected, strict=True):
        assert np.array_equal(one, two)
    tables.restore_tables(light, model)
    assert light.SerializeToString(deterministic=True) == before
    assert model.SerializeToString(deterministic=True) == before


def test_only_tables_are_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant that something else reads, too, may be quantized."""
    monkeypatch.setattr(tables, "_LARGE", 8)
    rows = np.ones((4, 4), np.float32)
    stored = [numpy_helper.from_array(rows, name) for name in ("table", "shared", "weights")]
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Gather", ["table", "which"], ["a"]),
        helper.make_node("Gather", ["shared", "which"], ["b"]),
        helper.make_node("MatMul", ["a", "shared"], ["c"]),
        helper.make_node("MatMul", ["b", "weights"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [value("which", TensorProto.INT64, [2])],
        [value("out", TensorProto.FLOAT, [2, 4])],
        stored,
    )
    with tables.tables_in_files(helper.make_model(graph)) as (light, _):
        assert [t.name for t in light.graph.initializer if t.data_location] == ["table"]


def test_what_leads_to_some_values() -> None:
    made = bundles.made()
    model = onnx.load(made.onnx)
    before = model.SerializeToString(deterministic=True)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    inner = [convolutions[1].input[0]]
    part = tables.leading_to(model, inner)
    assert model.SerializeToString(deterministic=True) == before
    kinds = [node.op_type for node in part.graph.node]
    assert kinds == ["Conv", "Relu"]
    assert {tensor.name for tensor in part.graph.initializer} == set(convolutions[0].input[1:])
    pixels = made.card.preprocessing.normalize(bundles.images(3))
    found = run_compiled(compile_graph(part), [{"images": pixels}])[0][inner[0]]
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    whole.graph.output.append(helper.make_tensor_value_info(inner[0], TensorProto.FLOAT, None))
    expected = run_compiled(compile_graph(whole), [{"images": pixels}])[0][inner[0]]
    assert found == pytest.approx(expected, abs=1e-5)


def test_openvino_maps_tables_from_files_that_may_go(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bundles.made()
    model = onnx.load(made.onnx)
    pixels = made.card.preprocessing.normalize(bundles.images(5))
    (expected,) = run_compiled(compile_graph(model), [{"images": pixels}])
    monkeypatch.setattr(tables, "_LARGE", 1000)
    with tables.tables_in_files(model) as (light, _):
        assert len([t.name for t in light.graph.initializer if t.data_location]) >= 2
    compiled = compile_graph(model)
    for _ in range(2):
        (found,) = run_compiled(compiled, [{"images": pixels}])
        for name, values in expected.items():
            assert np.array_equal(found[name], values), name


def test_a_calibration_is_the_same_wherever_its_tables_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the graph or in files, which are known by their names alone, and of which none is left."""
    made = bundles.made()
    model = onnx.load(made.onnx)
    results = []
    seen: list[Path] = []
    for large in (1 << 40, 1000):
        monkeypatch.setattr(tables, "_LARGE", large)
        monkeypatch.setattr(
            tempfile, "TemporaryDirectory", _watched(tempfile.TemporaryDirectory, seen)
        )
        images = bundles.images(24)
        result, _ = calibrate(
            model,
            images[:16],
            images[16:],
            made.card.preprocessing,
            Recipe(),
            find_dialect("openvino"),
            Console(verbosity=-1),
        )
        results.append(result.SerializeToString(deterministic=True))
        monkeypatch.undo()
    assert results[0] == results[1]
    assert b"edgekit.tables" not in results[1]
    assert seen
    assert not any(folder.exists() for folder in seen)


def test_a_folder_that_a_file_names_is_not_ours(tmp_path: Path) -> None:
    """Whoever made a graph must not choose where edgekit writes."""
    model = onnx.load(bundles.made().onnx)
    model.metadata_props.add(key="edgekit.tables", value=str(tmp_path))
    precious = tmp_path / "graph.onnx"
    precious.write_text("precious")
    with tables.tables_in_files(model) as (light, folder):
        assert folder != tmp_path
        with tables.tables_in_files(light) as (_, also):
            assert also == folder
    compile_graph(model)
    assert precious.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [precious]


def _watched(make: Callable[..., Any], seen: list[Path]) -> Callable[..., Any]:
    def watched(**options: Any) -> Any:
        folder = make(**options)
        seen.append(Path(folder.name))
        return folder

    return watched

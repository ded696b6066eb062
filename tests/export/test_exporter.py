"""The float ONNX file: what is in it, and that every check before writing can fail."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

import edgekit.export.exporter as export_module
from edgekit import __version__
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.export.exporter import OPSETS, export_onnx
from edgekit.graph.lookup import LookupSpec, lookup_function
from edgekit.graph.variants import lookup_node, to_variant
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from edgekit.training.methods.base import deployable
from edgekit.training.methods.denoise import Denoise, Denoised
from tests.export.conftest import Exported
from tests.export.models import CLASSES, SIZE, TinyBackbone, card, real, tiny
from tests.model.authors import authors_forward, authors_state


def run(path: Path, images: torch.Tensor) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images.numpy()}), strict=True))


def assert_equal(outputs: dict[str, np.ndarray], model: VQSA, images: torch.Tensor) -> None:
    """Logits to 1e-4 of their largest, codes identical, margins to rounding of the scores."""
    with torch.no_grad():
        expected = model(images)
    logits = expected.logits.numpy()
    assert np.abs(outputs["logits"] - logits).max() <= 1e-4 * np.abs(logits).max()
    if "code" in outputs:
        assert outputs["code"].dtype == np.int64
        assert outputs["code"].tolist() == expected.code.tolist()
    if "margin" in outputs:
        scale = max(1.0, float(images.abs().max()) * 10)
        np.testing.assert_allclose(outputs["margin"], expected.margin.numpy(), atol=1e-4 * scale)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {"vq": "inline", "opset": 23}),
        ({"distance": "l2"}, {"opset": 20}),
        ({"distance": "l2", "quantize": "spatial"}, {"vq": "inline", "batch": 2}),
        ({"quantize": "spatial", "output": "residual"}, {"margin": False}),
        ({"output": "residual"}, {"tables": False}),
        ({"output": "replace", "logit_scale": True}, {"batch": 1}),
        ({"output": "add", "quantize": "spatial", "distance": "l2"}, {}),
        ({"output": "concat", "update": "ema"}, {"vq": "inline", "margin": False}),
        ({"output": "none"}, {}),
        ({"codebook_size": 1}, {}),
    ],
)
def test_the_file_computes_what_the_model_computes(
    tmp_path: Path, options: dict[str, Any], settings: dict[str, Any]
) -> None:
    model = tiny(**options).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    codebook = model.head.codebook
    report = export_onnx(model, card(model), tmp_path / "m.onnx", **settings)
    assert report.agreement.logits_error <= 1e-4
    # The model is left as it was.
    assert model.training
    assert model.backbone.training
    assert model.head.codebook is codebook
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    model.eval()
    batch = settings.get("batch", "dynamic")
    for count in (1, 3, 8) if batch == "dynamic" else (batch,):
        images = torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(count))
        outputs = run(tmp_path / "m.onnx", images)
        assert tuple(outputs) == report.outputs
        assert_equal(outputs, model, images)
    graph = onnx.load(tmp_path / "m.onnx")
    has_node = model.head.codebook is not None and settings.get("vq") != "inline"
    assert (lookup_node(graph) is not None) == has_node
    assert {entry.domain for entry in graph.opset_import} <= {"", "edgekit"}
    opset = next(entry.version for entry in graph.opset_import if not entry.domain)
    assert opset == settings.get("opset", 18)


def test_efficientnet(lite0: Exported) -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    assert_equal(run(lite0.path, images), lite0.model, images)


def test_a_timm_transformer(tmp_path: Path) -> None:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    size = (160, 160)
    model = real("timm:test_vit", size)
    export_onnx(model, card(model, "timm:test_vit", size), tmp_path / "m.onnx")
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(5))
    assert_equal(run(tmp_path / "m.onnx", images), model, images)


def test_the_authors_checkpoint_against_their_forward_pass_by_hand(authors: Exported) -> None:
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    outputs = run(authors.path, images)
    logits, code = authors_forward(authors_state(n=64, classes=3), images)
    assert np.abs(outputs["logits"] - logits.numpy()).max() <= 1e-4 * float(logits.abs().max())
    assert outputs["code"].tolist() == code.tolist()


def test_the_node_and_its_body(small: Exported) -> None:
    graph = onnx.load(small.path)
    node = lookup_node(graph)
    assert node is not None
    assert node.name == "codebook_lookup"
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert attributes == {
        "plugin_namespace": b"edgekit",
        "plugin_version": b"1",
        "metric": b"dot",
        "margin": 1,
    }
    types = {v.name: v.type.tensor_type.elem_type for v in graph.graph.output}
    assert types["code"] == onnx.TensorProto.INT64
    (body,) = graph.functions
    assert (body.domain, body.name, list(body.output)) == (
        "edgekit",
        "CodebookLookup",
        ["indices", "margin"],
    )
    assert {step.op_type for step in body.node} <= {"Gemm", "TopK", "Gather", "Sub", "Constant"}
    # Batch normalization belongs into the convolutions, and the codebook is stored once.
    assert "BatchNormalization" not in {step.op_type for step in graph.graph.node}
    shapes = [list(tensor.dims) for tensor in graph.graph.initializer]
    assert shapes.count([20, 24]) == 1


def test_the_plugin_form_has_no_body_and_is_checked_all_the_same(tmp_path: Path) -> None:
    model = tiny()
    report = export_onnx(model, card(model), tmp_path / "m.onnx", vq="plugin")
    graph = onnx.load(tmp_path / "m.onnx")
    assert lookup_node(graph) is not None
    assert not graph.functions
    assert report.agreement.images > 0
    with pytest.raises(Fail, match="CodebookLookup"):
        run(tmp_path / "m.onnx", torch.zeros(1, 3, *SIZE))


def test_inlined_names_start_with_the_lookup(lite0: Exported) -> None:
    graph = onnx.load(lite0.path)
    inlined = to_variant(graph, "inline")
    before = {node.name for node in graph.graph.node}
    new = [node for node in inlined.graph.node if node.name not in before]
    assert [node.op_type for node in new].count("TopK") == 1
    assert all(node.name.startswith("codebook_lookup/") for node in new)
    names = [node.name for node in inlined.graph.node]
    assert len(names) == len(set(names))
    assert lookup_node(graph) is not None  # the original is left alone
    assert to_variant(inlined, "inline") == inlined


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("rows", [2, 3, 64, 1000])
def test_ties_go_to_the_lowest_index(metric: str, rows: int) -> None:
    """Small integers, whose scores are exact in any order of additions."""
    generator = np.random.default_rng(rows)
    half = generator.integers(-2, 3, (rows // 2 + rows % 2, 6)).astype(np.float32)
    codebook = np.concatenate([half, half])[:rows]
    features = generator.integers(-3, 4, (200, 6)).astype(np.float32)
    features[0] = 0
    form = LookupSpec(metric, margin=True, rows=rows)  # type: ignore[arg-type]
    indices, margin = run_lookup(form, codebook, features)
    scores = features @ codebook.T
    if metric == "l2":
        scores = scores - (codebook**2).sum(axis=1) / 2
    assert indices.tolist() == scores.argmax(axis=1).tolist()  # NumPy: the first of equals
    ordered = np.sort(scores, axis=1)
    assert margin.tolist() == (ordered[:, -1] - ordered[:, -2]).tolist()


def test_nan_never_gives_an_index_out_of_range() -> None:
    codebook = np.eye(5, dtype=np.float32)
    features = np.full((4, 5), np.nan, np.float32)
    features[1:] = np.inf
    form = LookupSpec("dot", margin=False, rows=5)
    (indices,) = run_lookup(form, codebook, features)
    assert ((indices >= 0) & (indices < 5)).all()


def run_lookup(form: LookupSpec, codebook: np.ndarray, features: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        lookup_model(form, codebook).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: list[np.ndarray] = session.run(None, {"features": features})
    return found


def lookup_model(form: LookupSpec, codebook: np.ndarray) -> onnx.ModelProto:
    """Just the operator, over a constant codebook."""
    helper = onnx.helper
    outputs = ["indices", "margin"] if form.margin else ["indices"]
    node = helper.make_node(
        "CodebookLookup",
        ["features", "codebook"],
        outputs,
        domain="edgekit",
        **form.attributes(),
    )
    types = [onnx.TensorProto.INT64, onnx.TensorProto.FLOAT]
    graph = helper.make_graph(
        [node],
        "lookup",
        [
            helper.make_tensor_value_info(
                "features", onnx.TensorProto.FLOAT, ["M", codebook.shape[1]]
            )
        ],
        [
            helper.make_tensor_value_info(name, kind, ["M"])
            for name, kind in zip(outputs, types, strict=False)
        ],
        [onnx.numpy_helper.from_array(codebook, "codebook")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("edgekit", 1)]
    return helper.make_model(
        graph, opset_imports=opsets, functions=[lookup_function(form, 18)], ir_version=9
    )


def test_metadata_and_nothing_of_the_machine(small: Exported) -> None:
    graph = onnx.load(small.path)
    notes = {entry.key: entry.value for entry in graph.metadata_props}
    assert notes["edgekit.version"] == __version__
    assert notes["edgekit.source_sha256"] == "ab" * 32
    assert tuple(json.loads(notes["edgekit.labels"])) == CLASSES
    assert json.loads(notes["edgekit.preprocessing"])["size"] == list(SIZE)
    assert notes["edgekit.training"] == "seen=fog,snow"
    assert VQSAConfig(**json.loads(notes["edgekit.vqsa"])) == small.model.config
    data = small.path.read_bytes()
    for word in (
        str(Path.cwd()),
        str(small.path.parent),
        "site-packages",
        ".py",
        "stack_trace",
        "fx_node",
    ):
        assert word.encode() not in data
    assert all(not part.doc_string for part in graph.graph.node)


def test_the_same_model_gives_the_same_bytes_in_another_process(
    small: Exported, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from edgekit.export.exporter import export_onnx\n"
        "from tests.export.models import card, tiny\n"
        "model = tiny(quantize='spatial')\n"
        "report = export_onnx(model, card(model), Path(sys.argv[1]), source='ab' * 32)\n"
        "print(report.sha256)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "second.onnx")],
        env={**os.environ, "PYTHONHASHSEED": "123"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == small.report.sha256
    assert small.path.read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_a_wrong_graph_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that takes the worst codeword instead of the best."""

    def worst(form: LookupSpec, opset: int) -> onnx.FunctionProto:
        body = lookup_function(form, opset)
        for node in body.node:
            if node.op_type == "TopK":
                node.attribute.append(onnx.helper.make_attribute("largest", 0))
        return body

    model = tiny()
    monkeypatch.setattr(export_module, "lookup_function", worst)
    with pytest.raises(EdgekitError, match="other codewords than torch") as caught:
        export_onnx(model, card(model), tmp_path / "m.onnx", margin=False)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_wrong_logits_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    finish = export_module._finish

    def damage(graph: onnx.ModelProto, *rest: Any) -> None:
        finish(graph, *rest)
        bias = next(t for t in graph.graph.initializer if t.name == "head.classifier.bias")
        changed = onnx.numpy_helper.to_array(bias) + 0.01
        bias.CopyFrom(onnx.numpy_helper.from_array(changed.astype(np.float32), bias.name))

    monkeypatch.setattr(export_module, "_finish", damage)
    with pytest.raises(EdgekitError, match="logits differ from torch's by"):
        export_onnx(model, card(model), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"opset": 17}, "opset 17 is out of range: use 18 to 23"),
        ({"batch": 0}, "batch must be 'dynamic' or at least 1, not 0"),
        ({"vq": "inlined"}, "vq: unknown form 'inlined' (did you mean 'inline'?)"),
    ],
)
def test_mistakes(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    model = tiny()
    with pytest.raises(UsageError) as caught:
        export_onnx(model, card(model), tmp_path / "m.onnx", **settings)
    assert str(caught.value) == message
    assert OPSETS[0] == 18


def test_what_does_not_fit_into_one_file(tmp_path: Path) -> None:
    with torch.device("meta"):  # shapes without memory
        huge = VQSA(create_backbone("resnet50"), 3, VQSAConfig(codebook_size=300_000))
        large = VQSA(create_backbone("resnet50"), 3, VQSAConfig(codebook_size=100_000))
    with pytest.raises(EdgekitError, match=r"2\.6 GB of weights, but an ONNX file holds 2\.1 GB"):
        export_onnx(huge, card(huge), tmp_path / "m.onnx")
    # The tables of the released training script's 100,000 codewords alone are 2.5 GB.
    assert not export_module._fitting_tables(large, tables=True)
    assert export_module._fitting_tables(tiny(), tables=True)


def test_a_network_that_cannot_be_traced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Branching(TinyBackbone):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features = super().forward(images)
            return features if float(features.sum()) > 0 else -features

    model = VQSA(Branching(), 3, VQSAConfig(codebook_size=4))
    with pytest.raises(EdgekitError, match="PyTorch cannot export this model: ") as caught:
        export_onnx(model, card(model), tmp_path / "m.onnx", batch=1)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # PyTorch would print whole graphs


def test_a_fused_method_leaves_the_plain_graph_with_other_weights(
    small: Exported, tmp_path: Path
) -> None:
    model = tiny(quantize="spatial")
    method = Denoise(1.0, model, pairs=True)
    method.attach(model)
    with torch.no_grad():
        layers = [module for module in model.modules() if isinstance(module, Denoised)]
        for layer in layers:
            layer.scaled.normal_(std=0.3)
    assert len(layers) == 2
    path = tmp_path / "m.onnx"
    export_onnx(deployable(model, [method]), card(model), path, source="ab" * 32)
    plain, fused = onnx.load(small.path).graph, onnx.load(path).graph
    assert [(n.op_type, n.name) for n in plain.node] == [(n.op_type, n.name) for n in fused.node]
    assert small.path.stat().st_size == path.stat().st_size
    assert small.path.read_bytes() != path.read_bytes()

"""Our INT8 ONNX files and our plugin before TensorRT-RTX's parser and builder; no GPU is needed.

What passes here is well-formed for TensorRT's parser; it says nothing about a Jetson's speed.
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.data.synthetic import pictures
from edgekit.data.transforms import IMAGENET
from edgekit.export.exporter import export_onnx
from edgekit.graph import rtx
from edgekit.graph.findings import RtxReport
from edgekit.graph.legalize import legalize
from edgekit.graph.lint import check_model
from edgekit.graph.uint8_input import add_uint8_input
from edgekit.graph.variants import lookup_node, to_variant
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.card import ModelCard
from edgekit.model.config import Quantize, VQSAConfig
from edgekit.model.vqsa import VQSA
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.recipes import read_recipe
from edgekit.targets.dialects import find_dialect
from tests.tensorrt.conftest import SOURCES

SIZE = (64, 64)
TENSORRT = find_dialect("tensorrt")


class Model(NamedTuple):
    float_path: Path
    nncf: onnx.ModelProto  # as calibrated
    legal: onnx.ModelProto  # as TensorRT wants it


@pytest.fixture(scope="module", autouse=True)
def rtx_here(kit):
    """The kit's TensorRT-RTX on the path of this process and its children."""
    patch = pytest.MonkeyPatch()
    folder = str(kit / "rtx")
    patch.syspath_prepend(folder)
    known = os.environ.get("PYTHONPATH")
    patch.setenv("PYTHONPATH", folder if not known else f"{folder}{os.pathsep}{known}")
    probe = "import tensorrt_rtx_libs, tensorrt_rtx_bindings"
    if subprocess.run([sys.executable, "-c", probe], check=False, capture_output=True).returncode:
        patch.undo()
        pytest.skip("the kit's TensorRT-RTX is for another Python")
    yield
    patch.undo()


def make(backbone: str, quantize: Quantize, folder: Path) -> Model:
    torch.manual_seed(0)
    network = create_backbone(backbone)
    config = VQSAConfig(codebook_size=48, quantize=quantize)
    model = VQSA(network, 10, config).eval()
    preprocessing = dataclasses.replace(IMAGENET, size=SIZE)
    photos = pictures(12, SIZE)
    with torch.no_grad():
        features = network.features(torch.from_numpy(preprocessing.normalize(photos)), quantize)
        rows = features.reshape(-1, features.shape[-1])
        chosen = rows[torch.arange(48) % len(rows)]
        model.head.codebook.embeddings.copy_(chosen + 0.1 * rows.std() * torch.randn(chosen.shape))
    classes = tuple(f"class {index}" for index in range(10))
    card = ModelCard(backbone, model.head.width, classes, preprocessing, config)
    path = folder / f"{backbone}-{quantize}.onnx"
    export_onnx(model, card, path)
    nncf, _ = calibrate(
        onnx.load(path),
        photos,
        photos[:8],
        preprocessing,
        read_recipe("fast"),
        TENSORRT,
        Console(False, -1),
    )
    return Model(path, nncf, legalize(nncf, TENSORRT))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Every model once, made when first asked for."""
    folder = tmp_path_factory.mktemp("models")
    made: dict[tuple[str, str], Model] = {}

    def get(backbone: str, quantize: Quantize) -> Model:
        if (backbone, quantize) not in made:
            made[backbone, quantize] = make(backbone, quantize, folder)
        return made[backbone, quantize]

    return get


def ask(model: onnx.ModelProto, folder: Path, plugin: Path | None = None) -> RtxReport:
    path = folder / "model.onnx"
    onnx.save(model, path)
    report = rtx.check_with_rtx(path, plugin)
    assert rtx.LABEL == "TensorRT-RTX parser/builder check, not a Jetson measurement"
    assert report.describe().startswith(rtx.LABEL)
    assert "\n" not in report.describe()
    return report


def accepted(report: RtxReport, plugin_layers: int) -> None:
    assert report.parsed, report.raw
    assert report.built, report.raw
    assert report.plugin_layers == plugin_layers
    assert report.engine_bytes > 100_000
    assert report.problem == ""


@pytest.mark.parametrize(
    ("backbone", "quantize"),
    [
        ("resnet50", "pooled"),
        ("resnet50", "spatial"),
        ("efficientnet-lite0", "pooled"),
        ("efficientnet-lite0", "spatial"),
    ],
)
def test_every_form_is_parsed_and_built(models, built, tmp_path, backbone, quantize):
    model = models(backbone, quantize).legal
    assert check_model(model, TENSORRT) == []
    plugin = built / "libedgekit_tensorrt.so"
    deployed = onnx.ModelProto()
    deployed.CopyFrom(model)
    add_uint8_input(deployed.graph, dataclasses.replace(IMAGENET, size=SIZE))
    accepted(ask(deployed, tmp_path), 0)  # the function, without a plugin
    accepted(ask(deployed, tmp_path, plugin), 1)  # the function, and the plugin in its place
    accepted(ask(to_variant(deployed, "plugin"), tmp_path, plugin), 1)
    accepted(ask(to_variant(deployed, "inline"), tmp_path), 0)


def test_one_batch_size(models, built, tmp_path):
    model = onnx.ModelProto()
    model.CopyFrom(models("resnet50", "pooled").legal)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    accepted(ask(model, tmp_path, built / "libedgekit_tensorrt.so"), 1)


def test_bgr_and_float_input(models, tmp_path):
    model = onnx.ModelProto()
    model.CopyFrom(models("efficientnet-lite0", "pooled").legal)
    accepted(ask(model, tmp_path), 0)
    add_uint8_input(model.graph, dataclasses.replace(IMAGENET, size=SIZE, channel_order="BGR"))
    accepted(ask(model, tmp_path), 0)


@pytest.mark.parametrize("backbone", ["resnet50", "efficientnet-lite0"])
def test_both_dialects_compute_nearly_what_the_float_graph_does(models, backbone):
    made = models(backbone, "pooled")
    preprocessing = dataclasses.replace(IMAGENET, size=SIZE)
    images = preprocessing.normalize(pictures(12, SIZE))

    def run(model: bytes) -> list[np.ndarray]:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        return session.run(["logits", "code"], {"images": images})

    logits, code = run(made.float_path.read_bytes())
    scale = np.abs(logits).max()
    own = legalize(made.nncf, find_dialect("onnxruntime"))
    for model in (own, made.legal):
        found, found_code = run(model.SerializeToString())
        assert np.isfinite(found).all()
        if backbone == "efficientnet-lite0":
            continue  # its random weights leave features too small for 8 bits to tell apart
        same = found_code == code
        assert same.mean() >= 0.5  # random weights: codewords are close to each other
        assert np.abs(found - logits)[same].mean() / scale < 0.15


# What must be refused, in our words.


@pytest.fixture
def broken(models):
    """A copy of a good model to break."""
    model = onnx.ModelProto()
    model.CopyFrom(models("efficientnet-lite0", "pooled").legal)
    return model


def test_a_zero_point_is_refused(broken, tmp_path):
    node = next(node for node in broken.graph.node if node.op_type == "QuantizeLinear")
    (zero,) = [tensor for tensor in broken.graph.initializer if tensor.name == node.input[2]]
    zero.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), zero.name))
    report = ask(broken, tmp_path)
    assert not report.parsed
    assert "zero-point other than 0" in report.problem
    assert "zero-point" in {finding.rule for finding in check_model(broken, TENSORRT)}


def test_a_lone_lookup_without_its_plugin_is_refused(broken, tmp_path):
    report = ask(to_variant(broken, "plugin"), tmp_path)
    assert not report.built
    assert "no plugin is loaded" in report.problem


def test_wrong_attributes_are_refused(broken, built, tmp_path):
    lone = to_variant(broken, "plugin")
    for attribute in lookup_node(lone).attribute:
        if attribute.name == "metric":
            attribute.s = b"cosine"
    report = ask(lone, tmp_path, built / "libedgekit_tensorrt.so")
    assert not report.built
    assert "metric must be 'dot' or 'l2'" in report.problem


def test_int32_indices_are_refused(broken, built, headers, nvcc, tmp_path):
    """A plugin that gave int32, made of ours: what the type in our sources guards against."""
    source = (SOURCES / "codebook_lookup_plugin.cpp").read_text()
    wrong = source.replace(
        "output_types[0] = DataType::kINT64", "output_types[0] = DataType::kINT32"
    )
    wrong = wrong.replace("tensor.type == DataType::kINT64", "tensor.type == DataType::kINT32")
    assert wrong.count("kINT32;") == source.count("kINT32;") + 2
    (tmp_path / "wrong.cpp").write_text(wrong)
    toolkit = Path(nvcc).resolve().parents[1]
    if not (toolkit / "targets").is_dir():
        toolkit = Path("/usr/local/cuda").resolve()
    platform = toolkit / "targets" / "x86_64-linux"
    library = tmp_path / "libwrong.so"
    subprocess.run(
        ["g++", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-w", f"-I{SOURCES}",
         f"-I{SOURCES.parent / 'codebook' / 'cuda'}", f"-I{headers}", f"-I{platform / 'include'}",
         tmp_path / "wrong.cpp", SOURCES / "codebook_lookup_creator.cpp",
         SOURCES / "registration.cpp", built / "codebook_cuda.o",
         platform / "lib" / "libcudart_static.a", "-lpthread", "-ldl", "-lrt", "-o", library],
        check=True,
    )  # fmt: skip
    report = ask(broken, tmp_path, library)
    assert not report.parsed
    assert "returns int32 where the file declares int64" in report.problem


def test_what_rtx_accepts_and_the_lint_does_not(models, broken, tmp_path):
    """Its parser takes scales by channel on activations, and indices declared int32."""
    nncf = models("efficientnet-lite0", "pooled").nncf
    accepted(ask(nncf, tmp_path), 0)
    assert "activation-scale" in {finding.rule for finding in check_model(nncf, TENSORRT)}
    for output in broken.graph.output:
        if output.name == "code":
            output.type.tensor_type.elem_type = TensorProto.INT32
    accepted(ask(broken, tmp_path), 0)
    assert {finding.rule for finding in check_model(broken, TENSORRT)} == {"int64-indices"}


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        rtx.check_with_rtx(tmp_path / "missing.onnx")

"""Weights that no checksum covers are not read."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle.manifest import BundleError, Manifest, RuntimeNeed
from edgekit.bundle.onnx_external import has_external_data
from edgekit.bundle.store import open_bundle, write_bundle
from edgekit.targets.descriptor import load_descriptor
from tests.bundle_files import LABELS, about, files, refusal, rewrite, write


def outside(name: str = "w") -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def inside(name: str = "w") -> TensorProto:
    return numpy_helper.from_array(np.ones(4, np.float32), name)


def in_initializer(tensor: TensorProto) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph([], "g", [], [], [tensor]))


def in_attribute(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    return helper.make_model(helper.make_graph([node], "g", [], []))


def in_branch(tensor: TensorProto) -> onnx.ModelProto:
    inner = helper.make_graph([], "inner", [], [], [tensor])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    return helper.make_model(helper.make_graph([node], "g", [], []))


def in_function(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    imports = [helper.make_opsetid("", 18)]
    function = helper.make_function("d", "f", [], ["c"], [node], imports)
    model = helper.make_model(helper.make_graph([], "g", [], []))
    model.functions.append(function)
    return model


def in_sparse(tensor: TensorProto) -> onnx.ModelProto:
    indices = numpy_helper.from_array(np.arange(4), "i")
    sparse = helper.make_sparse_tensor(tensor, indices, [9])
    graph = helper.make_graph([], "g", [], [])
    graph.sparse_initializer.append(sparse)
    return helper.make_model(graph)


PLACES = [in_initializer, in_attribute, in_branch, in_function, in_sparse]


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found_wherever_it_is(place: object, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(place(outside()).SerializeToString())  # type: ignore[operator]
    assert has_external_data(path)
    path.write_bytes(place(inside()).SerializeToString())  # type: ignore[operator]
    assert not has_external_data(path)


def graph_bundle(path: Path, model: bytes) -> Path:
    target = load_descriptor("onnxruntime-cpu")
    need = RuntimeNeed("onnxruntime", "1.20.0", "same-or-newer")
    manifest: Manifest = dataclasses.replace(
        about(), target=target, main="model.onnx", runtime=need
    )
    write_bundle(path, manifest, {"model.onnx": model}, LABELS)
    return path


def test_a_bundle_with_weights_outside_is_refused(tmp_path: Path) -> None:
    path = graph_bundle(tmp_path / "b", in_initializer(outside()).SerializeToString())
    assert "model.onnx keeps weights in other files, which nothing checks" in refusal(path)
    open_bundle(graph_bundle(tmp_path / "c", in_initializer(inside()).SerializeToString()))


@pytest.mark.parametrize(
    "data", [b"", b"no model", b"\x3a\xff\xff\xff\xff\x0f", b"\x08" + b"\xff" * 20, b"\x0d\x00"]
)
def test_what_is_no_graph_is_said(data: bytes, tmp_path: Path) -> None:
    assert "is not an ONNX file" in refusal(graph_bundle(tmp_path / "b", data))


def test_a_graph_nested_without_end_is_read(tmp_path: Path) -> None:
    data = b""
    for _ in range(3000):  # graph in attribute in node in graph, 16 KB of lengths each
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            size, length = len(data), b""
            while size > 127:
                length += bytes([size & 127 | 128])
                size >>= 7
            data = tag + length + bytes([size]) + data
        if len(data) > 100_000:
            break
    size, length = len(data), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    (tmp_path / "m.onnx").write_bytes(b"\x3a" + length + bytes([size]) + data)
    assert not has_external_data(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("main", "message"),
    [
        ("model.onnx", "is not a file that openvino opens"),
        ("model.bin", "is not a file that openvino opens"),
        ("model", "is not a file that openvino opens"),
        ("other.xml", "the weights other.bin are not among its files"),
    ],
)
def test_the_runtime_opens_its_own_kind(main: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=message):
        write_bundle(
            tmp_path / "b", dataclasses.replace(about(), main=main), {**files(), main: b""}, LABELS
        )


def test_openvinos_weights_are_listed(tmp_path: Path) -> None:
    """It reads the .bin beside an .xml, listed or not."""
    path = write(tmp_path / "b")

    def unlist(document: dict[str, object]) -> None:
        assert isinstance(document["files"], dict)
        del document["files"]["model.bin"]

    rewrite(path, unlist)
    assert "the weights model.bin are not among its files" in refusal(path)

"""ONNX Runtime bundles against torch's forward pass."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekit.bundle.store import open_bundle
from edgekit.compilers.base import LookupForm
from edgekit.compilers.onnxruntime import compile_model
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.runtime.onnxruntime import FAILURES, named_outputs, open_session
from edgekit.runtime.runner import open_runner, run_settings
from edgekit.targets.descriptor import load_descriptor
from tests import bundles
from tests.bundles import pack


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("lookup", ["auto", "inline"])
def test_uint8_images_give_what_torch_gives(order: str, lookup: LookupForm, tmp_path: Path) -> None:
    made, pixels = bundles.made(order), bundles.images(9)
    expected = made.expect(pixels)
    descriptor = replace(load_descriptor("onnxruntime-cpu"), precision="fp32")
    pack(made.onnx, made.card, descriptor, tmp_path / "b", lookup=lookup)
    bundle = open_bundle(tmp_path / "b")
    raw = open_runner(bundle, run_settings(bundle.manifest.target), None).run(pixels)
    np.testing.assert_allclose(raw.logits, expected.logits, atol=1e-4)
    np.testing.assert_array_equal(raw.code, expected.code)
    assert raw.margin is not None
    assert expected.margin is not None
    np.testing.assert_allclose(raw.margin, expected.margin, atol=1e-3)
    onnx.checker.check_model(onnx.load(tmp_path / "b" / "model.onnx"), full_check=True)


@pytest.mark.parametrize("batch", [0, 2])
def test_any_number_of_images(batch: int) -> None:
    bundle = open_bundle(bundles.bundle("onnxruntime-cpu"))
    settings = replace(run_settings(bundle.manifest.target), batch=batch)
    opened = open_runner(bundle, settings, None)
    pixels = bundles.images(5)
    whole = opened.run(pixels)
    for count in (0, 1, 3, 5):
        part = opened.run(pixels[:count])
        assert part.logits.shape == (count, len(bundles.CLASSES))
        np.testing.assert_allclose(part.logits, whole.logits[:count], atol=1e-5)


def test_threads_and_hints_are_taken() -> None:
    bundle = open_bundle(bundles.bundle("onnxruntime-cpu"))
    target = bundle.manifest.target
    one = open_runner(bundle, run_settings(target, threads=1), None)
    assert (one.parallel, one.describe()["threads"]) == (1, 1)
    many = open_runner(bundle, run_settings(target, threads=2, hint="throughput"), None)
    assert (many.parallel, many.describe()["threads"]) == (2, 1)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    made = bundles.made()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        descriptor = load_descriptor("onnxruntime-cpu")
        compile_model(made.onnx, made.card.preprocessing, descriptor, tmp_path / name)
    first, second = (tmp_path / name / "model.onnx" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_the_oldest_release_follows_from_the_file(tmp_path: Path) -> None:
    made, descriptor = bundles.made(), load_descriptor("onnxruntime-cpu")
    need = open_bundle(bundles.bundle("onnxruntime-cpu")).manifest.runtime
    assert (need.version, need.match) == ("1.20.0", "same-or-newer")
    newer = onnx.load(made.onnx)
    newer.ir_version = 11
    onnx.save(newer, tmp_path / "newer.onnx")
    done = compile_model(tmp_path / "newer.onnx", made.card.preprocessing, descriptor, tmp_path)
    assert done.runtime.version == onnxruntime.__version__


def test_an_older_runtime_is_refused_and_a_newer_one_is_not() -> None:
    bundle = open_bundle(bundles.bundle("onnxruntime-cpu"))
    settings = run_settings(bundle.manifest.target)
    for version, fits in (("1.20.0", True), ("1.9.1", True), ("99.1.0", False)):
        need = replace(bundle.manifest.runtime, version=version)
        other = replace(bundle, manifest=replace(bundle.manifest, runtime=need))
        if fits:
            open_runner(other, settings, None)
        else:
            with pytest.raises(ToolchainMissing, match=r"needs onnxruntime 99.1.0 or newer"):
                open_runner(other, settings, None)


def test_it_has_no_plugins(tmp_path: Path) -> None:
    made = bundles.made()
    with pytest.raises(UsageError, match="runs without plugins"):
        compile_model(
            made.onnx,
            made.card.preprocessing,
            load_descriptor("onnxruntime-cpu"),
            tmp_path,
            "plugin",
        )


def test_a_file_it_cannot_run_is_one_line(tmp_path: Path) -> None:
    made = bundles.made()
    path = tmp_path / "b"
    pack(made.onnx, made.card, load_descriptor("onnxruntime-cpu"), path)
    bundle = open_bundle(path)
    (path / "model.onnx").write_bytes(b"not ONNX at all")
    with pytest.raises(EdgekitError, match="ONNX Runtime cannot load") as caught:
        open_runner(bundle, run_settings(bundle.manifest.target), None)
    assert "\n" not in str(caught.value)


def test_an_error_is_raised_and_not_logged_too(capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime's own line, colored, stood above the one that edgekit prints."""
    weight = onnx.numpy_helper.from_array(np.zeros((2, 5, 1, 1), np.float32), "w")
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 4, 4]), ("y", None))
    ]
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "five channels for three", ends[:1], ends[1:], [weight])
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    session = open_session(model.SerializeToString())
    with pytest.raises(FAILURES, match="kernel channels: 5"):
        named_outputs(session, np.zeros((1, 3, 4, 4), np.float32))
    assert capfd.readouterr().err == ""

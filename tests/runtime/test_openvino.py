"""OpenVINO bundles against torch's forward pass."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
from numpy.typing import NDArray

from edgekit.bundle.manifest import BundleError
from edgekit.bundle.store import open_bundle
from edgekit.compilers.base import LookupForm
from edgekit.compilers.openvino import compile_model
from edgekit.core.errors import EdgekitError, ToolchainMissing
from edgekit.core.host import host_arch
from edgekit.model.config import Quantize
from edgekit.native.openvino_extension import extension_path
from edgekit.runtime.answers import in_chunks
from edgekit.runtime.openvino import OpenVinoRunner
from edgekit.runtime.runner import open_runner, run_settings
from edgekit.targets.descriptor import load_descriptor
from edgekit.workflows.inspect import inspect_bundle
from tests import bundles
from tests.bundles import float_target, pack
from tests.cross_compiled import compile_for_arm, compile_nothing, only_on_x86


def runner(path: Path, cache: Path | None = None, **options: Any) -> OpenVinoRunner:
    bundle = open_bundle(path)
    settings = replace(run_settings(bundle.manifest.target), **options)
    opened = open_runner(bundle, settings, cache)
    assert isinstance(opened, OpenVinoRunner)
    return opened


def need_extension() -> None:
    try:
        extension_path()
    except ToolchainMissing as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("lookup", ["inline", "plugin"])
@pytest.mark.parametrize(
    ("order", "quantize"), [("RGB", "pooled"), ("BGR", "pooled"), ("RGB", "spatial")]
)
def test_uint8_images_give_what_torch_gives(
    lookup: LookupForm, order: str, quantize: Quantize, tmp_path: Path
) -> None:
    if lookup == "plugin":
        need_extension()
    made = bundles.made(order, quantize)
    pixels = bundles.images(9)
    expected = made.expect(pixels)
    assert expected.code is not None
    assert expected.margin is not None
    assert len(np.unique(expected.code)) > 3  # a collapsed codebook would prove little
    descriptor = replace(load_descriptor("cpu"), precision="fp32", batch=4)
    written = pack(made.onnx, made.card, descriptor, tmp_path / "b", lookup=lookup)
    assert written.plugins == (("libedgekit_openvino.so",) if lookup == "plugin" else ())
    assert written.arch == (host_arch() if lookup == "plugin" else "any")
    raw = runner(tmp_path / "b").run(pixels)  # 4 + 4 + 1 padded to 4
    np.testing.assert_allclose(raw.logits, expected.logits, atol=1e-4)
    np.testing.assert_array_equal(raw.code, expected.code)
    assert raw.margin is not None
    np.testing.assert_allclose(raw.margin, expected.margin, atol=1e-3)
    assert raw.logits.dtype == np.float32
    assert raw.code is not None
    assert raw.code.dtype == np.int64


def test_a_plain_classifier_has_no_codes(tmp_path: Path) -> None:
    made = bundles.made(plain=True)
    descriptor = replace(load_descriptor("cpu"), precision="fp32")
    pack(made.onnx, made.card, descriptor, tmp_path / "b")
    raw = runner(tmp_path / "b").run(bundles.images(2))
    np.testing.assert_allclose(raw.logits, made.expect(bundles.images(2)).logits, atol=1e-4)
    assert raw.code is None
    assert raw.margin is None


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_any_number_of_images_fits_any_compiled_batch(batch: int) -> None:
    opened = runner(bundles.bundle(), batch=batch)
    pixels = bundles.images(7)
    whole = opened.run(pixels)
    for count in (0, 1, 2, 3, 4, 7):
        part = opened.run(pixels[:count])
        assert part.logits.shape == (count, len(bundles.CLASSES))
        np.testing.assert_allclose(part.logits, whole.logits[:count], atol=1e-5)
        assert whole.code is not None
        np.testing.assert_array_equal(part.code, whole.code[:count])


@pytest.mark.parametrize("lookup", ["inline", "plugin"])
def test_precision_is_f32_also_from_the_cache(lookup: LookupForm, tmp_path: Path) -> None:
    if lookup == "plugin":
        need_extension()
    path, pixels = bundles.bundle(lookup=lookup), bundles.images(64)
    expected = bundles.made().expect(pixels)
    fresh = runner(path, tmp_path)
    assert len(list(tmp_path.glob("*.blob"))) == 1
    cached = runner(path, tmp_path)
    for opened in (fresh, cached):
        assert opened.describe()["inference_precision"] in ("f32", "float32")
        raw = opened.run(pixels)
        np.testing.assert_allclose(raw.logits, expected.logits, atol=1e-4)
        np.testing.assert_array_equal(raw.code, expected.code)


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    path, pixels = bundles.bundle(), bundles.images(2)
    expected = runner(path, tmp_path).run(pixels)
    (blob,) = tmp_path.glob("*.blob")
    whole = blob.read_bytes()
    for damaged in (whole[:100], b"", whole[:-1] + bytes([whole[-1] ^ 1]), b"\0" * len(whole)):
        blob.write_bytes(damaged)
        raw = runner(path, tmp_path).run(pixels)
        np.testing.assert_array_equal(raw.logits, expected.logits)
        assert blob.read_bytes() != damaged


@pytest.mark.every_core
def test_settings_have_their_own_cache_entries(tmp_path: Path) -> None:
    for threads in (1, 2):
        assert runner(bundles.bundle(), tmp_path, threads=threads).describe()["threads"] == threads
    runner(bundles.bundle(batch=2), tmp_path, threads=1)
    assert len(list(tmp_path.glob("*.blob"))) == 3


def test_the_cache_keeps_the_newest_only(tmp_path: Path) -> None:
    for batch in range(1, 11):
        runner(bundles.bundle(), tmp_path, batch=batch)
    assert len(list(tmp_path.glob("*.blob"))) == 8


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    raw = runner(bundles.bundle(), tmp_path / "file" / "cache").run(bundles.images(1))
    assert raw.logits.shape == (1, len(bundles.CLASSES))


@pytest.mark.every_core
def test_throughput_runs_several_inferences_at_a_time() -> None:
    opened = runner(bundles.bundle(), hint="throughput", threads=2, streams=2)
    assert opened.parallel >= 2
    assert opened.describe()["streams"] == 2


def quantized(path: Path) -> NDArray[np.float32]:
    """Write the model as Q/DQ int8 (ONNX Runtime's quantizer); returns the codebook in it."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    from edgekit.graph.variants import to_variant

    made = bundles.made()
    floats = path.with_suffix(".float.onnx")
    onnx.save(to_variant(onnx.load(made.onnx), "inline"), floats)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [made.card.preprocessing.normalize(bundles.images(8, s)) for s in range(4)]

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return {"images": self.left.pop()} if self.left else None

    quantize_static(
        floats, path, Reader(), quant_format=QuantFormat.QDQ, op_types_to_quantize=["Conv"]
    )
    codebook = made.model.head.codebook
    assert codebook is not None
    rows = codebook.embeddings.detach().numpy()
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def test_int8_weights_stay_int8_and_the_codebook_float32(tmp_path: Path) -> None:
    codebook = quantized(tmp_path / "q.onnx")
    preprocessing = bundles.made().card.preprocessing
    compile_model(tmp_path / "q.onnx", preprocessing, load_descriptor("cpu"), tmp_path, "inline")
    model = ov.Core().read_model(tmp_path / "model.xml")
    constants = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
    kernels = [
        op.get_element_type().to_string()
        for op in constants
        if op.get_output_shape(0)[1:] == [3, 3, 3] or list(op.get_output_shape(0))[2:] == [3, 3]
    ]
    assert kernels == ["i8", "i8", "i8"]
    assert not [op for op in constants if op.get_element_type() == ov.Type.f16]
    stored = [op.data for op in constants if list(op.get_output_shape(0)) == list(codebook.shape)]
    assert any(np.abs(table - codebook).max() < 1e-6 for table in stored)


def test_the_same_model_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    made = bundles.made()
    once, again, other = (tmp_path / name for name in ("once", "again", "other"))
    for path in (once, again):  # OpenVINO numbers what it makes through the life of a process
        path.mkdir()
        compile_model(made.onnx, made.card.preprocessing, load_descriptor("cpu"), path)
    other.mkdir()
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from edgekit.compilers.openvino import compile_model\n"
        "from edgekit.targets.descriptor import load_descriptor\n"
        "from edgekit.data.transforms import Preprocessing\n"
        f"values = {made.card.preprocessing.to_dict()!r}\n"
        "compile_model(Path(sys.argv[1]), Preprocessing.from_dict(values),"
        " load_descriptor('cpu'), Path(sys.argv[2]))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(made.onnx), str(other)], check=True)
    for name in ("model.xml", "model.bin"):
        assert (once / name).read_bytes() == (again / name).read_bytes()
        assert (once / name).read_bytes() == (other / name).read_bytes()
    assert str(tmp_path) not in (once / "model.xml").read_text()


@only_on_x86
def test_a_target_of_another_architecture_runs_without_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_extension()
    compile_nothing(monkeypatch)
    made = bundles.made()
    descriptor = replace(load_descriptor("openvino-arm"), precision="fp32")
    assert pack(made.onnx, made.card, descriptor, tmp_path / "b").plugins == ()
    expected = made.expect(bundles.images(3))
    raw = runner(tmp_path / "b").run(bundles.images(3))  # a graph without plugins runs anywhere
    np.testing.assert_allclose(raw.logits, expected.logits, atol=1e-4)
    reason = "OpenVINO extension is not compiled for aarch64: run 'make arm-plugin'"
    with pytest.raises(ToolchainMissing, match=reason):
        pack(made.onnx, made.card, descriptor, tmp_path / "c", lookup="plugin")
    compiled = compile_model(made.onnx, made.card.preprocessing, descriptor, tmp_path)
    assert reason in compiled.without_plugin


@only_on_x86
def test_a_cross_compiled_plugin_goes_into_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_extension()
    there = compile_for_arm(tmp_path, monkeypatch)
    content = there.read_bytes()
    made = bundles.made()
    manifest = pack(made.onnx, made.card, float_target("openvino-arm"), tmp_path / "b")
    assert (manifest.arch, manifest.plugins) == ("aarch64", (there.name,))
    assert (tmp_path / "b" / there.name).read_bytes() == content
    with pytest.raises(BundleError, match="built for aarch64, this machine is x86_64"):
        open_bundle(tmp_path / "b")
    rows = dict(inspect_bundle(tmp_path / "b").rows())  # what it is can be read anywhere
    assert rows["plugins"] == f"{there.name} (for aarch64)"
    there.write_bytes(content.replace(manifest.runtime.version.encode(), b"2025.0.0"))
    with pytest.raises(ToolchainMissing, match=r"for OpenVINO 2025.0.0.*run 'make arm-plugin' ag"):
        pack(made.onnx, made.card, float_target("openvino-arm"), tmp_path / "c", lookup="plugin")


def test_another_release_of_the_runtime_is_refused() -> None:
    bundle = open_bundle(bundles.bundle())
    need = replace(bundle.manifest.runtime, version="2020.1.0")
    other = replace(bundle, manifest=replace(bundle.manifest, runtime=need))
    with pytest.raises(ToolchainMissing, match=r"needs openvino 2020.1.0, installed is .*pip inst"):
        open_runner(other, run_settings(bundle.manifest.target), None)


def test_a_missing_runtime_is_exit_code_4_with_its_command() -> None:
    code = (
        "import sys\nsys.modules['openvino'] = None\n"  # as if it were not installed
        "import edgekit\n"
        "try:\n    edgekit.load(sys.argv[1])\n"
        "except edgekit.core.errors.ToolchainMissing as error:\n    print(error)\n"
    )
    path = bundles.bundle()
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert "package openvino is not installed: run pip install 'openvino==" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_graph_openvino_cannot_read_is_one_line(tmp_path: Path) -> None:
    node = onnx.helper.make_node("NoSuchOperator", ["images"], ["logits"], domain="nowhere")
    floats = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("images", floats, ["batch", 3, *bundles.SIZE])],
        [onnx.helper.make_tensor_value_info("logits", floats, ["batch", 7])],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    preprocessing = bundles.made().card.preprocessing
    with pytest.raises(EdgekitError, match=r"OpenVINO cannot compile m\.onnx") as caught:
        compile_model(tmp_path / "m.onnx", preprocessing, load_descriptor("cpu"), tmp_path)
    assert "\n" not in str(caught.value)


def test_chunks_are_joined_in_order() -> None:
    opened = runner(bundles.bundle(), batch=0)
    pixels = bundles.images(5)
    joined = in_chunks(opened.run, pixels, 2)
    np.testing.assert_allclose(joined.logits, opened.run(pixels).logits, atol=1e-5)

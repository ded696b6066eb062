"""Our operator in OpenVINO: exact in every way that OpenVINO can run it."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest

import edgekit
from edgekit.core.errors import EdgekitError, ToolchainMissing
from edgekit.core.host import host_arch
from edgekit.graph.lookup import LookupSpec, lookup_function
from edgekit.native import openvino_extension
from edgekit.native.codebook import Codebook, lookup_reference
from tests.cross_compiled import compile_nothing

F32 = {"INFERENCE_PRECISION_HINT": "f32"}


def lookup_model(codebook: np.ndarray | None, width: int, metric: str = "dot") -> onnx.ModelProto:
    """The operator alone; its codebook is a second input where none is given."""
    helper, kinds = onnx.helper, onnx.TensorProto
    form = LookupSpec(metric, margin=True, rows=2)  # type: ignore[arg-type]
    node = helper.make_node(
        "CodebookLookup",
        ["features", "codebook"],
        ["indices", "margin"],
        domain="edgekit",
        **form.attributes(),
    )
    inputs = [helper.make_tensor_value_info("features", kinds.FLOAT, ["M", width])]
    constants = []
    if codebook is None:
        inputs.append(helper.make_tensor_value_info("codebook", kinds.FLOAT, ["N", width]))
    else:
        constants.append(onnx.numpy_helper.from_array(codebook, "codebook"))
    outputs = [
        helper.make_tensor_value_info("indices", kinds.INT64, ["M"]),
        helper.make_tensor_value_info("margin", kinds.FLOAT, ["M"]),
    ]
    graph = helper.make_graph([node], "lookup", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("edgekit", 1)]
    return helper.make_model(
        graph, opset_imports=opsets, functions=[lookup_function(form, 18)], ir_version=9
    )


@pytest.fixture(scope="module")
def core() -> Any:
    core = ov.Core()
    core.add_extension(edgekit.extension_path())
    return core


def read(core: Any, model: onnx.ModelProto) -> Any:
    return core.read_model(model.SerializeToString())


def make(rows: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A codebook of which every third row is a copy of row 0, and some features."""
    generator = np.random.default_rng(seed)
    codebook = generator.normal(size=(rows, width)).astype(np.float32)
    codebook[::3] = codebook[0]
    features = generator.normal(size=(64, width)).astype(np.float32)
    features[::5] = codebook[0]
    features[1] = 0
    return codebook, features


def assert_exact(result: Any, codebook: np.ndarray, x: np.ndarray, metric: str = "dot") -> None:
    with Codebook(codebook, metric) as native:
        expected = native.lookup(x)
    assert result["indices"].dtype == np.int64
    assert result["indices"].tolist() == expected.indices.tolist()
    assert result["margin"].tolist() == expected.margin.tolist()


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("rows", [1, 2, 17, 300])
@pytest.mark.parametrize("width", [1, 15, 64, 257])
def test_equal_to_the_reference_bit_for_bit(core: Any, rows: int, width: int, metric: str) -> None:
    codebook, features = make(rows, width)
    compiled = core.compile_model(read(core, lookup_model(codebook, width, metric)), "CPU", F32)
    for count in (1, 2, 7, 0, 64, 1):
        result = compiled(features[:count])
        expected = lookup_reference(codebook, features[:count], metric)
        assert result["indices"].shape == (count,)
        assert result["indices"].tolist() == expected.indices.tolist()
        assert result["margin"].tolist() == expected.margin.tolist()


def test_static_shape_and_single_output(core: Any) -> None:
    codebook, features = make(40, 32)
    model = read(core, lookup_model(codebook, 32))
    model.reshape([5, 32])
    assert model.output("indices").shape == [5]
    assert_exact(core.compile_model(model, "CPU", F32)(features[:5]), codebook, features[:5])
    proto = lookup_model(codebook, 32)
    (node,) = proto.graph.node
    del node.output[1:], proto.graph.output[1:]
    next(a for a in node.attribute if a.name == "margin").i = 0
    (indices,) = core.compile_model(read(core, proto), "CPU", F32)(features).values()
    assert indices.tolist() == lookup_reference(codebook, features).indices.tolist()


def test_a_codebook_that_is_no_constant(core: Any) -> None:
    compiled = core.compile_model(read(core, lookup_model(None, 16)), "CPU", F32)
    for seed, rows in ((1, 30), (2, 30), (3, 7)):
        codebook, features = make(rows, 16, seed)
        assert_exact(compiled([features, codebook]), codebook, features)


def test_many_streams_and_requests(core: Any) -> None:
    codebook, features = make(500, 96)
    compiled = core.compile_model(
        read(core, lookup_model(codebook, 96)), "CPU", {**F32, "NUM_STREAMS": 4}
    )
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def keep(request: Any, job: int) -> None:
        found[job] = tuple(request.get_output_tensor(i).data.copy() for i in (0, 1))

    requests = ov.AsyncInferQueue(compiled, 8)
    requests.set_callback(keep)
    jobs = [features[job % 13 : job % 13 + 1 + job % 40] for job in range(200)]
    for job, x in enumerate(jobs):
        requests.start_async({0: x}, job)
    requests.wait_all()
    with Codebook(codebook) as native:
        for job, x in enumerate(jobs):
            expected = native.lookup(x)
            assert found[job][0].tolist() == expected.indices.tolist()
            assert found[job][1].tolist() == expected.margin.tolist()


@pytest.mark.every_core
def test_models_compiled_and_run_by_several_threads(core: Any) -> None:
    codebook, features = make(200, 48)
    proto = lookup_model(codebook, 48)
    failures: list[str] = []

    def work() -> None:
        try:
            compiled = core.compile_model(read(core, proto), "CPU", {**F32, "NUM_STREAMS": 1})
            for count in range(1, 20):
                assert_exact(compiled(features[:count]), codebook, features[:count])
        except (AssertionError, RuntimeError) as error:
            failures.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_saved_models_keep_the_codebook_in_float32(core: Any, tmp_path: Path) -> None:
    codebook, features = make(90, 33)
    ov.save_model(read(core, lookup_model(codebook, 33, "l2")), tmp_path / "m.xml")  # to f16
    model = core.read_model(tmp_path / "m.xml")
    (node,) = [op for op in model.get_ops() if op.get_type_name() == "CodebookLookup"]
    assert node.get_attributes() == {
        "plugin_namespace": "edgekit",
        "plugin_version": "1",
        "metric": "l2",
        "margin": 1,
    }
    assert_exact(core.compile_model(model, "CPU", F32)(features), codebook, features, "l2")


def test_half_precision_models(core: Any) -> None:
    """A codebook stored in f16 is looked up as the numbers that f16 holds, exactly."""
    codebook, features = make(60, 24)
    model = read(core, lookup_model(None, 24))
    stored = ov.op.Constant(codebook.astype(np.float16))
    parameter = model.input("codebook").get_node()
    converted = ov.opset13.convert(stored, "f32")
    parameter.output(0).replace(converted.output(0))
    model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()
    rounded = codebook.astype(np.float16).astype(np.float32)
    assert_exact(core.compile_model(model, "CPU", F32)(features), rounded, features)


def test_cached_blobs(core: Any, tmp_path: Path) -> None:
    codebook, features = make(150, 31)  # an odd width: the blob's codebook is misaligned
    compiled = core.compile_model(read(core, lookup_model(codebook, 31)), "CPU", F32)
    blob = compiled.export_model()
    assert_exact(core.import_model(blob, "CPU", F32)(features), codebook, features)
    cached = {**F32, "CACHE_DIR": str(tmp_path)}
    for _ in range(2):
        compiled = core.compile_model(read(core, lookup_model(codebook, 31)), "CPU", cached)
        assert_exact(compiled(features), codebook, features)
    assert list(tmp_path.glob("*.blob"))


def test_memory_at_any_alignment_and_with_gaps(core: Any) -> None:
    codebook, features = make(50, 20)
    compiled = core.compile_model(read(core, lookup_model(codebook, 20)), "CPU", F32)
    raw = np.zeros(features.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(np.float32).reshape(features.shape)
    misaligned[:] = features
    request = compiled.create_infer_request()
    assert_exact(request.infer([misaligned], share_inputs=True), codebook, features)
    wide = np.zeros((64, 40), np.float32)
    wide[:, :20] = features
    assert_exact(request.infer([wide[:, :20]], share_inputs=True), codebook, features)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("threads", [1, 2])
def test_nan_and_infinity_are_errors_and_the_request_lives_on(
    core: Any, value: float, threads: int
) -> None:
    codebook, features = make(20, 10)
    request = request_with(core, codebook, threads)
    bad = features.copy()
    bad[3, 7] = value
    request.start_async([bad])
    with pytest.raises(RuntimeError, match="NaN or infinity, first in vector 3 of 64"):
        request.wait()
    assert_exact(request.infer([features]), codebook, features)


def test_one_thread_loses_errors_but_leaves_no_answer(core: Any) -> None:
    """OpenVINO's fault, here as small as it gets; where it raises, a release has mended it."""
    codebook, features = make(20, 10)
    request = request_with(core, codebook, 1)
    request.infer([features])
    indices, margin = request.infer([np.full_like(features, np.nan)]).values()
    assert (indices == -1).all()
    assert np.isnan(margin).all()


def request_with(core: Any, codebook: np.ndarray, threads: int) -> Any:
    model = read(core, lookup_model(codebook, codebook.shape[1]))
    config = {**F32, "INFERENCE_NUM_THREADS": threads}
    return core.compile_model(model, "CPU", config).create_infer_request()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "cosine"}, "metric 'cosine' is neither 'dot' nor 'l2'"),
        ({"plugin_version": "2"}, "needs version 2 of this operator"),
        ({"margin": 7}, "margin must be 0 or 1, not 7"),
    ],
)
def test_models_the_operator_refuses(core: Any, change: dict[str, Any], message: str) -> None:
    proto = lookup_model(make(4, 3)[0], 3)
    (node,) = proto.graph.node
    for name, value in change.items():
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
    with pytest.raises(RuntimeError, match=message):
        read(core, proto)


def test_codebooks_the_operator_refuses(core: Any) -> None:
    codebook = make(4, 3)[0]
    with pytest.raises(RuntimeError, match="features are 5 wide, the codebook's rows 3"):
        read(core, lookup_model(codebook, 5))
    codebook[2, 1] = np.nan
    with pytest.raises(RuntimeError, match="codebook holds NaN or infinity"):
        read(core, lookup_model(codebook, 3))


def test_benchmark_app(tmp_path: Path) -> None:
    """OpenVINO's own tool, as the documentation shows it."""
    codebook, _ = make(50, 16)
    onnx.save(lookup_model(codebook, 16), tmp_path / "m.onnx")
    tool = Path(sys.executable).parent / "benchmark_app"
    command = [
        *(sys.executable, str(tool), "-m", str(tmp_path / "m.onnx"), "-d", "CPU"),
        *("-extensions", str(edgekit.extension_path()), "-shape", "[4,16]"),
        *("-hint", "none", "-niter", "4", "-infer_precision", "f32"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Throughput" in done.stdout


def test_built_for_another_release(tmp_path: Path) -> None:
    path = edgekit.extension_path()
    release = openvino_extension.built_for(path)
    assert release == openvino_extension.openvino_release() == ov.get_version().split("-")[0]
    other = tmp_path / path.name
    other.write_bytes(path.read_bytes().replace(release.encode(), b"2025.0.0"))
    fix = "pip install openvino==2025.0.0"
    with pytest.raises(ToolchainMissing, match=fix) as caught:
        openvino_extension.check_release(other)
    assert "\n" not in str(caught.value)
    # Nor does it get past OpenVINO, for those who do not ask us first.
    with pytest.raises(RuntimeError, match=fix):
        ov.Core().add_extension(other)


def test_what_is_no_extension(tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(EdgekitError, match="is not edgekit's OpenVINO extension"):
        openvino_extension.built_for(tmp_path / "x.so")
    with pytest.raises(EdgekitError, match="cannot read the extension"):
        openvino_extension.built_for(tmp_path / "absent.so")


def test_an_edgekit_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_extension, "find_resource", lambda name: None)
    with pytest.raises(ToolchainMissing, match="built without its OpenVINO extension: run 'pip"):
        openvino_extension.extension_path()


def test_the_check_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import resource, sys\n"
        "from edgekit.native.openvino_extension import check_extension\n"
        "before = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(check_extension())\n"
        "after = resource.getrusage(resource.RUSAGE_SELF)\n"
        "assert not {'openvino', 'numpy', 'torch'} & set(sys.modules)\n"
        "used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime\n"
        "assert used < 0.25, used\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout
        == f"loaded into OpenVINO {openvino_extension.openvino_release()}, lookup correct\n"
    )


def test_what_another_processor_needs_is_found_in_the_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also by an edgekit that was installed from there, not in place."""
    compile_nothing(monkeypatch)
    if host_arch() == "aarch64":
        with pytest.raises(ToolchainMissing, match="for x86_64 is compiled there"):
            openvino_extension.extension_for("x86_64")
        return
    monkeypatch.setattr(openvino_extension, "checkout", lambda: tmp_path)
    with pytest.raises(ToolchainMissing, match=f"run 'make arm-plugin' in {tmp_path}"):
        openvino_extension.extension_for("aarch64")
    path = tmp_path / "edgekit" / "_native" / "aarch64" / edgekit.extension_path().name
    path.parent.mkdir(parents=True)
    path.write_bytes(edgekit.extension_path().read_bytes())
    assert openvino_extension.extension_for("aarch64") == path
    for own in ("any", "host", host_arch()):
        assert openvino_extension.extension_for(own) == edgekit.extension_path()

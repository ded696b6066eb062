"""Our OpenVINO operators, cross-compiled: what they give on aarch64 and on x86."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from edgekit.bundle.store import elf_arch
from edgekit.native.openvino_extension import built_for, extension_for, extension_path, operators
from edgekit.targets.operators import HEAD
from tests.arm.conftest import Table
from tests.arm.userland import SOURCE, WORKSTATION, Userland
from tests.graph.test_fused_head import FORMS, calibrated, fused
from tests.native.test_openvino_extension import lookup_model, make

Results = dict[str, NDArray[Any]]
Both = tuple[Results, Results]
LOOKUPS = ((16, 24), (300, 64), (1000, 192))


def head_alone(graph: onnx.ModelProto) -> tuple[onnx.ModelProto, NDArray[np.float32]]:
    """The node edgekit::VQSAHead of a calibrated graph, and features for it."""
    whole = fused(graph)
    (node,) = (node for node in whole.graph.node if node.op_type == HEAD)
    constants = [one for one in whole.graph.initializer if one.name in node.input]
    (codebook,) = (
        onnx.numpy_helper.to_array(one) for one in constants if one.name == node.input[1]
    )
    kinds = {1: onnx.TensorProto.INT64}  # logits, code, margin
    alone = helper.make_graph(
        [node],
        "head",
        [helper.make_tensor_value_info(node.input[0], 1, ["B", codebook.shape[1]])],
        [
            helper.make_tensor_value_info(name, kinds.get(index, onnx.TensorProto.FLOAT), None)
            for index, name in enumerate(node.output)
        ],
        constants,
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("edgekit", 1)]
    random = np.random.default_rng(8)
    features = codebook[random.integers(0, len(codebook), 64)]
    features += random.normal(0, features.std(), features.shape).astype(np.float32)
    return helper.make_model(alone, opset_imports=imports, ir_version=9), features


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lookups with copied rows, and every form of the head."""
    folder = tmp_path_factory.mktemp("operators")
    for rows, width in LOOKUPS:
        codebook, features = make(rows, width)
        for metric in ("dot", "l2"):
            name = f"lookup-{metric}-{rows}x{width}"
            onnx.save(lookup_model(codebook, width, metric), folder / f"{name}.onnx")
            np.save(folder / f"{name}.npy", features)
    for index, form in enumerate(FORMS):
        model, features = head_alone(calibrated(form, folder / "calibrated.onnx.tmp").graph)
        onnx.save(model, folder / f"head-{index}.onnx")
        np.save(folder / f"head-{index}.npy", features)
    return folder


@pytest.fixture(scope="module")
def both(userland: Userland, graphs: Path) -> Both:
    """The results here and there, from the same files."""
    words = ("-m", "tests.arm.operators", graphs)
    here: list[str | Path] = [sys.executable, *words, extension_path(), graphs / "x86.npz"]
    subprocess.run(here, cwd=SOURCE, check=True)
    there: list[str | Path] = ["python3", *words, extension_for("aarch64"), graphs / "arm.npz"]
    packages = (*WORKSTATION, SOURCE / "build" / "arm-openvino")
    done = userland.run(there, binds=[graphs], packages=packages, seconds=3000)
    assert done.returncode == 0, done.stderr
    x86, arm = (dict(np.load(graphs / f"{name}.npz")) for name in ("x86", "arm"))
    assert x86.keys() == arm.keys()
    return x86, arm


@pytest.mark.usefixtures("userland")  # `make test-arm`, which has compiled it
def test_it_is_of_the_same_release_and_has_the_same_operators() -> None:
    here, there = extension_path(), extension_for("aarch64")
    assert elf_arch(there.read_bytes()[:20], there.name) == "aarch64"
    assert built_for(there) == built_for(here)
    assert operators(there) == operators(here)


def test_codes_and_margins_are_equal(both: Both, table: Table) -> None:
    x86, arm = both
    names = [name for name in x86 if name.rpartition("/")[2] in ("indices", "code", "margin")]
    assert len(names) == 2 * 2 * len(LOOKUPS) * 2 + 2 * 5  # one head has no margin
    for name in names:
        np.testing.assert_array_equal(arm[name], x86[name], err_msg=name)
    codes = [name for name in names if not name.endswith("margin")]
    assert min(len(np.unique(x86[name])) for name in codes) > 3
    count = sum(x86[name].size for name in codes)
    table.add("our operators: codes", f"{count:,} of {count:,} as on x86, margins bit for bit")


def test_logits_are_nearly_equal(both: Both, table: Table) -> None:
    """The head's sums are integers; around them, a compiler may fuse a product with a sum."""
    x86, arm = both
    names = [name for name in x86 if name.endswith("/logits")]
    assert len(names) == 2 * len(FORMS)
    off = max(np.abs(arm[name] - x86[name]).max() / np.abs(x86[name]).max() for name in names)
    assert off < 1e-5
    table.add("our operators: logits", f"off by at most {off:.1e} of the largest")

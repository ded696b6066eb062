"""Networks of anybody's that are not what their names say, or point where they should not."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.errors import UsageError
from edgekit.foreign.open import ForeignOptions, open_foreign

ROOT = Path(__file__).parents[2]
OPTIONS = ForeignOptions("imagenet")
ENTITIES = "".join(f'<!ENTITY a{i + 1} "{f"&a{i};" * 4}">' for i in range(20))
SAYS = """
import sys
sys.path[:0] = {path!r}
from edgekit.core.errors import UsageError
from edgekit.foreign.open import ForeignOptions, open_foreign
try:
    open_foreign({name!r}, ForeignOptions("imagenet"))
except UsageError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<net",
        "<other version='11'/>",
        "<net/>",
        "<net version='11'>" * 100_000,
        f"<!DOCTYPE l [<!ENTITY a0 'aaaa'>{ENTITIES}]><net version='11' name='&a20;'></net>",
        "\x00\x01\x02",
        "<net version='11'/>",
    ],
    ids=["empty", "cut", "other", "no version", "deep", "entities", "bytes", "no layers"],
)
def test_what_is_no_ir_gets_one_line_and_nothing_else(text: str, tmp_path: Path) -> None:
    """OpenVINO's readers of other formats wrote to standard error, beside the error."""
    path = tmp_path / "model.xml"
    path.write_text(text)
    path.with_suffix(".bin").write_bytes(b"")
    code = SAYS.format(path=[str(ROOT), *sys.path], name=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert len(done.stdout) < 3000


@pytest.mark.parametrize("place", ["/dev/zero", "/etc/passwd", "../secret", "pipe", "folder", "no"])
def test_weights_outside_of_the_folder_are_not_read(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "network"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(bytes(8 * 3 * 4))
    os.mkfifo(folder / "pipe")
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 8])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=place)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 8])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="ONNX Runtime cannot load") as refused:
        open_foreign(str(folder / "model.onnx"), OPTIONS)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["a.onnx", "a.xml", "a.tflite"])
def test_pipes_and_endless_files_are_not_opened(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / f"zero{name}").symlink_to("/dev/zero")
    for path in (tmp_path / name, tmp_path / f"zero{name}"):
        with pytest.raises(UsageError, match="no classifier at"):
            open_foreign(str(path), OPTIONS)


def test_an_output_of_text_is_no_score(tmp_path: Path) -> None:
    model = helper.make_model(
        helper.make_graph(
            [],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3, 16, 16])],
            [helper.make_tensor_value_info("s", TensorProto.STRING, [1, 9])],
            [numpy_helper.from_array(np.array([[b"\x1b[2J"] * 9], object), "s")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(UsageError, match="is no classifier"):
        open_foreign(str(tmp_path / "a.onnx"), OPTIONS)

"""`edgekit calibrate` on a float ONNX file of another tool: INT8 that any runtime takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import helper

from edgekit.cli.main import main
from edgekit.foreign.open import ForeignOptions, open_foreign
from tests.foreign import classifiers, lies


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def calibrate(model: Path, *words: str | Path) -> int:
    arguments: list[str | Path] = ["calibrate", model, "--data", classifiers.data()]
    if "--preprocessing" not in words:
        arguments += ["--preprocessing", classifiers.preprocessing()]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in (*arguments, *words)])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_the_file_runs_anywhere_and_passes_parity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import openvino

    path = tmp_path / "int8.onnx"
    words = ("--dialect", "onnxruntime", "--json", "-o", path)
    assert calibrate(classifiers.float_onnx(), *words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["guard"]["codes_equal"] is None
    assert document["guard"]["top1_equal"] > 0.9
    model = onnx.load(path)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") >= 2
    assert [value.name for value in model.graph.input] == ["input/pixels:0"]
    assert [value.name for value in model.graph.output] == ["scores"]
    told = lies.parity(path)
    assert told.code == 0, told.document["reasons"]
    elsewhere = tmp_path / "int8.xml"
    openvino.save_model(openvino.convert_model(path), elsewhere)
    images, _ = classifiers.parts()["test"]
    options = ForeignOptions(str(classifiers.preprocessing()))
    answers = [
        open_foreign(str(one), options).run(images[:100]).logits.argmax(axis=1)
        for one in (path, elsewhere, classifiers.float_onnx())
    ]
    assert (answers[0] == answers[1]).mean() > 0.97
    assert (answers[0] == answers[2]).mean() > 0.94


def test_constants_and_unnamed_nodes_are_no_obstacle(tmp_path: Path) -> None:
    model = classifiers.graph(classifiers.network())
    stored = list(model.graph.initializer)
    del model.graph.initializer[:]
    constants = [helper.make_node("Constant", [], [one.name], value=one) for one in stored]
    nodes = [*constants, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert not any(node.name for node in model.graph.node)
    path = tmp_path / "int8.onnx"
    recipe = tmp_path / "quick.toml"
    recipe.write_text("images = 20\nrounding = 'nearest'\nbias_correction = 'none'\n")
    words = ("--recipe", recipe, "-o", path)
    assert calibrate(classifiers.saved(model, "constants.onnx"), *words) == 0
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert "QuantizeLinear" in kinds
    assert "Constant" not in kinds


def old(model: onnx.ModelProto) -> onnx.ModelProto:
    model.opset_import[0].version = 11
    return model


def fed_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """Channels last: transposed first."""
    sides = model.graph.input[0].type.tensor_type.shape.dim
    del sides[:]
    for side in ("batch", classifiers.SIDE, classifiers.SIDE, 3):
        new = sides.add()
        if isinstance(side, int):
            new.dim_value = side
        else:
            new.dim_param = side
    model.graph.node[0].input[0] = "first"
    turned = helper.make_node("Transpose", ["input/pixels:0"], ["first"], perm=[0, 3, 1, 2])
    model.graph.node.insert(0, turned)
    return model


NET = classifiers.network()
REFUSED = {
    "one image(s) at a time": (classifiers.graph(NET, batch=1), "export it with a free batch"),
    "a map": (classifiers.graph(NET, square=True), "one score a class first"),
    "an old opset": (old(classifiers.graph(NET)), "opset 11: export it with opset 13"),
    "channels last": (fed_last(classifiers.graph(NET)), "needs float32 channels first"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_it_does_not_take_is_told_in_a_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, problem = REFUSED[name]
    path = classifiers.saved(model, f"{name.replace(' ', '-')}.onnx")
    assert calibrate(path, "-o", tmp_path / "int8.onnx") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert problem in line
    assert not (tmp_path / "int8.onnx").exists()


def test_int8_is_not_calibrated_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(lies.quantized(), "-o", tmp_path / "again.onnx") == 2
    assert "is quantized already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["best.pth", "--preprocessing", "imagenet"], "--preprocessing is for .onnx files"),
        (["model.onnx", "--backbone", "timm:x"], "--backbone is for checkpoints"),
        (["model.onnx"], "no classifier at model.onnx"),
    ],
)
def test_options_that_do_not_fit(
    words: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", *words, "--data", "x", "-o", str(tmp_path / "int8.onnx")])
    assert stop.value.code == 2
    assert problem in capsys.readouterr().err


def test_preprocessing_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["calibrate", str(classifiers.float_onnx()), "--data", str(classifiers.data())]
    with pytest.raises(SystemExit) as stop:
        main([*words, "-o", str(tmp_path / "int8.onnx")])
    assert stop.value.code == 2
    assert "does not say how its pixels are prepared" in capsys.readouterr().err


def test_its_layers_are_ranked_without_a_codebook(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--sensitivity", "--probe-images", "40", "--json")
    assert calibrate(classifiers.float_onnx(), *words) == 0
    found = json.loads(capsys.readouterr().out)
    layers = {layer["operation"]: layer["clipped"] for layer in found["layers"]}
    assert set(layers) == {"Conv", "Gemm"}
    # The Gemm's range was set before its input was flattened.
    assert all(0 <= share < 0.2 for share in layers.values())

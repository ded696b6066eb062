"""What is read from a file, what is asked of the user, and what is refused."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.data.transforms import IMAGENET
from edgekit.foreign.open import ForeignOptions, is_foreign, open_foreign, written_by_edgekit
from edgekit.foreign.pixels import InputForm, read_preprocessing, settle
from edgekit.foreign.scores import are_probabilities, as_logits, choose_output
from edgekit.foreign.tensors import Tensor
from tests import bundles
from tests.foreign import classifiers

FLOAT = np.dtype(np.float32)


def options(**told: object) -> ForeignOptions:
    return ForeignOptions(**{"preprocessing": str(classifiers.preprocessing()), **told})  # type: ignore[arg-type]


def agree(path: Path | str, **told: object) -> None:
    """The file answers as the network that it holds."""
    images, _ = classifiers.parts()["test"]
    expected = classifiers.network().logits(images[:19])
    found = open_foreign(str(path), options(**told)).run(images[:19]).logits
    shift = (found - expected).mean(axis=1, keepdims=True)  # probabilities forget a constant
    assert np.abs(found - shift - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("batch", ["batch", 1, 8])
def test_any_batch(batch: int | str) -> None:
    model = classifiers.graph(classifiers.network(), batch=batch)
    agree(classifiers.saved(model, f"batch-{batch}.onnx"))


def test_probabilities_and_trailing_axes() -> None:
    model = classifiers.graph(classifiers.network(), softmax=True, square=True)
    path = classifiers.saved(model, "square.onnx")
    assert "probabilities" in open_foreign(str(path), options()).describe()
    images, _ = classifiers.parts()["test"]
    found = open_foreign(str(path), options()).run(images).logits.argmax(axis=1)
    assert (found == classifiers.network().logits(images).argmax(axis=1)).mean() > 0.99


def test_a_background_class_is_left_out() -> None:
    model = classifiers.graph(classifiers.network(), background=True)
    agree(classifiers.saved(model, "background.onnx"), background=True)


def test_weights_beside_the_file_count(tmp_path: Path) -> None:
    model = classifiers.graph(classifiers.network())
    path = tmp_path / "outside.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    agree(path)
    before = open_foreign(str(path), options()).key
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[100] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert open_foreign(str(path), options()).key != before


def test_float16_and_integer_inputs() -> None:
    for kind in (np.float16, np.uint8, np.int8):
        form = InputForm("NHWC", np.dtype(kind), None if kind is np.float16 else 0.5, 3)
        tensor = form.tensor(np.full((2, 3, 4, 5), 7.0, np.float32))
        assert tensor.shape == (2, 4, 5, 3)
        assert tensor.dtype == kind
        assert (tensor == (7 if kind is np.float16 else 17)).all()
    saturated = InputForm("NCHW", np.dtype(np.int8), 1.0, 0).tensor(
        np.full((1, 1, 1, 1), 300.0, np.float32)
    )
    assert saturated.ravel().tolist() == [127]


def test_openvino(tmp_path: Path) -> None:
    import openvino as ov

    path = tmp_path / "foreign.xml"
    model = ov.convert_model(classifiers.float_onnx())
    ov.save_model(model, path)
    agree(path)
    assert "on CPU, f32" in open_foreign(str(path), options()).describe()
    path.with_suffix(".bin").unlink()
    with pytest.raises(UsageError, match=r"lacks its weights: put foreign\.bin beside it"):
        open_foreign(str(path), options())


def test_a_preset_takes_the_size_of_the_file() -> None:
    tensor = Tensor("x", (None, 224, 192, 3), FLOAT)
    preprocessing, form = settle(read_preprocessing("imagenet", "it"), tensor, "it")
    assert preprocessing == dataclasses.replace(IMAGENET, size=(224, 192))
    assert form == InputForm("NHWC", FLOAT, None, 0)
    open_size = Tensor("x", (None, 3, None, None), FLOAT)
    assert settle(read_preprocessing("lite0", "it"), open_size, "it")[0].size == (224, 224)


@pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
def test_timm_says_what_its_own_evaluation_does() -> None:
    asked = read_preprocessing("timm:mobilenetv3_small_100", "it").preprocessing
    assert asked.interpolation == "bicubic"
    assert asked.crop_ratio == 0.875
    assert asked.mean == pytest.approx(IMAGENET.mean)
    with pytest.raises(UsageError, match="timm knows no model 'nothing_like_it'"):
        read_preprocessing("timm:nothing_like_it", "it")
    with pytest.raises(UsageError, match="did you mean 'mobilenetv3_small_100'"):
        read_preprocessing("timm:mobilenet_v3_small_100", "it")


@pytest.mark.parametrize(
    ("text", "shape", "kind", "problem"),
    [
        (None, (1, 3, 8, 8), "f4", "does not say how its pixels are prepared: say so, --pre"),
        ("imagnet", (1, 3, 8, 8), "f4", r"is called 'imagnet' .did you mean 'imagenet'.*: --pre"),
        ("imagenet", (1, 3, 8), "f4", "it is no image classifier: its input is x"),
        ("imagenet", (1, 3, 8, 3), "f4", "where its input .* has the 3 colors is not clear"),
        ("imagenet", (1, 1, 8, 8), "f4", "where its input .* has the 3 colors is not clear"),
        ("imagenet", (1, 3, 8, 8), "u1", "does not say what its steps mean: set scale"),
        ("imagenet", (1, 3, 8, 8), "O", "does not feed inputs of type object"),
    ],
)
def test_what_is_not_told_is_asked_for(
    text: str | None, shape: tuple[int, ...], kind: str, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        settle(read_preprocessing(text, "it"), Tensor("x", shape, np.dtype(kind)), "it")


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("std = [1.0, 1.0, 1.0]", "missing key 'mean'"),
        ("mean = [0.0, 0.0, 0.0]\nstd = [1.0, 0.0, 1.0]", "std must be positive"),
        ("mean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\nsize = [3]", "size must be height and"),
        ("mean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\nscale = 0.0", "scale must be positive"),
        ('mean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\nlayout = "HWC"', "layout"),
        ("mean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\nsize = [9, 9]", "takes images of 8 x 8"),
    ],
)
def test_a_preprocessing_file_names_its_mistakes(tmp_path: Path, lines: str, problem: str) -> None:
    path = tmp_path / "pixels.toml"
    path.write_text(lines)
    with pytest.raises(UsageError, match=problem) as caught:
        settle(read_preprocessing(str(path), "it"), Tensor("x", (1, 3, 8, 8), FLOAT), "it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["engine", "plan", "trt"])
def test_an_engine_is_refused_with_the_way_to_judge_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(b"ftrt")
    options = ForeignOptions("imagenet")
    assert is_foreign(str(path))
    way = f"command:'ssh DEVICE python3 PROGRAM model.{suffix}'"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ToolchainMissing, match=f"this machine has no TensorRT: .*{way}"):
        open_foreign(str(path), options)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(UsageError, match=f"which edgekit does not run: .*{way}"):
        open_foreign(str(path), options)
    with pytest.raises(UsageError, match="no classifier at"):
        open_foreign(str(tmp_path / f"absent.{suffix}"), options)


@pytest.mark.parametrize(
    ("shapes", "name", "problem"),
    [
        ([(None, 10), (None, 10)], None, "several outputs, choose one with --output-name: y0"),
        ([(None, 10)], "scores", "has no output 'scores'"),
        ([(None, 4, 8400)], None, "it is no classifier, its outputs are y0"),
        ([(None, 1)], None, "no classifier"),
        ([(None, None)], None, "no classifier"),
        ([(10,)], None, "no classifier"),
    ],
)
def test_what_is_no_classifier_is_named(
    shapes: list[tuple[int | None, ...]], name: str | None, problem: str
) -> None:
    outputs = [Tensor(f"y{place}", shape, FLOAT) for place, shape in enumerate(shapes)]
    with pytest.raises(UsageError, match=problem):
        choose_output(outputs, name, "it", background=False)


def test_quantized_scores_become_real_numbers() -> None:
    tensor = Tensor("y", (None, 3), np.dtype(np.uint8), 1 / 256, 0)
    scores = choose_output([tensor], None, "it", background=False)
    found = scores.flat(np.array([[0, 64, 192]], np.uint8), "it")
    assert found.tolist() == [[0, 0.25, 0.75]]
    assert are_probabilities(found)
    assert np.isfinite(as_logits(found)).all()
    assert not are_probabilities(np.array([[0.2, 0.3]], np.float32))
    assert not are_probabilities(np.array([[-1.0, 2.0]], np.float32))


def test_two_inputs_are_refused() -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in "ab"]
    node = helper.make_node("Add", ["a", "b"], ["c"])
    result = helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 3, 4, 4])
    model = helper.make_model(
        helper.make_graph([node], "two", values, [result]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    with pytest.raises(UsageError, match=r"no image classifier: its inputs are a .*, b"):
        open_foreign(str(classifiers.saved(model, "two.onnx")), options())


def test_files_that_are_none(tmp_path: Path) -> None:
    for name in ("broken.onnx", "broken.xml", "broken.tflite"):
        path = tmp_path / name
        path.write_bytes(b"not a model at all")
        (tmp_path / "broken.bin").write_bytes(b"")
        with pytest.raises(EdgekitError) as caught:
            open_foreign(str(path), options())
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
    with pytest.raises(UsageError, match="no classifier at"):
        open_foreign(str(tmp_path / "absent.onnx"), options())


def test_whose_files_they_are() -> None:
    assert is_foreign("command:./run")
    assert is_foreign("a/b.tflite")
    assert not is_foreign("build/cpu")
    assert not is_foreign("best.pth")
    assert written_by_edgekit(str(bundles.made().onnx))
    assert not written_by_edgekit(str(classifiers.float_onnx()))


def test_labels_must_be_as_many() -> None:
    with pytest.raises(UsageError, match="has 10 classes and there are 2 labels: give as many"):
        open_foreign(str(classifiers.float_onnx()), options(labels=("a", "b")))

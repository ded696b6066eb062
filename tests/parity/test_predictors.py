import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.core.errors import UsageError
from edgekit.data.transforms import Preprocessing
from edgekit.parity.predictors import check_comparable, open_bundle_predictor, open_graph, open_onnx
from edgekit.runtime.answers import join
from tests import bundles
from tests.parity.models import Coarse, coarse


def test_a_float_onnx_file_answers_as_torch_does() -> None:
    made = bundles.made()
    model = open_onnx(made.onnx)
    pixels = bundles.images(21)  # no multiple of what goes through at a time
    found, expected = model.run(pixels), made.expect(pixels)
    assert np.abs(found.logits - expected.logits.numpy()).max() < 1e-4
    assert expected.code is not None
    assert found.code is not None
    assert np.array_equal(found.code, expected.code.numpy())
    assert found.margin is not None
    assert model.classes == made.card.classes
    assert model.preprocessing == made.card.preprocessing
    assert model.training == "seen=unknown"


@pytest.mark.parametrize(("target", "batch"), [("cpu", 1), ("cpu", 4), ("onnxruntime-cpu", None)])
def test_a_bundle_answers_as_torch_does(target: str, batch: int | None) -> None:
    made = bundles.made()
    model = open_bundle_predictor(bundles.bundle(target, batch=batch))
    pixels = bundles.images(21)
    found, expected = model.run(pixels), made.expect(pixels)
    assert np.abs(found.logits - expected.logits.numpy()).max() < 1e-3
    assert expected.code is not None
    assert found.code is not None
    assert np.array_equal(found.code, expected.code.numpy())
    assert model.classes == made.card.classes


def test_a_pending_engines_graph_answers_as_torch_does() -> None:
    """Whichever form its lookup has; the plugin alone gets back the body that it had."""
    made = bundles.made()
    pixels = bundles.images(21)
    expected = made.expect(pixels)
    assert expected.code is not None
    forms = {"jetson-orin-nano": "plugin", "jetson-thor": "function", "jetson-xavier": "inline"}
    models = {form: open_graph(bundles.bundle(target, "auto")) for target, form in forms.items()}
    for form, model in models.items():
        found = model.run(pixels)
        assert np.abs(found.logits - expected.logits.numpy()).max() < 1e-3, form
        assert found.code is not None
        assert np.array_equal(found.code, expected.code.numpy()), form
        assert model.name.startswith("fp32 graph for TensorRT, onnxruntime ")
    assert models["plugin"].key == models["function"].key  # one's cached answers serve the other
    assert models["plugin"].key != models["inline"].key


def test_a_model_without_codes() -> None:
    made = bundles.made(plain=True)
    answers = open_onnx(made.onnx).run(bundles.images(3))
    assert answers.code is None
    assert answers.margin is None
    assert join([answers, answers]).logits.shape == (6, 7)


def test_codes_of_every_position() -> None:
    made = bundles.made(quantize="spatial")
    answers = open_onnx(made.onnx).run(bundles.images(9))
    assert answers.code is not None
    assert answers.code.shape == (9, 12)


def test_files_that_are_no_reference(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"no model")
    with pytest.raises(UsageError, match="ONNX Runtime cannot load the reference") as error:
        open_onnx(garbage)
    assert "\n" not in str(error.value)
    foreign = onnx.load(bundles.made().onnx)
    del foreign.metadata_props[:]
    path = tmp_path / "foreign.onnx"
    onnx.save(foreign, path)
    with pytest.raises(UsageError, match="was not written by 'edgekit export'"):
        open_onnx(path)


SIZE = Preprocessing(size=(32, 40))
BGR = Preprocessing(size=(32, 32), channel_order="BGR")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (Coarse(np.zeros((9, 64), np.int64)), "9 classes, the candidate 10: they are not the same"),
        (coarse(preprocessing=SIZE), "images of 32 x 40 px, the candidate of 32 x 32 px"),
        (coarse(preprocessing=BGR), r"preprocessing \(channel_order: BGR and RGB\)"),
        (
            coarse(source="bead"),
            "checkpoint bead, the candidate from c0ffee: name the bundle",
        ),
        (coarse(source=""), r"checkpoint \(unknown\), the candidate from c0ffee"),
    ],
)
def test_models_that_cannot_be_compared(reference: Coarse, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        check_comparable(reference, coarse(), allow_different_source=False)
    assert "\n" not in str(error.value)


def test_two_unknown_sources_are_not_taken_for_the_same() -> None:
    with pytest.raises(UsageError, match="add --allow-different-reference"):
        check_comparable(coarse(source=""), coarse(source=""), allow_different_source=False)


def test_insisting_allows_another_source_and_nothing_else() -> None:
    check_comparable(coarse(source="bead"), coarse(), allow_different_source=True)
    with pytest.raises(UsageError, match="preprocessing"):
        check_comparable(coarse(preprocessing=BGR), coarse(), allow_different_source=True)


@dataclasses.dataclass
class Named(Coarse):
    names: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.names


def test_class_names_must_agree_unless_there_are_none() -> None:
    means = coarse().means
    one, two = (Named(means, names=tuple(text)) for text in ("abcdefghij", "abcdXfghij"))
    with pytest.raises(UsageError, match="class 4 is 'e' in the reference and 'X' in the candi"):
        check_comparable(one, two, allow_different_source=False)
    nameless = Named(means, names=tuple(f"class {i}" for i in range(10)))
    check_comparable(nameless, two, allow_different_source=False)

"""Another engine may answer for the float side only as long as it says the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.core.console import Console
from edgekit.parity.compare import run_comparison
from edgekit.parity.document import ParityDocument
from edgekit.parity.engines import (
    FIRST,
    CheckedPredictor,
    EnginesDiffer,
    Quick,
    compare_engines,
    open_reference,
)
from edgekit.parity.options import Gates, ParityOptions
from edgekit.parity.predictors import open_onnx, shares
from edgekit.report import parity_table
from edgekit.runtime.answers import Answers
from tests import bundles
from tests.parity.models import CODES, Coarse, coarse, sweep

ALWAYS, NEVER = np.inf, 0.0  # of the trusted engine's processor time


def checked(trusted: Coarse, quick: Callable[..., Answers], worth: float) -> CheckedPredictor:
    return CheckedPredictor(trusted, "Quick", "quick 1", lambda: Quick(quick, 1), worth)


def test_openvino_answers_as_onnx_runtime_does() -> None:
    made = bundles.made()
    plain, model = open_onnx(made.onnx), open_reference(made.onnx)
    assert isinstance(model, CheckedPredictor)
    assert (model.classes, model.source) == (plain.classes, plain.source)
    model._worth = ALWAYS
    pixels = bundles.images(FIRST + 3 * 21)
    answers = [model.run(pixels[:FIRST])]
    answers += [model.run(pixels[at : at + 21]) for at in range(FIRST, len(pixels), 21)]
    expected = plain.run(pixels)
    for name in ("logits", "code", "margin"):
        found = np.concatenate([getattr(answer, name) for answer in answers])
        assert found == pytest.approx(getattr(expected, name), abs=1e-4)
    report = model.report
    assert (report.answers, report.checked_by) == ("OpenVINO", "float, ONNX Runtime")
    assert report.checked == FIRST + 3 * 2  # places 0 and 16, 1 and 17, 2 and 18 of 21
    assert report.answered == 3 * 21 - 6
    assert report.ties == 0
    assert report.cost is not None


def test_every_place_of_an_image_is_checked_in_turn() -> None:
    """Damage to one variant alone is met within 16 images."""
    trusted = coarse()
    calls = 0

    def quick(images: NDArray[np.uint8]) -> Answers:
        nonlocal calls
        calls += 1
        answers = coarse().run(images)
        if len(images) == 5 and calls > 3:
            answers.logits[3] = answers.logits[3, ::-1]
        return answers

    model = checked(trusted, quick, ALWAYS)
    pixels = np.random.default_rng(0).integers(0, 256, (FIRST, 32, 32, 3)).astype(np.uint8)
    model.run(pixels)
    for _ in range(3):  # the third place has its turn in the fourth
        model.run(pixels[:5])
    with pytest.raises(EnginesDiffer, match=r"top-1|logits differ") as error:
        model.run(pixels[:5])
    assert error.value.trusted is trusted
    assert model.report.answered == 0
    assert "not used" in model.report.note


def test_an_engine_that_is_not_cheaper_is_not_used() -> None:
    asked = 0

    def quick(images: NDArray[np.uint8]) -> Answers:
        nonlocal asked
        asked += len(images)
        return coarse().run(images)

    model = checked(coarse(), quick, NEVER)
    pixels = np.zeros((FIRST, 32, 32, 3), np.uint8)
    for _ in range(4):
        model.run(pixels)
    assert asked == 1 + FIRST  # one to warm up
    report = model.report
    assert (report.answers, report.checked_by, report.answered) == ("coarse", None, 0)
    assert "not used" in report.note


def test_an_engine_that_does_not_open_is_not_used() -> None:
    def fail() -> Quick:
        raise RuntimeError("no such\ninstruction")

    model = CheckedPredictor(coarse(), "Quick", "quick 1", fail)
    pixels = np.zeros((3, 32, 32, 3), np.uint8)
    assert np.array_equal(model.run(pixels).logits, coarse().run(pixels).logits)
    assert model.report.note == "Quick cannot run the float model: no such instruction"


class Heard(Console):
    """Keeps warnings."""

    def __init__(self) -> None:
        super().__init__(verbosity=-1)
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def compared(cache: Path, reference: Any, console: Console) -> dict[str, Any]:
    this = sweep(cache, reference, coarse(key="blind", blind=0.3))
    options = ParityOptions(gates=Gates(90), full=True)
    return run_comparison(this, options, console, codebook_size=CODES).document.to_dict()


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    """Whether two documents say the same, who said it and how long it took aside."""
    aside: tuple[str, ...] = ("reference_engine", "seconds", "cpu_seconds", "measured")
    aside += ("inferences", "inferences_cached")
    return {k: v for k, v in one.items() if k not in aside} == {
        k: v for k, v in two.items() if k not in aside
    }


def test_results_do_not_depend_on_the_engine(tmp_path: Path) -> None:
    alone = compared(tmp_path / "a", coarse(), Console(verbosity=-1))
    assert alone["reference_engine"] is None
    trusted = coarse()
    model = checked(trusted, coarse().run, ALWAYS)
    found = compared(tmp_path / "b", model, Console(verbosity=-1))
    assert same(alone, found)
    assert found["reference"] == "coarse"
    engine = found["reference_engine"]
    assert (engine["answers"], engine["checked_by"]) == ("Quick", "coarse")
    said = "; ".join(parity_table.lines(ParityDocument.from_dict(found, "this test")))
    assert f"Quick answered for coarse, which checked {engine['checked']:,} of 120" in said
    assert engine["answered"] + engine["checked"] == 24 * 5
    assert trusted.asked == engine["checked"] + 1
    # What was kept is used again, whichever engine said it.
    again = checked(coarse(), coarse().run, NEVER)
    later = compared(tmp_path / "b", again, Console(verbosity=-1))
    assert same(alone, later)
    assert later["inferences"] == 0


@pytest.mark.parametrize("after", [0, FIRST + 10])
def test_an_engine_that_differs_is_given_up_loudly(tmp_path: Path, after: int) -> None:
    """At once or later: nothing that it said is in the results, or kept."""
    said = 0

    def quick(images: NDArray[np.uint8]) -> Answers:
        nonlocal said
        answers = coarse().run(images)
        assert answers.code is not None
        said += len(images)
        if said > after + 1:
            answers.code[:] = (answers.code + 1) % CODES
        return answers

    console = Heard()
    found = compared(tmp_path / "b", checked(coarse(), quick, ALWAYS), console)
    assert same(compared(tmp_path / "a", coarse(), Console(verbosity=-1)), found)
    assert len(console.warnings) == 1
    assert "Quick does not agree with 'coarse'" in console.warnings[0]
    assert "starts again with 'coarse' alone" in console.warnings[0]
    assert found["reference"] == "coarse"
    assert found["reference_engine"]["answers"] == "coarse"
    assert found["reference_engine"]["answered"] == 0
    assert "codes differ; not used" in found["reference_engine"]["note"]
    later = Heard()
    asked = coarse()
    compared(tmp_path / "b", checked(asked, quick, ALWAYS), later)
    assert len(later.warnings) == 1  # it is asked again, not trusted for what was kept


def answers(**changes: Any) -> Answers:
    logits = np.array([[1.0, 5, 2], [7, 0, 6.9999]], np.float32)
    plain = Answers(logits, np.array([3, 4]), np.array([2.0, 1e-4], np.float32))
    return plain._replace(**changes)


def test_what_counts_as_a_tie() -> None:
    one = answers()
    assert compare_engines(one, answers(), 2.0) == (compare_engines(one, one, 2.0))
    # The second image's lookup is a tie, and with another codeword other logits follow.
    swapped = np.array([[1.0, 5, 2], [-3, 9, 0]], np.float32)
    tie = compare_engines(one, answers(code=np.array([3, 5]), logits=swapped), 2.0)
    assert (tie.ties, tie.difference) == (1, "")
    # With margins of this size nothing is.
    assert "1 of 2 codes" in compare_engines(one, answers(code=np.array([3, 5])), 0.01).difference
    assert "1 of 2 codes" in compare_engines(one, answers(code=np.array([9, 4])), 2.0).difference
    # So it is where nothing is known of margins.
    unknown = answers(margin=None)
    moved = answers(margin=None, code=np.array([3, 5]))
    assert "1 of 2 codes" in compare_engines(unknown, moved, 2.0).difference
    # Two classes that are a rounding apart may change places, others may not.
    close = np.array([[1.0, 5, 2], [6.9998, 0, 7]], np.float32)
    assert compare_engines(one, answers(logits=close), 2.0).ties == 1
    far = np.array([[1.0, 5, 2], [6.9960, 0, 6.9970]], np.float32)
    assert compare_engines(one, answers(logits=far), 2.0).difference == ""  # a tie, still
    wide = answers(logits=np.array([[1.0, 5, 2], [7, 0, 6.996]], np.float32))
    assert "1 of 2 top-1" in compare_engines(wide, answers(logits=far), 2.0).difference


@pytest.mark.parametrize("value", [np.nan, np.inf, 5.1])
def test_logits_that_differ(value: float) -> None:
    logits = answers().logits.copy()
    logits[0, 1] = value
    found = compare_engines(answers(), answers(logits=logits), 2.0)
    assert "logits" in found.difference


def test_spatial_codes_are_compared_one_by_one() -> None:
    codes = np.arange(8).reshape(2, 4)
    margins = np.full((2, 4), 1.0, np.float32)
    margins[1, 2] = 1e-5
    one = answers(code=codes, margin=margins)
    other = codes.copy()
    other[1, 2] = 77
    assert compare_engines(one, answers(code=other, margin=margins), 1.0).ties == 1
    other[1, 3] = 77
    found = compare_engines(one, answers(code=other, margin=margins), 1.0)
    assert found.difference == "1 of 8 codes differ"


@pytest.mark.parametrize(
    ("count", "chunk", "parallel", "pieces"),
    [(76, 8, 2, 10), (31, 8, 2, 4), (31, 8, 16, 16), (20, 8, 2, 4), (3, 8, 16, 3), (5, 1, 1, 5)],
)
def test_images_are_shared_out_evenly(count: int, chunk: int, parallel: int, pieces: int) -> None:
    assert shares(count, chunk, parallel) == pieces
    sizes = [len(part) for part in np.array_split(np.arange(count), pieces)]
    assert min(sizes) >= 1
    assert max(sizes) <= chunk

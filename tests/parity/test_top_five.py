"""Top-5 errors beside top-1, and how near answers are apart from being right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.core.console import Console
from edgekit.metrics.intervals import agreement_interval
from edgekit.parity.answer_cache import condense
from edgekit.parity.closeness import ClosenessTally, suspicions
from edgekit.parity.compare import run_comparison
from edgekit.parity.document import Closeness, Estimate, ParityDocument
from edgekit.parity.options import Gates, ParityOptions
from edgekit.parity.sweep import ImagePair
from edgekit.parity.top_five import TopFiveTally, outside_top_five
from edgekit.report import parity_table
from edgekit.runtime.answers import Answers
from tests.parity import example
from tests.parity.models import CELLS, Coarse, coarse, images, sweep

_ALL = tuple(range(1 + CELLS.count))


def pair(
    label: int,
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    numbers: tuple[int, ...] = _ALL,
) -> ImagePair:
    one, two = (condense(Answers(scores, None, None)) for scores in (reference, candidate))
    return ImagePair(label, numbers, one, two, 0, 0)


def scores(seed: int, count: int = len(_ALL)) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 3, (count, 120)).astype(np.float32)


def test_it_counts_as_sorting_does() -> None:
    values = scores(1, 200)
    outputs = condense(Answers(values, None, None))
    for label in (0, 60, 119):
        best = np.argsort(-values, axis=1)[:, :5]
        assert (outside_top_five(outputs, label) == ~(best == label).any(axis=1)).all()


def test_equal_scores_go_to_the_first_classes() -> None:
    outputs = condense(Answers(np.zeros((1, 120), np.float32), None, None))
    assert [bool(outside_top_five(outputs, label)[0]) for label in range(7)] == [False] * 5 + [
        True
    ] * 2


def test_errors_and_their_paired_change() -> None:
    tally = TopFiveTally(CELLS)
    wrong = np.zeros((2, len(_ALL)))
    for image in range(40):
        reference, candidate = scores(image), scores(image)
        label = int(np.argsort(-reference[0])[image % 7])  # in the top five of the clean variant
        candidate[1:] = scores(1000 + image, len(_ALL) - 1)
        for row, values in enumerate((reference, candidate)):
            best = np.argsort(-values, axis=1)[:, :5]
            wrong[row] += ~(best == label).any(axis=1)
        tally.add(pair(label, reference, candidate))
    found = tally.result()
    assert found is not None
    assert found.clean.reference == pytest.approx(100 * wrong[0, 0] / 40)
    assert found.clean.delta == 0
    assert found.clean.lower < 0 < found.clean.upper
    assert found.corrupted.reference == pytest.approx(100 * wrong[0, 1:].mean() / 40)
    assert found.corrupted.candidate == pytest.approx(100 * wrong[1, 1:].mean() / 40)
    change = found.corrupted.candidate - found.corrupted.reference
    assert found.corrupted.delta == pytest.approx(change)
    assert found.corrupted.lower < change < found.corrupted.upper


def test_images_may_have_gone_through_part_of_the_cells() -> None:
    tally = TopFiveTally(CELLS)
    for image in range(20):
        numbers = (0, 1 + image % 2, 3 + image % 2)
        values = scores(image, 3)
        label = int(values[1].argmin())  # the candidate is wrong where the reference is
        tally.add(pair(label, values, values, numbers))
    found = tally.result()
    assert found is not None
    assert found.corrupted.delta == 0
    assert found.corrupted.reference > 40


class Many(Coarse):
    """A hundred classes, of which the images show ten."""

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(map(str, range(100)))

    def run(self, images: NDArray[np.uint8]) -> Answers:
        shown = super().run(images)
        others = np.repeat(shown.logits.mean(axis=1, keepdims=True), 90, axis=1)
        others -= np.arange(90, dtype=np.float32)
        return Answers(np.concatenate([shown.logits, others], axis=1), None, None)


def compared(cache: Path, candidate: Coarse) -> ParityDocument:
    reference = Many(coarse().means, key="many")
    this = sweep(cache, reference, candidate, dataset=images(40))
    options = ParityOptions(gates=Gates(1.0), full=True)
    return run_comparison(this, options, Console(verbosity=-1)).document


def test_the_document_and_the_table_have_it_from_100_classes_on(tmp_path: Path) -> None:
    found = compared(tmp_path, Many(coarse().means, key="blind", blind=0.7))
    errors = found.top5_error
    assert errors is not None
    assert found.corruption_error is not None
    assert errors.corrupted.reference < found.corruption_error.reference
    assert errors.corrupted.delta > 0
    rows = parity_table.rows(found)
    assert [row[0] for row in rows[-3:-1]] == ["clean, top-5", "corrupted, top-5"]
    both = errors.corrupted.reference, errors.corrupted.candidate
    assert rows[-2][1:3] == [f"{error:.2f}" for error in both]
    again = ParityDocument.from_dict(json.loads(json.dumps(found.to_dict())), "this test")
    assert again.top5_error == errors


def test_with_ten_classes_there_is_none(tmp_path: Path) -> None:
    this = sweep(tmp_path, coarse(), coarse(key="blind", blind=0.7))
    found = run_comparison(this, ParityOptions(full=True), Console(verbosity=-1)).document
    assert found.top5_error is None
    assert not any("top-5" in row[0] for row in parity_table.rows(found))


def test_a_document_of_an_earlier_release_is_read() -> None:
    old = {
        name: value
        for name, value in example.document().to_dict().items()
        if name not in ("closeness", "top5_error", "warnings")
    }
    found = ParityDocument.from_dict(json.loads(json.dumps(old)), "this test")
    assert found.closeness is None
    assert found.top5_error is None
    assert any(line.startswith("same class: clean 99.00%") for line in parity_table.lines(found))
    assert suspicions(found) == ()


def test_scores_are_compared_without_what_softmax_drops() -> None:
    tally, larger = ClosenessTally(), ClosenessTally()
    for image in range(10):
        values = scores(image)
        tally.add(pair(0, values, values + 7))
        larger.add(pair(0, values, np.float32(1.1) * values))
    close, scaled = tally.result(), larger.result()
    assert close.scores_rms_clean < 2e-3  # half precision
    assert scaled.scores_rms_clean == pytest.approx(0.1, abs=2e-3)
    assert scaled.scores_rms_corrupted == pytest.approx(0.1, abs=2e-3)
    assert scaled.same_class_clean.estimate == 1  # no winner changed


def test_agreement_on_clean_images_has_an_interval() -> None:
    tally = ClosenessTally()
    for image in range(50):
        tally.add(pair(0, scores(image), scores(image if image % 10 else 500 + image)))
    same = tally.result().same_class_clean
    expected = agreement_interval(np.array([image % 10 != 0 for image in range(50)], np.float64))
    assert same == Estimate(expected.estimate, expected.lower, expected.upper)


@pytest.mark.parametrize(
    ("close", "words"),
    [
        (Closeness(Estimate(0.99, 0.97, 1.0), 0.03, 0.04), ()),
        (Closeness(Estimate(0.9, 0.85, 0.94), 0.03, 0.04), ("10.0% of clean images",)),
        (Closeness(Estimate(0.99, 0.97, 1.0), 0.03, 0.11), ("off by 11%",)),
        (
            Closeness(Estimate(0.9, 0.85, 0.94), 0.5, 0.4),
            ("10.0% of clean images", "off by 50%"),
        ),
    ],
)
def test_what_good_rounding_does_not_do_is_told(close: Closeness, words: tuple[str, ...]) -> None:
    usual = example.document()
    assert usual.top1_agreement is not None
    same = dataclasses.replace(usual.top1_agreement, corrupted=Estimate(0.98, 0.97, 0.99))
    found = suspicions(dataclasses.replace(usual, closeness=close, top1_agreement=same))
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))


def test_agreement_under_corruption_counts_too() -> None:
    close = Closeness(Estimate(0.99, 0.97, 1.0), 0.03, 0.04)
    usual = example.document()
    assert usual.top1_agreement is not None
    same = dataclasses.replace(usual.top1_agreement, corrupted=Estimate(0.9, 0.8, 0.94))
    (line,) = suspicions(dataclasses.replace(usual, closeness=close, top1_agreement=same))
    assert "10.0% of corrupted images" in line

"""Which answers changed, and the pictures of them."""

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.data.corruption_grid import Cells, MakeVariants
from edgekit.data.encode import jpeg
from edgekit.parity.answer_cache import Outputs
from edgekit.parity.changes import PER_CELL, Changes
from edgekit.parity.compare import Comparison, run_comparison
from edgekit.parity.example_images import examples_of, make_examples
from edgekit.parity.examples import Examples, Picture
from edgekit.parity.options import Gates, ParityOptions
from edgekit.parity.sweep import ImagePair
from tests.parity.models import CELLS, CODES, PREPROCESSING, coarse, images, sweep

QUIET = Console(verbosity=-1)
NUMBERS = (0, 1, 2, 3, 4)  # clean, two corruptions at two severities


def compared(
    cache: Path, blind: float = 0.5, *, labeled: bool = True, count: int = 60
) -> Comparison:
    """The whole sweep of a model that does not see a part of the picture."""
    candidate = coarse(key=f"blind {blind}", blind=blind)
    this = sweep(cache, coarse(), candidate, dataset=images(count))
    options = ParityOptions(gates=Gates(1.0), full=True)
    return run_comparison(this, options, QUIET, labeled=labeled, codebook_size=CODES, worst=1000)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compared(tmp_path_factory.mktemp("cache"))


def pair(label: int, before: list[int], after: list[int], sure: float, row: int = 0) -> ImagePair:
    """Answers to all variants of an image; the models give the rest to all other classes."""

    def outputs(tops: list[int]) -> Outputs:
        p = np.full((len(tops), 4), (1 - sure) / 3)
        p[np.arange(len(tops)), tops] = sure
        return Outputs(np.array(tops), np.log(p).astype(np.float16), None, None)

    return ImagePair(label, NUMBERS, outputs(before), outputs(after), 0, row)


def test_losses_come_first_and_of_these_the_most_confident() -> None:
    changes = Changes(CELLS, labeled=True, coded=False, most=4)
    changes.add(pair(1, [1, 1, 1, 1, 1], [1, 2, 1, 1, 1], 0.6, row=10))  # lost
    changes.add(pair(1, [0, 0, 0, 0, 0], [0, 0, 1, 2, 0], 0.99, row=11))  # gained, moved
    changes.add(pair(1, [1, 1, 1, 1, 1], [1, 1, 1, 1, 3], 0.9, row=12))  # lost
    changes.add(pair(1, [1, 1, 1, 1, 1], [0, 1, 1, 1, 1], 0.6, row=13))  # lost, clean
    assert changes.counts == {"lost": 3, "moved": 1, "gained": 1, "same": 15}
    assert (changes.changed, changes.answers) == (5, 20)
    worst = changes.worst()
    assert [(one.row, one.number, one.kind) for one in worst] == [
        (12, 4, "lost"),
        (10, 1, "lost"),  # as confident as the next, and earlier
        (13, 0, "lost"),
        (11, 3, "moved"),
    ]
    assert worst[0].drop == pytest.approx(0.9 - 0.1 / 3, abs=1e-3)
    assert changes.shares().tolist() == [0.25, 0.25, 0.25, 0.25, 0.25]
    assert [one.row for one in changes.worst_of(4)] == [12]
    assert [one.row for one in changes.first_of(2)] == [10, 11, 12]


def test_without_labels_nothing_is_lost_and_none_are_kept_unasked() -> None:
    changes = Changes(CELLS, labeled=False, coded=False)
    changes.add(pair(1, [1, 1, 1, 1, 1], [1, 2, 1, 1, 1], 0.6))
    assert changes.counts == {"lost": 0, "moved": 1, "gained": 0, "same": 4}
    assert changes.worst() == []
    assert [one.label for one in changes.worst_of(1)] == [None]


def test_they_are_the_sweep_s_own_outcomes(comparison: Comparison) -> None:
    """Against the definition, over every answer of the sweep."""
    changes, expected = comparison.changes, []
    for one in comparison.sweep.pairs():
        for place, number in enumerate(one.numbers):
            before, after = one.reference.top[place], one.candidate.top[place]
            if before != after:
                expected.append((one.row, number, int(before), int(after)))
    assert expected
    worst = changes.worst()
    found = [(w.row, w.number, w.reference.top, w.candidate.top) for w in worst]
    assert sorted(found) == sorted(expected)
    drops = [one.drop for one in worst if one.kind == "lost"]
    assert drops == sorted(drops, reverse=True)
    kinds = [one.kind for one in worst]
    assert kinds == sorted(kinds, key=("lost", "moved", "gained").index)
    document = comparison.document
    assert document.top1_agreement is not None
    clean = 1 - document.top1_agreement.clean
    assert changes.shares()[0] == pytest.approx(clean)
    assert changes.answers == document.images * len(NUMBERS)


def test_pictures_are_what_the_models_saw(comparison: Comparison) -> None:
    outcome = next(one for one in comparison.changes.worst() if one.number)
    (example,) = make_examples(comparison, [outcome])
    this = comparison.sweep
    pixels = this.make(this.dataset, (outcome.row, (0, outcome.number)))
    for picture, exact in zip((example.clean, example.corrupted), pixels, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(picture.data())), np.float64)
        assert (picture.height, picture.width) == shown.shape[:2] == exact.shape[:2]
        assert np.abs(shown - exact).mean() < 8
    name, severity = this.make.cells.pairs[outcome.number - 1]
    assert (example.corruption, example.severity) == (name, severity)
    assert example.image == this.dataset.key(outcome.row)
    assert example.label == this.dataset.classes[this.dataset.label(outcome.row)]
    said = this.candidate.run(pixels[1:])
    assert example.corrupted.candidate.name == this.candidate.classes[int(said.logits.argmax())]
    p = np.exp(said.logits[0] - said.logits.max())
    assert example.corrupted.candidate.probability == pytest.approx(p.max() / p.sum(), abs=2e-3)
    assert said.code is not None
    assert example.corrupted.codes is not None
    assert example.corrupted.codes.candidate == int(said.code[0])


def test_the_worst_cell_and_a_random_one(comparison: Comparison, tmp_path: Path) -> None:
    examples = examples_of(comparison)
    worst, other = examples.cells
    assert (worst.why, other.why) == ("worst", "random")
    changes = comparison.document.per_corruption
    assert changes is not None
    lost = {
        (name, level): change.errors.candidate[place] - change.errors.reference[place]
        for name, change in changes.items()
        for place, level in enumerate(CELLS.severities)
    }
    assert lost[worst.corruption, worst.severity] == max(lost.values())
    assert (other.corruption, other.severity) != (worst.corruption, worst.severity)
    for cell in examples.cells:
        assert 0 < len(cell.examples) <= PER_CELL
        for one in cell.examples:
            assert (one.corruption, one.severity) == (cell.corruption, cell.severity)
    for one in worst.examples:
        assert one.corrupted.reference.name != one.corrupted.candidate.name
    assert Examples.from_dict(examples.to_dict(), "here") == examples
    again = examples_of(compared(tmp_path))
    assert dataclasses.replace(again, measured=examples.measured) == examples


def test_equal_models_and_images_without_labels_have_examples_too(tmp_path: Path) -> None:
    same = examples_of(compared(tmp_path, 0.0, count=6))
    assert [cell.changed for cell in same.cells] == [0, 0]
    assert all(len(cell.examples) == PER_CELL for cell in same.cells)
    unlabeled = examples_of(compared(tmp_path, labeled=False, count=20))
    for cell in unlabeled.cells:
        for one in cell.examples:
            assert (one.label, one.clean.reference.right) == (None, None)
    worst = unlabeled.cells[0]
    assert worst.changed >= max(cell.changed for cell in unlabeled.cells)


def test_a_single_cell_is_its_own_example(tmp_path: Path) -> None:
    cells = Cells(("fog",), (3,))
    make = MakeVariants(PREPROCESSING, cells)
    this = sweep(tmp_path, coarse(), coarse(key="b", blind=0.5), dataset=images(5), make=make)
    options = ParityOptions(gates=Gates(1.0), severities=(3,), full=True)
    examples = examples_of(run_comparison(this, options, QUIET))
    assert [(cell.why, cell.corruption) for cell in examples.cells] == [("worst", "fog")]


def test_what_is_no_small_picture_is_refused(comparison: Comparison) -> None:
    stored = examples_of(comparison).to_dict()
    one = stored["cells"][0]["examples"][0]["clean"]
    for wrong in ("", "aGVsbG8=", '/9j/"><script>', one["jpeg"][:40] + "\n", "\N{BALLOT X}"):
        with pytest.raises(UsageError, match="no JPEG in base64"):
            Picture(**{**one, "jpeg": wrong})
    one["jpeg"] = base64.b64encode(base64.b64decode(one["jpeg"]) + bytes(1_200_000)).decode()
    with pytest.raises(UsageError, match=r"pictures take more than 1,500,000 bytes.*again"):
        Examples.from_dict(stored, "examples.json")


def test_the_largest_pictures_fit_the_page() -> None:
    """Noise is the worst for JPEG, and six pictures of twelve may be of it."""
    noise = np.random.default_rng(0).integers(0, 256, (500, 400, 3)).astype(np.uint8)
    picture = jpeg(noise, 224)
    assert (picture.width, picture.height) == (179, 224)
    square = jpeg(noise[:224, :224], 224)
    assert len(square.data) > 50_000
    assert 12 * len(square.data) * 4 / 3 < 1_500_000

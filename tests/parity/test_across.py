"""Several models on the same images: against plain NumPy, and who stands out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.data.corruption_grid import MakeVariants
from edgekit.foreign.execution import Execution
from edgekit.parity.across import Entry, run_across
from edgekit.parity.across_document import AcrossDocument
from edgekit.parity.agreement import Agreements
from edgekit.parity.answer_cache import Outputs
from edgekit.parity.options import Gates, ParityOptions
from edgekit.parity.sweep import ImageAnswers, Lineup
from edgekit.report.across_table import error_rows, failure, matrix, pair_rows, show
from tests import terminals
from tests.parity.models import CELLS, PREPROCESSING, Coarse, coarse, images

QUIET = Console(verbosity=-1)


def lineup(cache: Path, *models: Coarse) -> Lineup:
    return Lineup(images(24), MakeVariants(PREPROCESSING, CELLS), models, cache, 0, workers=0)


def three() -> tuple[Coarse, ...]:
    """One that sees all, one that misses a little, one that misses most of every image."""
    return tuple(
        coarse(name=f"blind {blind}", key=f"blind {blind}", blind=blind)
        for blind in (0.0, 0.125, 0.75)
    )


def across(
    models: Lineup, *, full: bool = True, reference: int = 0, tolerance: float = 5.0
) -> AcrossDocument:
    entries = tuple(
        Entry(model.name, "32 x 32 px", Execution("NumPy", ("CPU",))) for model in models.models
    )
    options = ParityOptions(full=full, gates=Gates(tolerance))
    return run_across(models, entries, options, QUIET, reference=reference)


def test_figures_are_those_of_plain_numpy(tmp_path: Path) -> None:
    models = lineup(tmp_path, *three())
    document = across(models)
    numbers = tuple(range(1 + CELLS.count))
    pixels = [models.make(models.dataset, (index, numbers)) for index in range(24)]
    tops = np.stack(
        [[model.run(image).logits.argmax(axis=1) for image in pixels] for model in three()]
    )  # [models, images, variants]
    labels = np.array([models.dataset.label(index) for index in range(24)])
    wrong = tops != labels[None, :, None]
    for pair in document.agreement:
        one, other = (ord(letter) - ord("A") for letter in (pair.one, pair.other))
        same = tops[one] == tops[other]
        assert pair.clean.estimate == pytest.approx(same[:, 0].mean())
        assert pair.corrupted.estimate == pytest.approx(same[:, 1:].mean())
        assert pair.corrupted.lower <= pair.corrupted.estimate <= pair.corrupted.upper
    errors = 100 * wrong[:, :, 1:].mean(axis=(1, 2))
    for artifact, clean, corrupted in zip(
        document.artifacts, 100 * wrong[:, :, 0].mean(axis=1), errors, strict=True
    ):
        assert artifact.clean_error == pytest.approx(clean)
        assert artifact.corruption_error == pytest.approx(corrupted)
        change = artifact.change
        if change is None:
            assert artifact.letter == document.reference == "A"
        else:
            assert change.delta == pytest.approx(corrupted - errors[0])
            assert change.lower <= change.delta <= change.upper
    assert AcrossDocument.from_dict(document.to_dict(), "here") == document


def test_nothing_is_inferred_twice(tmp_path: Path) -> None:
    models = three()
    copy = dataclasses.replace(models[0], name="a copy of the first")
    document = across(lineup(tmp_path, *models, copy))
    assert [model.asked for model in (*models, copy)] == [24 * 5] * 3 + [0]
    assert document.inferences == 3 * 24 * 5
    again = across(lineup(tmp_path, *models, copy), full=False)
    assert [model.asked for model in models] == [24 * 5] * 3
    assert again.inferences == 0
    assert again.inferences_cached > 0


def test_the_reference_keeps_its_place(tmp_path: Path) -> None:
    first, second, third = three()
    document = across(lineup(tmp_path, second, first, third), reference=1)
    assert document.reference == "B"
    assert [one.name for one in document.artifacts] == ["blind 0.0", "blind 0.125", "blind 0.75"]
    assert document.artifact("B").verdict is None
    assert document.verdict == "fail"
    assert "C (blind 0.75)" in failure(document)


def test_early_stopping_saves_images(tmp_path: Path) -> None:
    document = across(lineup(tmp_path, *three()[:2]), full=False, tolerance=90)
    assert document.verdict == "pass"
    assert document.saved > 0.5
    assert "of two, either may be the odd one" in document.odd_one_out.sentence


@pytest.mark.parametrize("width", [40, 80])
def test_it_fits_a_terminal(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    width: int,
) -> None:
    document = across(lineup(tmp_path, *three()))
    terminals.pretend(monkeypatch, width)
    show(Console(), document)
    text = terminals.uncolored(capsys.readouterr().out).splitlines()
    assert max(map(len, text)) <= width
    assert text[0] == "A  blind 0.0 (reference)"
    rows = matrix(document)
    assert [row[0] for row in rows] == ["A", "B", "C"]
    assert rows[0][3] == f"{100 * document.agreement[1].corrupted.estimate:.2f}"
    assert rows[2][1] == f"{100 * document.agreement[1].clean.estimate:.2f}"
    assert len(pair_rows(document)) == len(error_rows(document)) == 3


def answers(*tops: list[int]) -> ImageAnswers:
    """One image's winners, of every model."""
    outputs = tuple(
        Outputs(np.array(top), np.zeros((len(top), 3), np.float16), None, None) for top in tops
    )
    return ImageAnswers(0, tuple(range(len(tops[0]))), outputs, 0, 0)


def agreements(model_tops: NDArray[np.int64]) -> Agreements:
    """Of winners [models, images, variants]."""
    found = Agreements(tuple("ABCDEF"[: len(model_tops)]))
    for image in range(model_tops.shape[1]):
        found.add(answers(*(tops[image].tolist() for tops in model_tops)))
    return found


def noisy(shares: list[float], count: int, seed: int = 0) -> NDArray[np.int64]:
    """Models that leave the truth on these shares of the images' variants."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 10, (count, 4))
    tops = [
        np.where(random.random(truth.shape) < share, 10 + row, truth)
        for row, share in enumerate(shares)
    ]
    return np.stack(tops)


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_the_odd_one_out_is_found(place: int, stopped: bool) -> None:
    shares = [0.02] * 4
    shares[place] = 0.4
    found = agreements(noisy(shares, 300)).odd_one_out(stopped=stopped)
    assert found is not None
    assert found.model == place
    assert found.kind == "corrupted"


def test_one_that_is_odd_on_clean_images_alone() -> None:
    tops = noisy([0.0, 0.0, 0.0], 300)
    tops[1, :150, 0] = 50
    found = agreements(tops).odd_one_out(stopped=False)
    assert found is not None
    assert (found.model, found.kind) == (1, "clean")


@pytest.mark.parametrize(
    ("shares", "count"),
    [
        ([0.02, 0.4], 300),  # of two, neither
        ([0.1, 0.1, 0.1], 300),  # alike
        ([0.02, 0.02, 0.4, 0.4], 300),  # two of them
        ([0.02, 0.02, 0.2], 10),  # too few images
    ],
)
def test_none_stands_out(shares: list[float], count: int) -> None:
    for stopped in (False, True):
        assert agreements(noisy(shares, count)).odd_one_out(stopped=stopped) is None


def test_equal_models_rarely_stand_out() -> None:
    found = [
        agreements(noisy([0.2, 0.2, 0.2], 60, seed)).odd_one_out(stopped=False)
        for seed in range(100)
    ]
    assert sum(odd is not None for odd in found) <= 5


def test_no_number_is_no_class() -> None:
    with pytest.raises(EdgekitError, match="B returned NaN or infinite logits for 1 of 2"):
        Agreements(("A", "B")).add(answers([1, 2], [1, -1]))

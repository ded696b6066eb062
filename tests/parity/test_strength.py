"""Which comparison stands as a bundle's evidence."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.documents import DocumentError
from edgekit.parity.document import ParityDocument
from edgekit.parity.options import Gates
from edgekit.parity.strength import MOST_BESIDE, settle, strength, why_beside
from tests.parity.example import document
from tests.preorder import assert_total_preorder

GATES = st.builds(
    Gates,
    tolerance=st.sampled_from([0.1, 0.5, 5.0]),
    min_code_agreement=st.sampled_from([None, 0.9, 0.99]),
    min_agreement=st.sampled_from([None, 0.95, 0.99]),
    max_corruption_delta=st.sampled_from([None, 1.0, 3.0]),
)


@st.composite
def documents(draw: st.DrawFn) -> ParityDocument:
    """Comparisons that ask for more and for less, whatever they found."""
    available = draw(st.sampled_from([20, 100, 1000]))
    return document(
        labeled=draw(st.booleans()),
        available=available,
        images=draw(st.integers(2, available)),
        gates=draw(GATES),
        full=draw(st.booleans()),
        corruptions=draw(st.sampled_from([("fog",), ("fog", "snow"), ("gaussian_noise", "fog")])),
        severities=draw(st.sampled_from([(1,), (1, 3), (5,), (1, 2, 3, 4, 5)])),
        seed=draw(st.sampled_from([0, 0, 0, 1])),
        device=draw(st.sampled_from([None, None, "nano"])),
        measured=draw(st.sampled_from(["2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"])),
        worst=(),
    )


@given(documents(), documents(), documents())
@settings(deadline=None, max_examples=50)
def test_ranks_are_a_total_preorder(
    one: ParityDocument, two: ParityDocument, three: ParityDocument
) -> None:
    assert_total_preorder(strength(one), strength(two), strength(three))


@given(st.lists(documents(), min_size=1, max_size=20))
@settings(deadline=None, max_examples=50)
def test_no_order_of_runs_lowers_the_evidence(runs: list[ParityDocument]) -> None:
    """And every look is counted, whatever became of it."""
    standing = None
    for number, run in enumerate(runs, 1):
        before = standing
        standing, why = settle(before, run)
        assert standing.looks == number
        assert len(standing.beside) <= MOST_BESIDE
        if before is None:
            continue
        assert strength(standing).at_least(strength(before))
        assert strength(standing).rank >= strength(before).rank
        assert standing.images_available >= before.images_available
        assert (why is None) == (why_beside(run, before) is None)
        asked = [look.asked for look in standing.beside] + [standing.asked]
        assert run.asked in asked or len(standing.beside) == MOST_BESIDE


@given(documents())
@settings(deadline=None, max_examples=50)
def test_documents_and_summaries_are_read_back(found: ParityDocument) -> None:
    standing, _ = settle(document(available=50), found)
    for whole in (found, standing):
        text = json.dumps(whole.to_dict(), allow_nan=False)
        assert ParityDocument.from_dict(json.loads(text), "a test") == whole
        assert ParityDocument.from_dict(whole.summary(), "a test").summary() == whole.summary()


def test_a_throw_away_run_goes_beside_the_proof() -> None:
    proof = document(images=723, available=1000, verdict="pass", gates=Gates(0.5))
    glance = document(images=20, available=20, verdict="undecided")
    standing, why = settle(proof, glance)
    assert why == "it may use 20 images, not 1,000"
    assert (standing.verdict, standing.images, standing.looks) == ("pass", 723, 2)
    (look,) = standing.beside
    assert (look.verdict, look.images, look.why) == ("undecided", 20, why)
    again, _ = settle(standing, glance)
    assert (len(again.beside), again.looks) == (1, 3)  # the same again is kept once, and counted
    forced, why = settle(again, glance, replace=True)
    assert why is None
    assert (forced.verdict, forced.looks) == ("undecided", 4)
    (left,) = forced.beside  # what it replaced is still told
    assert (left.verdict, left.images) == ("pass", 723)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"gates": Gates(5.0)}, "its tolerance is 5, not 0.5"),
        ({"seed": 3}, "with another seed"),
        ({"data": "other photos"}, "on other images"),
        ({"device": "nano"}, "on another device"),
        ({"same_source": False}, "with another reference"),
        ({"severities": (1,)}, "leaves out corruptions or severities"),
        ({"labeled": False}, "no labels"),
    ],
)
def test_what_is_easier_or_something_else_goes_beside(changes: dict[str, Any], why: str) -> None:
    _, said = settle(document(), document(available=100_000, **changes))
    assert said is not None
    assert why in said


def test_stronger_evidence_takes_the_place() -> None:
    first = document(images=20, available=20)
    for stronger in (
        document(available=1000),
        document(available=20, full=True),
        document(available=20, gates=Gates(0.1, min_code_agreement=0.9)),
    ):
        standing, why = settle(first, stronger)
        assert why is None
        assert dataclasses.replace(standing, looks=1, beside=()) == stronger
        assert [look.images for look in standing.beside] == [20]


def test_another_schema_is_refused_with_the_command_that_makes_it_anew() -> None:
    older = {**document().to_dict(), "schema": 1}
    with pytest.raises(DocumentError, match=r"has schema 1, .* reads 2: run 'edgekit parity'"):
        ParityDocument.from_dict(older, "parity.json")

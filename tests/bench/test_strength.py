"""Which measurement stands as a bundle's evidence."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.bench.conditions import Cores
from edgekit.bench.document import BenchDocument, DeviceName
from edgekit.bench.interleaved import Ratio
from edgekit.bench.options import SCENARIOS, USUAL, BenchOptions
from edgekit.bench.strength import MOST_BESIDE, section, settle, strength, why_beside
from edgekit.core.documents import DocumentError
from tests.bench import example
from tests.preorder import assert_total_preorder

document = example.document


@st.composite
def documents(draw: st.DrawFn) -> BenchDocument:
    """Measurements that set out to do more and less."""
    return document(
        BenchOptions(
            scenarios=draw(st.sampled_from([("latency",), USUAL, SCENARIOS, ("memory",)])),
            seconds=draw(st.sampled_from([1.0, 10.0, 30.0])),
            minutes=draw(st.sampled_from([1.0, 5.0])),
            batch=draw(st.sampled_from([None, None, 8])),
            threads=draw(st.sampled_from([None, None, 1])),
            layers=draw(st.booleans()),
        ),
        baselines=draw(st.sampled_from([(), ("float",), ("float", "another")])),
        device=draw(st.sampled_from([None, None, DeviceName("nano", "nano.local")])),
    )


@given(documents(), documents(), documents())
@settings(deadline=None, max_examples=50)
def test_ranks_are_a_total_preorder(
    one: BenchDocument, two: BenchDocument, three: BenchDocument
) -> None:
    assert_total_preorder(strength(one), strength(two), strength(three))


@given(st.lists(documents(), min_size=1, max_size=20))
@settings(deadline=None, max_examples=50)
def test_no_order_of_runs_lowers_the_evidence(runs: list[BenchDocument]) -> None:
    """And every run is counted, whatever became of it."""
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
        assert standing.device == before.device
        assert (why is None) == (why_beside(run, before) is None)


@given(documents(), documents())
@settings(deadline=None, max_examples=50)
def test_documents_are_read_back(one: BenchDocument, two: BenchDocument) -> None:
    standing, _ = settle(one, two)
    text = json.dumps(standing.to_dict(), allow_nan=False)
    assert BenchDocument.from_dict(json.loads(text), "a test") == standing


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seconds": 1.0}, "it took 1 s, not 10"),
        ({"scenarios": ("latency",)}, "it leaves out cold-start, memory, throughput"),
        ({"threads": 1}, "its batch or threads are not the bundle's own"),
        ({"layers": False}, "it leaves out the layers"),
    ],
)
def test_a_throw_away_run_goes_beside(changes: dict[str, Any], why: str) -> None:
    proof = document(BenchOptions(layers=True))
    standing, said = settle(proof, document(BenchOptions(**{"layers": True, **changes})))
    assert said == why
    assert dataclasses.replace(standing, looks=1, beside=()) == proof
    assert [run.why for run in standing.beside] == [why]


def test_another_place_goes_beside() -> None:
    here = document()
    there = document(device=DeviceName("nano", "nano.local"))
    fewer = dataclasses.replace(here.conditions, cores=Cores(8, 1, None))
    for elsewhere in (there, dataclasses.replace(here, conditions=fewer)):
        _, why = settle(here, elsewhere)
        assert why is not None
        assert "elsewhere" in why
    standing, why = settle(here, there, replace=True)
    assert (why, standing.device) == (None, there.device)
    assert standing.beside[0].where == "EPYC, 8 cores"


def test_the_builds_own_comparison_stays_where_it_says_more() -> None:
    """A second of latency alone is the first evidence, and yet no better than the build's."""
    built = document(baselines=("float",), turns=40).summary()
    glance = document(BenchOptions(seconds=1.0), turns=5)
    after = section(built, glance)
    assert after is not None
    assert (after.latencies, after.turns, after.ratios) == (
        built.latencies,
        40,
        {"float": Ratio(2.0, 1.9, 2.1)},
    )
    longer = section(built, document(baselines=("float",), turns=50))
    assert longer is not None
    assert longer.turns == 50
    assert section(built, document(device=DeviceName("nano", "n"))) is None
    assert section(built, document(BenchOptions(threads=1))) is None


def test_another_schema_is_refused_with_the_command_that_makes_it_anew() -> None:
    older = {**document().to_dict(), "schema": 1}
    with pytest.raises(DocumentError, match=r"has schema 1, .* reads 2: run 'edgekit bench'"):
        BenchDocument.from_dict(older, "bench.json")

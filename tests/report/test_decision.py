"""The headline: what each verdict says, in words and kind."""

import dataclasses
from typing import Any

import pytest

from edgekit.bundle.manifest import Manifest
from edgekit.bundle.store import open_bundle
from edgekit.parity.document import ParityDocument
from edgekit.report.decision import decide
from edgekit.report.unusual import unusual
from tests import bundles
from tests.bench import example as bench_example
from tests.parity import example


def manifest(**sections: object) -> Manifest:
    return dataclasses.replace(
        open_bundle(bundles.bundle("cpu", "inline")).manifest, sections=sections
    )


def changed(lower: float, upper: float, **changes: Any) -> ParityDocument:
    usual = example.document(**changes)
    assert usual.corruption_error is not None
    error = dataclasses.replace(usual.corruption_error, delta=0.0, lower=lower, upper=upper)
    return dataclasses.replace(usual, corruption_error=error)


@pytest.mark.parametrize(
    ("parity", "kind", "words", "why"),
    [
        (
            changed(-0.66, 0.42, verdict="pass"),
            *("ship", "Ship", "at most 0.42 points above"),
        ),
        (changed(-0.66, -0.1, verdict="pass"), "ship", "Ship", "is not above"),
        (changed(0.9, 1.8), "stop", "Do not ship", "at least 0.90 points above"),
        (
            changed(-0.2, 0.8, verdict="undecided", more_images=1234),
            *("open", "Not decided yet (1,234 more images)", "by −0.20 to +0.80 points"),
        ),
        (
            changed(-0.2, 0.8, verdict="undecided", more_images=None),
            *("open", "Not decided yet (no number of images would decide)", "lies between"),
        ),
        (
            example.document(labeled=False, reasons=("no labels",)),
            *("open", "Not decided yet (no labels)", "no labels"),
        ),
        (None, "open", "Not decided yet (robustness not measured)", "edgekit parity"),
    ],
)
def test_a_verdict_in_words(parity: ParityDocument | None, kind: str, words: str, why: str) -> None:
    decision = decide(manifest(), parity)
    assert (decision.kind, decision.words) == (kind, words)
    assert why in " ".join(decision.why)


def test_other_gates_keep_their_reasons() -> None:
    reasons = ("pass: ΔmCE +0.1 points", "code agreement 0.9 is below the minimum of 0.95")
    why = decide(manifest(), changed(-0.1, 0.3, verdict="pass", reasons=reasons)).why
    assert len(why) == 2
    assert why[1] == reasons[1]


def test_an_engine_that_nobody_built_is_not_decided() -> None:
    pending = manifest(engine={"state": "pending"})
    assert decide(pending, None).words == "Not decided yet (its engine is not built)"
    graph = changed(-0.2, 0.4, verdict="pass", judged="graph")
    passed = decide(pending, None, graph)
    assert (passed.kind, passed.words) == ("open", "Not decided yet (its engine is not built)")
    said = "ONNX Runtime, passes. The graph's corruption error is at most 0.40 points above"
    assert said in " ".join(passed.why)
    failed = decide(pending, None, changed(0.9, 1.8, judged="graph"))
    assert failed.kind == "stop"
    assert failed.words.startswith("Do not ship (the graph has lost robustness")
    # The verdict of the engine, from its device, is what counts, whatever the graph's was.
    engine = changed(-0.2, 0.4, verdict="pass", device="nano")
    assert decide(pending, engine, changed(0.9, 1.8, judged="graph")).words == "Ship"


def test_what_is_unusual_is_said_once() -> None:
    usual = bench_example.document()
    plain = dataclasses.replace(
        usual, notes=(), conditions=dataclasses.replace(usual.conditions, virtual=False)
    )
    assert unusual(plain) == []
    at = plain.conditions
    odd = dataclasses.replace(
        plain,
        notes=("latency: it rose", "latency: it rose"),
        conditions=dataclasses.replace(
            at,
            governor="powersave",
            cores=dataclasses.replace(at.cores, limit=1.5),
            before=dataclasses.replace(at.before, load=7.0, celsius={"core": 93.0}),
        ),
    )
    text = " ".join(unusual(odd))
    assert len(unusual(odd)) == 5
    assert all(word in text for word in ("it rose", "powersave", "1.5 of 8", "7.0", "93 °C"))

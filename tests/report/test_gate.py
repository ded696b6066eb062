"""The files of a gate: what CI systems read, whatever the names in it are."""

import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.metrics.budgets import LeftOut, Measured, judge
from edgekit.report.gate import OF_GRAPH, Change, GatedBundle, GateReport
from edgekit.report.junit import to_junit
from edgekit.report.markdown import add_section, to_markdown
from tests.report.xsd import problems

SCHEMA = Path(__file__).parents[1] / "fixtures" / "junit.xsd"
HELD = judge("max_mb", 30, Measured(12.5))
BROKEN = judge("max_drop", 0.5, Measured(3.0, 2.0, 4.0))
UNDECIDED = judge("max_memory_mb", 300, None, "this system does not report it")
WORSE = Change("fog", "the reference", 2.0, 0.5, 3.5)
SAME = Change("gaussian_noise", "the reference", 0.5, -0.5, 1.5)
NASTY = (
    "a|b <script>alert(1)</script> `x` **y** ]]> & \"' \\ \x00\x1b[31m\ud800\ufffe\u202e\r\n# @team"
)


def report(name: str = "build/cpu", text: str = "") -> GateReport:
    undecided = judge("max_memory_mb", 300, None, text or UNDECIDED.note)
    bundle = GatedBundle(
        name, (BROKEN, HELD, undecided), (WORSE, SAME), "fail", f"it lost {text}", "build/r.html"
    )
    return GateReport("parity", (bundle,), (LeftOut("max_ms", text or "no device"),))


def table_rows(text: str) -> list[list[str]]:
    """The cells of all tables, after checking that each row has as many as its head."""
    rows: list[list[str]] = []
    width = 0
    for line in text.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        assert line.endswith(" |"), line
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        width = width or len(cells)
        assert len(cells) == width, line
        rows.append(cells)
    return rows


def test_the_verdict_comes_first_then_a_row_a_budget() -> None:
    text = to_markdown(report())
    lines = text.splitlines()
    assert lines[0] == "### edgekit parity: broken"
    assert lines[2] == "build/cpu: **broken**, 1 of 3 budgets held."
    rows = table_rows(text)
    assert rows[2] == ["`max_drop`", "at most 0.5", "3 [2, 4]", "**broken**", ""]
    assert [row[3] for row in rows[2:5]] == ["**broken**", "held", "**undecided**"]
    assert rows[-1] == ["fog", "the reference", "+2.00 [+0.50, +3.50]"]  # and not gaussian noise
    assert "[build/r.html](build/r.html)" in text
    assert "`max_ms` is left out: no device" in text


def test_a_graph_is_not_taken_for_the_engine_it_becomes() -> None:
    row = dataclasses.replace(BROKEN, note=OF_GRAPH)
    one = GatedBundle("build/jetson", (row,), (), "fail", "it lost", None, "graph")
    gate = GateReport("build", (one,))
    assert "Judged was its graph, not its engine" in to_markdown(gate)
    cases = ET.fromstring(to_junit(gate)).iter("testcase")
    names = {case.get("name"): case.find("failure") is not None for case in cases}
    assert names == {"parity of the graph, not of the engine": True, "max_drop": True}
    assert gate.section().bundles[0].judged == "graph"
    assert "of the graph, not of the engine" in gate.failure()


def test_a_summary_keeps_what_others_wrote() -> None:
    first, other = report(), report("build/other")
    text = add_section("# ours\n\ntheir words", first)
    assert text.startswith("# ours\n\ntheir words\n\n<!--")
    both = add_section(text, other)
    assert both.startswith(text)
    assert add_section(both, first) == both
    assert add_section(both, other) == both
    changed = GateReport("parity", (GatedBundle("build/cpu", (HELD,)),))
    again = add_section(both, changed)
    assert "### edgekit parity: held" in again
    assert again.count("### edgekit") == 2
    assert "build/other" in again


def test_cases_say_what_the_exit_code_says() -> None:
    root = ET.fromstring(to_junit(report()))
    assert not problems(SCHEMA, to_junit(report()))
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert list(cases) == [
        *("parity", "max_drop", "max_mb", "max_memory_mb", "max_ms"),
        *("fog against the reference", "gaussian_noise against the reference"),
    ]
    failed = {name: case.find("failure") for name, case in cases.items()}
    kinds = {name: one.get("type") for name, one in failed.items() if one is not None}
    assert kinds == {"parity": "fail", "max_drop": "broken", "max_memory_mb": "undecided"}
    assert cases["max_ms"].find("skipped") is not None
    assert cases["fog against the reference"].findtext("system-out") == (
        "+2.00 [+0.50, +3.50] points, worse"
    )
    counts = {name: root.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "7", "failures": "3", "errors": "0", "skipped": "1"}
    held = GateReport("bench", (GatedBundle("b", (HELD,)),))
    assert ET.fromstring(to_junit(held)).get("failures") == "0"


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.just(NASTY), st.text(st.characters(exclude_categories=[]), max_size=80)))
def test_no_text_breaks_either_file(text: str) -> None:
    nasty = report(text, text)
    written = to_junit(nasty)
    assert not problems(SCHEMA, written)
    assert ET.fromstring(written)[0].get("tests") == "7"
    page = add_section("", nasty)
    page.encode("utf-8")
    assert len(table_rows(page)) == len(table_rows(add_section("", report())))
    assert add_section(page, nasty) == page
    inside = re.sub(r"<!-- .*? -->|`max_\w+`", "", page)
    inside = inside.replace("[build/r.html](build/r.html)", "")
    assert not re.search(r"[<>`@~]", inside), inside
    assert "www." not in inside


def test_the_checker_of_the_schema_finds_mistakes() -> None:
    good = to_junit(report()).decode()
    for old, new in (
        ('tests="7"', 'tests="-7"'),
        ("<failure ", "<failed "),
        (' type="broken"', ""),
        ("<testcase ", '<testcase colour="red" '),
        ("<properties>", "<properties/><properties>"),
    ):
        assert old in good
        changed = good.replace(old, new).replace(
            "</failure>", "</failed>" if "failed" in new else "</failure>"
        )
        assert problems(SCHEMA, changed.encode()), new


@pytest.mark.parametrize("verdict", ["fail", "undecided", "unlabeled"])
def test_a_verdict_that_no_budget_explains_is_no_pass(verdict: str) -> None:
    assert GatedBundle("b", (HELD,), verdict=verdict).state != "held"
    assert GatedBundle("b", (HELD,), verdict="pass").state == "held"

"""The gate of `edgekit build`, from the command line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle.engine import engine_pending
from edgekit.bundle.store import open_bundle
from edgekit.cli.build import why
from edgekit.core.typed_toml import to_toml
from edgekit.metrics.budgets import Budgets
from edgekit.parity.document import ParityOutcome, read_graph_parity, read_parity
from edgekit.parity.options import Gates
from edgekit.report.gate import OF_GRAPH
from edgekit.steps.build_record import BuildParity, Outcome
from edgekit.steps.config import BuildConfig
from edgekit.workflows.build_gate import judge_build
from tests import commands
from tests.parity import example
from tests.workflows.small_build import ELSEWHERE, HERE, settings

Capture = pytest.CaptureFixture[str]


def edgekit(capsys: Capture, *words: object) -> tuple[int, dict[str, Any], str]:
    """Exit code, document and standard error."""
    code, out, err = commands.run(capsys, "build", *words, "--json")
    return code, json.loads(out), err


def states(document: dict[str, Any], place: int = 0) -> dict[str, str]:
    rows = document["gate"]["bundles"][place]["budgets"]
    return {row["name"]: row["state"] for row in rows}


pytestmark = pytest.mark.usefixtures("empty")


@pytest.fixture
def config(model: Path, tmp_path: Path) -> Path:
    """The settings of a build, with budgets, as TOML."""
    text = to_toml(settings(model, tmp_path / "out"))
    table = "max_drop = 99\nmax_latency_ratio = 1000\nmax_mb = 1000\nmax_ms = 1\n"
    assert text.rstrip().endswith("[budgets]")
    path = tmp_path / "build.toml"
    path.write_text(text + table)
    return path


@pytest.mark.usefixtures("cache")
def test_a_build_is_judged_and_then_compared_with_an_earlier_one(
    config: Path, tmp_path: Path, capsys: Capture
) -> None:
    summary = tmp_path / "summary.md"
    code, document, err = edgekit(capsys, "--config", config, "--no-parity", "--summary", summary)
    assert code == 0, err
    assert states(document) == {"max_latency_ratio": "held", "max_mb": "held"}
    left_out = {one["name"]: one["why"] for one in document["gate"]["left_out"]}
    assert left_out == {
        "max_drop": "the build has --no-parity",
        "max_ms": "'edgekit bench' measures it",
    }
    assert "2 of 2 budgets held" in summary.read_text()
    code, document, err = edgekit(capsys, "--config", config, "--max-mb", 0.5, "--summary", summary)
    assert code == 3  # two images decide nothing
    assert states(document) == {
        "max_drop": "undecided",
        "max_latency_ratio": "held",
        "max_mb": "broken",
    }
    line = err.splitlines()[-1]
    assert "max_drop undecided (" in line
    assert "max_mb broken (" in line
    assert "at most 0.5)" in line
    assert "1 of 3 budgets held" in summary.read_text()
    earlier = tmp_path / "earlier"
    shutil.copytree(tmp_path / "out", earlier)
    code, document, err = edgekit(capsys, "--config", config, "--baseline", earlier)
    assert code == 3
    (bundle,) = document["bundles"]
    assert bundle["up_to_date"]  # neither budgets nor a baseline make another bundle
    assert states(document)["max_regression"] == "undecided"
    assert bundle["baseline"]["corruption_error"]["delta"] == 0
    assert bundle["baseline"]["gates"]["tolerance"] == 99
    again = edgekit(capsys, "--config", config, "--baseline", earlier / HERE)[1]
    assert states(again) == states(document)


@pytest.mark.usefixtures("cache")
def test_what_was_not_measured_here_is_undecided(
    config: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ("--config", config, "--target", ELSEWHERE, "--min-agreement", 0.5)
    code, document, err = edgekit(capsys, *words, "--junit", tmp_path / "build.xml")
    assert code == 3, err
    assert states(document) == {
        "max_drop": "undecided",
        "min_agreement": "undecided",
        "max_latency_ratio": "undecided",
        "max_mb": "held",
    }
    assert "min_agreement undecided (" in err
    assert "at least 0.5, of the graph, not of the engine)" in err
    assert "max_latency_ratio undecided (not measured, at most 1000, latency was not" in err
    assert "parity of the graph, not of the engine" in (tmp_path / "build.xml").read_text()
    (bundle,) = document["bundles"]
    assert (bundle["verdict"], bundle["parity"]) == ("not measured", None)
    assert bundle["graph_parity"]["judged"] == document["gate"]["bundles"][0]["judged"] == "graph"
    assert f"edgekit deploy {tmp_path / 'out' / ELSEWHERE} --device NAME" in err
    again = edgekit(capsys, *words)[1]
    assert again["bundles"][0]["up_to_date"]
    assert states(again) == states(document)
    opened = open_bundle(tmp_path / "out" / ELSEWHERE, any_arch=True)
    assert engine_pending(opened.manifest)
    assert read_parity(opened) is None
    graph = read_graph_parity(opened)
    assert graph is not None
    assert graph.candidate.startswith("int8 graph for TensorRT, onnxruntime ")


@pytest.mark.parametrize("verdict", ["pass", "fail", "undecided"])
def test_a_graphs_verdict_gates_like_any_other(verdict: ParityOutcome, tmp_path: Path) -> None:
    low, high = {"pass": (-0.5, 0.3), "fail": (0.9, 1.8), "undecided": (0.1, 0.9)}[verdict]
    usual = example.document(verdict=verdict, judged="graph", gates=Gates(0.5))
    assert usual.corruption_error is not None
    error = dataclasses.replace(usual.corruption_error, lower=low, upper=high)
    graph = BuildParity(dataclasses.replace(usual, corruption_error=error), 1)
    outcome = Outcome(ELSEWHERE, tmp_path, False, None, None, graph)
    config = BuildConfig(target=(ELSEWHERE,))
    judged = judge_build(config, [outcome], Budgets(max_drop=0.5), (), {})
    expected = {"pass": "held", "fail": "broken", "undecided": "undecided"}
    assert judged.state == expected[verdict]
    assert [row.note for row in judged.bundles[0].budgets] == [OF_GRAPH]
    assert outcome.verdict == "not measured"
    line = why([outcome], judged, by_name=False)
    assert f"{ELSEWHERE} (graph {verdict}" in line or verdict == "pass"
    assert ("'edgekit report BUNDLE' shows" in line) == (verdict == "fail")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-ms", "5"], "--max-ms cannot be judged here: 'edgekit bench' measures it"),
        (["--max-slowdown", "1.1"], "'edgekit bench' measures it"),
        (["--max-regression", "1"], "--baseline names no earlier bundle"),
        (["--max-latency-ratio", "1", "--no-bench"], "the build has --no-bench"),
        (["--min-agreement", "0.9", "--no-parity"], "the build has --no-parity"),
        (["--baseline", "absent"], f"no earlier bundle at absent/{HERE}"),
        (["--baseline", "out"], "is where the new bundle goes"),
        (["--baseline", "out", "--no-parity"], "leave --no-parity out"),
        (["--max-mb", "-1"], "max_mb must be above 0"),
        (["--junit", f"out/{HERE}/junit.xml"], "is the bundle or inside it"),
        (["--summary", "new.toml", "--save-config", "new.toml"], "both write new.toml"),
        (["--budgets", "build.toml"], "unknown key 'checkpoint'"),
    ],
)
def test_what_is_refused_before_anything_is_built(
    words: list[str],
    message: str,
    config: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "out" / HERE
    there.mkdir(parents=True)
    code, document, err = edgekit(capsys, "--config", config, *words)
    assert code == 2, err
    assert message in document["error"]
    assert not list(there.iterdir())

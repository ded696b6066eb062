"""Budgets, --baseline, --summary and --junit from the command line, as a CI uses them."""

import dataclasses
import json
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import bundles, commands
from tests.foreign import classifiers
from tests.report.test_gate import SCHEMA, table_rows
from tests.report.xsd import problems

Capture = pytest.CaptureFixture[str]
CELLS = ("--corruptions", "gaussian_noise,fog", "--severities", "1,3")


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache: every model answers once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles.bundle("onnxruntime-cpu"), tmp_path / "new"))


def edgekit(capsys: Capture, *words: object) -> tuple[int, dict[str, Any], str]:
    """Exit code, document and the last line on standard error."""
    code, out, err = commands.run(capsys, *words, "--json")
    return code, json.loads(out), err


def parity(capsys: Capture, candidate: Path, *words: object) -> tuple[int, dict[str, Any], str]:
    """A comparison with the float network on the images of `classifiers`."""
    told = ("--preprocessing", classifiers.preprocessing(), "--data", classifiers.data())
    reference = ("--reference", classifiers.float_onnx())
    return edgekit(capsys, "parity", candidate, *reference, *told, *CELLS, *words)


def bench(capsys: Capture, path: Path, *words: object) -> tuple[int, dict[str, Any], str]:
    """A measurement that takes a moment."""
    usual = ("--scenario", "latency", "--seconds", 0.2)
    return edgekit(capsys, "bench", path, *usual, *words)


def same() -> Path:
    """The float network in another file."""
    return classifiers.saved(classifiers.graph(classifiers.network()), "same.onnx")


def damaged() -> Path:
    """One that confuses two classes."""
    net = classifiers.network()
    order = np.arange(classifiers.CLASSES)
    order[[2, 7]] = 7, 2
    swapped = dataclasses.replace(net, weights=net.weights[:, order], bias=net.bias[order])
    return classifiers.saved(classifiers.graph(swapped), "damaged.onnx")


def rows(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    (bundle,) = document["gate"]["bundles"]
    return {row["name"]: row for row in bundle["budgets"]}


def test_budgets_that_hold(capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "budgets.toml"
    file.write_text("[budgets]\nmax_drop = 5\nmin_agreement = 0.9\nmax_ms = 5\nmax_mb = 1\n")
    summary, junit = tmp_path / "deep/er/summary.md", tmp_path / "out.xml"
    files = ("--summary", summary, "--junit", junit)
    words = ("--budgets", file, *files, "--baseline", classifiers.float_onnx(), "--tolerance", 4)
    code, document, err = parity(capsys, same(), *words)
    assert code == 0, err
    assert {name: row["state"] for name, row in rows(document).items()} == dict.fromkeys(
        ("max_drop", "min_agreement", "max_regression"), "held"
    )
    assert rows(document)["max_drop"]["limit"] == 4  # the option wins over the file
    assert rows(document)["max_regression"]["limit"] == 4  # of the tolerance, if not given
    assert rows(document)["min_agreement"]["lower"] > 0.9
    assert [one["name"] for one in document["gate"]["left_out"]] == ["max_ms", "max_mb"]
    assert "max_ms is left out: 'edgekit bench' measures it" in err
    assert document["baseline"]["images"] > 10
    assert "### edgekit parity: held" in summary.read_text()
    assert not problems(SCHEMA, junit.read_bytes())
    assert ET.parse(junit).getroot().get("failures") == "0"


def test_a_gate_that_fails_writes_both_files_and_names_every_budget(
    capsys: Capture, tmp_path: Path
) -> None:
    summary, junit = tmp_path / "summary.md", tmp_path / "out.xml"
    summary.write_text("# what an earlier step wrote\n")
    words = ("--min-agreement", 0.95, "--baseline", same(), "--max-regression", 1)
    code, document, err = parity(capsys, damaged(), *words, "--summary", summary, "--junit", junit)
    assert code == 3
    states = {name: row["state"] for name, row in rows(document).items()}
    assert states == dict.fromkeys(("max_drop", "min_agreement", "max_regression"), "broken")
    line = err.splitlines()[-1]
    for name in states:
        assert f"{name} broken (" in line
    assert "lost most on" in line
    text = summary.read_text()
    assert text.startswith("# what an earlier step wrote\n")
    table = [row[0] for row in table_rows(text)]
    assert {"`max_drop`", "`min_agreement`", "`max_regression`", "fog"} <= set(table)
    root = ET.parse(junit).getroot()
    assert root.get("failures") == "4"  # parity's own verdict, and three budgets
    assert not problems(SCHEMA, junit.read_bytes())


def test_images_that_do_not_decide_fail_the_gate(capsys: Capture) -> None:
    words = ("--tolerance", 90, "--min-agreement", 0.999, "--images", 30)
    code, document, err = parity(capsys, same(), *words)
    assert code == 3
    assert rows(document)["max_drop"]["state"] == "held"
    row = rows(document)["min_agreement"]
    assert (row["state"], row["measured"]) == ("undecided", 1.0)
    assert row["lower"] < 0.999
    assert "min_agreement undecided (1 [" in err.splitlines()[-1]
    assert "max_drop" not in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--baseline", "alexnet"], "for mCE's normalization say --normalize-by alexnet"),
        (["--baseline", "none"], "--baseline names an earlier bundle"),
        (["--baseline", "absent"], "no earlier bundle at absent"),
        (["--max-regression", "1"], "--baseline names no earlier bundle"),
        (["--max-ms", "5"], "--max-ms cannot be judged here: 'edgekit bench' measures it"),
        (["--max-mb", "5"], "is no bundle"),
        (["--min-agreement", "nan"], "nan is not a finite number"),
        (["--min-agreement", "-1"], "must lie between 0 and 1"),
        (["--min-agreement", "98%"], "'98%' is not a valid float"),
        (["--tolerance", "nan"], "nan is not a finite number"),
        (["--budgets", "absent.toml"], "cannot read absent.toml"),
        (["--budgets", "unknown.toml"], "unknown.toml:2: unknown key 'budgets.max_drops' (did you"),
        (
            ["--budgets", "nan.toml"],
            "nan.toml:2: 'budgets.max_mb' must be a number of ordinary size",
        ),
        (["--budgets", "text.toml"], "'budgets.max_mb' must be a number, not '5'"),
        (["--budgets", "empty.toml"], "empty.toml: missing key 'budgets'"),
        (["--summary", "."], "is no regular file"),
        (["--summary", "/dev/null"], "is no regular file"),
        (["--junit", "empty.toml/x/out.xml"], "is no folder to write in"),
        (["--summary", "a.md", "--junit", "./a.md"], "--summary and --junit both write"),
        (["--summary", "binary"], "holds no UTF-8 text"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    capsys: Capture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("unknown.toml").write_text("[budgets]\nmax_drops = 1\n")
    Path("nan.toml").write_text("[budgets]\nmax_mb = nan\n")
    Path("text.toml").write_text('[budgets]\nmax_mb = "5"\n')
    Path("empty.toml").write_text("")
    Path("binary").write_bytes(b"\xff\xfe")
    before = sorted(Path().iterdir())
    code, document, err = parity(capsys, same(), *words)
    assert code == 2, err
    assert message in document["error"]
    assert sorted(Path().iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(capsys: Capture, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    code, document, _ = parity(capsys, same(), "--summary", tmp_path / "a.md")
    assert code == 2
    assert "is no folder to write in" in document["error"]


def test_bench_judges_what_it_measures(capsys: Capture, bundle: Path, tmp_path: Path) -> None:
    summary, junit = tmp_path / "summary.md", tmp_path / "out.xml"
    budgets = ("--max-latency-ratio", 1000, "--max-mb", 0.001, "--max-memory-mb", 5000)
    words = ("--baseline", bundles.made().onnx, "--summary", summary, "--junit", junit)
    code, document, err = bench(capsys, bundle, *words, *budgets)
    assert code == 3
    found = rows(document)
    assert found["max_latency_ratio"]["state"] == "held"
    assert found["max_latency_ratio"]["lower"] <= found["max_latency_ratio"]["measured"]
    size = document["bundles"][0]["bundle"]["size_bytes"]
    assert (found["max_mb"]["state"], found["max_mb"]["measured"]) == ("broken", size / 1e6)
    assert found["max_memory_mb"]["state"] == "undecided"  # that scenario did not run
    line = err.splitlines()[-1]
    assert "max_mb broken (" in line
    assert "max_memory_mb undecided (not measured, at most 5000" in line
    assert "max_latency_ratio" not in line
    assert "### edgekit bench: broken" in summary.read_text()
    assert not problems(SCHEMA, junit.read_bytes())


def test_bench_beside_an_earlier_bundle(capsys: Capture, bundle: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "old"
    shutil.copytree(bundle, earlier)
    code, document, err = bench(capsys, bundle, "--baseline", earlier, "--max-slowdown", 50)
    assert code == 0, err
    row = rows(document)["max_slowdown"]
    assert (row["state"], row["note"]) == ("held", f"against {earlier}")
    assert 0.02 < row["lower"] <= row["measured"] <= row["upper"] < 50
    assert document["comparison"]["latency"]["ratios"][str(earlier)]["median"] > 0
    assert "ratios" in document["bundles"][0]["scenarios"]["latency"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-ms", "5"], "name that with --device"),
        (["--min-agreement", "0.9"], "'edgekit parity' measures it"),
        (["--max-slowdown", "1.1"], "--baseline names no earlier bundle"),
        (["--baseline", "NEW"], "is the bundle itself"),
        (["--max-mb", "0"], "max_mb must be above 0"),
        (["--summary", "NEW/summary.md"], "is the bundle or inside it"),
        (["--summary", "NEW"], "is no regular file"),
        (["--junit", "out.json", "-o", "out.json"], "both write out.json"),
        (["--device", "x", "--max-latency-ratio", "1"], "the float model is not on the device"),
    ],
)
def test_what_bench_refuses(
    words: list[str], message: str, capsys: Capture, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle.parent)
    words = [word.replace("NEW", str(bundle)) for word in words]
    code, document, err = bench(capsys, bundle, *words)
    assert code == 2, err
    assert message in document["error"]

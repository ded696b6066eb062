"""What the first release built, today's code takes: it opens, predicts, and is measured."""

import json
from pathlib import Path

import pytest

import edgekit
from edgekit.bundle.store import open_bundle, zip_bundle
from edgekit.parity.document import read_parity
from edgekit.runtime.selftest import prove
from tests import first_release
from tests.commands import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return first_release.unpacked(tmp_path)


def test_it_predicts() -> None:
    model = edgekit.load(first_release.ZIP)
    pixels, labels = first_release.images("test")
    expected = [first_release.CLASSES[label] for label in labels]
    assert model.predict(list(pixels)).labels == expected
    assert model.manifest.preprocessing.size == (32, 32)


def test_it_still_computes_what_it_did() -> None:
    """By the self-test that it carries, of the first schema."""
    proof = prove(edgekit.load(first_release.ZIP), open_bundle(first_release.ZIP))
    assert proof.stored is not None
    assert proof.stored.passed
    assert "older edgekit" in proof.stored.against


def test_its_figures_are_read(bundle: Path, capsys: Capture) -> None:
    code, out, err = run(capsys, "inspect", bundle)
    assert (code, err) == (0, "")
    assert "undecided" in out
    assert run(capsys, "report", bundle)[0] == 0
    page = (bundle / "report.html").read_text()
    assert "unnormalized mCE" in page
    assert "float, ONNX Runtime" in page  # of its bench


def test_bench(bundle: Path, capsys: Capture) -> None:
    words = ("--scenario", "latency", "--seconds", "0.2", "--baseline", "none")
    code, out, err = run(capsys, "bench", bundle, *words, "--json")
    assert code == 0, err
    (document,) = json.loads(out)["bundles"]
    assert document["self_test"]["stored"]["problems"] == []
    assert json.loads((bundle / "bench.json").read_text()) == document
    # Its own section timed float models beside it, and this run did not: that one stays.
    section = open_bundle(bundle).manifest.sections["bench"]
    assert "float, ONNX Runtime" in section["ratios"]


def test_parity(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    first_release.write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ("--reference", first_release.FLOAT, "--corruptions", "fog,contrast", "--severities")
    code, out, err = run(capsys, "parity", bundle, *words, "1,5", "--tolerance", 90, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert (document["verdict"], document["data"]) == ("pass", first_release.DATA)
    assert document["same_source"]
    evidence = read_parity(open_bundle(bundle))
    assert evidence is not None
    assert evidence.looks == 2  # its own comparison asked for more, and stays
    assert (evidence.verdict, len(evidence.corruptions)) == ("undecided", 15)
    assert [look.corruptions for look in evidence.beside] == [("fog", "contrast")]
    earlier = tmp_path / "earlier.zip"
    zip_bundle(bundle, earlier)
    gate = ("--baseline", earlier, "--max-mb", 0.001, "--min-agreement", 0.05, "--json")
    code, out, err = run(capsys, "parity", bundle, *words, "1,5", "--tolerance", 90, *gate)
    again = json.loads(out)
    rows = {row["name"]: row["state"] for row in again["gate"]["bundles"][0]["budgets"]}
    held = ("max_drop", "min_agreement", "max_regression")
    assert rows == {**dict.fromkeys(held, "held"), "max_mb": "broken"}
    assert code == 3
    assert err.splitlines()[-1].startswith("error: max_mb broken (")
    assert again["verdict"] == "pass"
    assert again["baseline"]["corruption_error"]["delta"] == 0
    assert again["baseline"]["inferences"] == 0  # equal bundles have equal answers, in the cache

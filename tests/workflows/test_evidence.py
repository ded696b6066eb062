"""A comparison on its way into a bundle: what stays, what is said, what a build finds again."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from edgekit.bundle.store import open_bundle, update_bundle, zip_bundle
from edgekit.core.console import Console
from edgekit.core.documents import DocumentError
from edgekit.parity.document import (
    FILE,
    GRAPH_FILE,
    GRAPH_SECTION,
    read_graph_parity,
    read_parity,
)
from edgekit.parity.options import Gates
from edgekit.report.page import report_page
from edgekit.steps.build_record import made_by_build
from edgekit.steps.config import BuildConfig
from edgekit.workflows.parity import save_report
from tests import bundles
from tests.parity.example import document

QUIET = Console(verbosity=-1)
CONFIG = BuildConfig(tolerance=0.5)
PROOF = document(verdict="pass", images=723, available=1000, asked=CONFIG.comparison(), worst=())
GLANCE = document(verdict="undecided", images=20, available=20, worst=())


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles.bundle("cpu", "inline"), tmp_path / "cpu"))


def test_a_throw_away_run_leaves_the_proof(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert save_report(bundle, PROOF, QUIET) == PROOF
    said = save_report(bundle, GLANCE, QUIET)
    assert (said.verdict, said.looks, len(said.beside)) == ("undecided", 2, 1)
    warning = capsys.readouterr().err
    assert "kept beside the bundle's evidence (pass, 723 images), which stays" in warning
    assert "--replace puts this one in its place" in warning
    opened = open_bundle(bundle)
    evidence = read_parity(opened)
    assert evidence is not None
    assert (evidence.verdict, evidence.images, evidence.looks) == ("pass", 723, 2)
    section = opened.manifest.sections["parity"]
    assert (section["verdict"], section["looks"]) == ("pass", 2)
    page = report_page(opened)
    assert "compared 2 times in all" in page
    assert "<td>undecided</td>" in page
    forced = save_report(bundle, GLANCE, QUIET, replace=True)
    evidence = read_parity(open_bundle(bundle))
    assert evidence is not None
    assert (evidence.verdict, evidence.looks, forced.looks) == ("undecided", 3, 3)


def test_a_build_finds_its_own_verdict_beside_a_stronger_one(bundle: Path) -> None:
    def own() -> str | None:
        section = open_bundle(bundle).manifest.sections.get("parity")
        found = made_by_build(section, CONFIG)
        return None if found is None else f"{found.comparison.verdict} after {found.looks}"

    assert own() is None
    save_report(bundle, PROOF, QUIET)
    assert own() == "pass after 1"
    stricter = document(
        verdict="undecided", images=1000, available=1000, gates=Gates(0.1), worst=()
    )
    save_report(bundle, stricter, QUIET)
    evidence = read_parity(open_bundle(bundle))
    assert evidence is not None
    assert evidence.verdict == "undecided"
    assert own() == "pass after 2"
    assert made_by_build(PROOF.summary(), BuildConfig(tolerance=0.2)) is None
    assert made_by_build([1], CONFIG) is None
    assert made_by_build({**PROOF.summary(), "schema": 1}, CONFIG) is None


def test_evidence_that_cannot_be_read_makes_way(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    update_bundle(bundle, reports={FILE: json.dumps({"schema": 1}).encode()})
    assert save_report(bundle, GLANCE, QUIET).looks == 1
    assert "has schema 1, this edgekit reads 2" in capsys.readouterr().err
    evidence = read_parity(open_bundle(bundle))
    assert evidence is not None
    assert evidence.images == 20


def test_a_graphs_comparison_is_never_the_bundles(bundle: Path) -> None:
    """Nor the other way round, whatever is written where."""
    graph = dataclasses.replace(PROOF, judged="graph")
    text = json.dumps(graph.to_dict()).encode()
    update_bundle(bundle, sections={GRAPH_SECTION: graph.summary()}, reports={GRAPH_FILE: text})
    opened = open_bundle(bundle)
    assert read_parity(opened) is None
    assert read_graph_parity(opened) == graph
    section = opened.manifest.sections[GRAPH_SECTION]
    assert made_by_build(section, CONFIG) is None
    found = made_by_build(section, CONFIG, "graph")
    assert found is not None
    assert found.comparison.verdict == "pass"
    engine = dataclasses.replace(GLANCE, device="nano")
    assert save_report(bundle, engine, QUIET).looks == 1  # the graph's was no look at it
    opened = open_bundle(bundle)
    assert read_parity(opened) == engine
    assert read_graph_parity(opened) == graph
    assert made_by_build(opened.manifest.sections["parity"], CONFIG, "graph") is None
    update_bundle(bundle, reports={FILE: text})
    with pytest.raises(DocumentError, match=f"{FILE} is a comparison of the graph, not the model"):
        read_parity(open_bundle(bundle))


def test_an_older_bundle_has_none(bundle: Path) -> None:
    before = {name: value for name, value in PROOF.to_dict().items() if name != "judged"}
    update_bundle(bundle, reports={FILE: json.dumps(before).encode()})
    opened = open_bundle(bundle)
    assert read_parity(opened) == PROOF
    assert read_graph_parity(opened) is None


def test_a_zip_counts_and_stays_as_it_is(bundle: Path, tmp_path: Path) -> None:
    save_report(bundle, PROOF, QUIET)
    zip_bundle(bundle, tmp_path / "cpu.zip")
    before = (tmp_path / "cpu.zip").read_bytes()
    assert save_report(tmp_path / "cpu.zip", GLANCE, QUIET).looks == 2
    assert (tmp_path / "cpu.zip").read_bytes() == before

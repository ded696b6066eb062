import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgekit.bench.document import BenchDocument
from edgekit.bench.evidence import save
from edgekit.bench.options import BenchOptions
from edgekit.bench.run import bench_bundles
from edgekit.bundle.store import open_bundle, update_bundle, write_bundle, zip_bundle
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.report.page import refresh_report, report_page, write_report
from tests import bundles
from tests.parity import example

QUIET = Console(verbosity=-1)
HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles.bundle("cpu", "inline"), tmp_path / "cpu"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> BenchDocument:
    options = BenchOptions(
        scenarios=("latency", "sustained"), seconds=0.2, minutes=0.005, baseline="none", layers=True
    )
    cache = tmp_path_factory.mktemp("cache")
    return bench_bundles([bundles.bundle("cpu", "inline")], options, QUIET, cache).bundles[0]


def parity() -> dict[str, Any]:
    return example.document(data=HOSTILE).to_dict()


def test_page_shows_what_is_known(bundle: Path, measured: BenchDocument) -> None:
    save(bundle, measured, QUIET)
    update_bundle(bundle, reports={"parity.json": json.dumps(parity()).encode()})
    page = report_page(open_bundle(bundle))
    assert measured.scenarios.latency is not None
    own = measured.scenarios.latency.latencies["bundle"]
    assert f"<td>{own.median_ms:.2f}</td>" in page
    assert "<td>gaussian noise</td><td>20.00</td><td>21.50</td><td>+1.50</td>" in page
    assert 'class="verdict fail"' in page
    assert "codebook lookup" in page
    assert page.count("<svg") == 3  # histogram, time over a sustained run, intervals
    assert "not requested in that run" in page  # throughput


def test_page_stands_alone_and_escapes(bundle: Path, measured: BenchDocument) -> None:
    document = json.loads(json.dumps(measured.to_dict()))
    document["notes"] = [HOSTILE]
    latencies = document["scenarios"]["latency"]["latencies"]
    latencies[HOSTILE] = latencies["bundle"]
    update_bundle(
        bundle,
        reports={
            "bench.json": json.dumps(document).encode(),
            "parity.json": json.dumps(parity()).encode(),
        },
    )
    page = report_page(open_bundle(bundle))
    assert "&lt;script&gt;" in page
    assert not re.search(r"<script|https?:|src=|href=|@import|url\(|javascript:", page)


def test_page_of_a_bundle_that_nobody_measured(bundle: Path) -> None:
    page = report_page(open_bundle(bundle))
    assert "run &#x27;edgekit bench&#x27; on it" in page
    assert "run &#x27;edgekit parity&#x27; on it" in page
    assert "<svg" not in page


def test_equal_bundles_have_equal_pages(bundle: Path, tmp_path: Path) -> None:
    written = write_report(bundle)
    assert written == bundle / "report.html"
    first = written.read_bytes()
    opened = open_bundle(bundle)
    assert "report.html" in opened.manifest.files
    files = {n: opened.folder / n for n in opened.manifest.files if n != "labels.txt"}
    again = dataclasses.replace(opened.manifest, created="2001-01-01T00:00:00Z")
    del files["report.html"]
    write_bundle(tmp_path / "again", again, files, opened.labels)
    assert write_report(tmp_path / "again").read_bytes() == first


def test_a_page_that_is_there_follows_the_figures(bundle: Path, measured: BenchDocument) -> None:
    """Only where there is one: measuring a bundle does not litter it."""
    refresh_report(bundle)
    assert not (bundle / "report.html").exists()
    before = write_report(bundle).read_text()
    update_bundle(bundle, reports={"parity.json": json.dumps(parity()).encode()})
    refresh_report(bundle)
    assert (bundle / "report.html").read_text() == report_page(open_bundle(bundle)) != before


def test_refusals_are_one_line(bundle: Path, tmp_path: Path) -> None:
    zip_bundle(bundle, tmp_path / "cpu.zip")
    with pytest.raises(UsageError, match="with -o"):
        write_report(tmp_path / "cpu.zip")
    out = write_report(tmp_path / "cpu.zip", tmp_path / "page.html")
    assert out.read_text().startswith("<!DOCTYPE html>")
    update_bundle(bundle, reports={"bench.json": b'{"schema": 99}'})
    with pytest.raises(EdgekitError, match="run 'edgekit bench'"):
        write_report(bundle)

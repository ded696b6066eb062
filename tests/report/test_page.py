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
from edgekit.metrics.budgets import Judged
from edgekit.parity.document import Closeness, ErrorChange, Estimate, TopFive
from edgekit.report.page import refresh_report, report_page, write_report
from edgekit.report.sizes import SECTION
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
    assert "<td>corruption error</td><td>20.00</td><td>21.50</td><td>+1.50</td>" in page
    assert "<td>gaussian noise</td><td>10.0 → 11.0</td><td>30.0 → 32.0</td><td>+1.50</td>" in page
    assert 'class="banner stop"' in page
    assert "codebook lookup" in page
    captions = re.findall(r"<figcaption>([^<]*)", page)
    assert captions == [
        "Change of the corruption error",
        "Change of error by corruption",
        "Reference, error in %",
        "Candidate, error in %",
        "Difference, points",
        "Equal codes and classes by corruption",
        "Margins of the codes",
        "Latency",
        "Latency over time",
        "Layers",
    ]
    assert page.count('<svg role="img" aria-label="') == len(captions)
    assert "not requested in that run" in page  # throughput


def test_everything_that_parity_holds_is_there(bundle: Path) -> None:
    change = ErrorChange(5.0, 6.0, 1.0, 0.5, 1.5)
    full = example.document(
        closeness=Closeness(Estimate(0.991, 0.981, 0.999), 0.071, 0.082),
        top5_error=TopFive(change, change),
        warnings=("answers differ by more than rounding",),
        budgets=(Judged("min_agreement", 0.97, 0.9, 0.8, 0.95, "broken", "of corrupted"),),
        looks=3,
    )
    update_bundle(bundle, reports={"parity.json": json.dumps(full.to_dict()).encode()})
    page = report_page(open_bundle(bundle))
    for text in (
        "<td>clean error</td><td>20.00%</td><td>21.50%</td>",
        "<td>clean error, top-5</td><td>5.00</td>",
        "<td>relative error</td>",
        "[98.10%, 99.90%]",  # same class, clean
        "<td>90.00%</td><td></td><td>[80.00%, 95.00%]</td>",  # same class, corrupted
        "<td>7.1%</td>",  # scores
        "<td>0.01</td>",  # KL
        "answers differ by more than rounding",
        "<td>min_agreement (of corrupted)</td><td>at least 0.97</td><td>0.9 [0.8, 0.95]</td>",
        "broken",
        "This bundle was compared 3 times in all.",
        "100 of 100 images of photos",
        "severities 1, 3, 1 of them for each image",
        "9 of 16 codewords",
    ):
        assert text in page, text


def test_links_lead_to_the_documents_beside_the_page(bundle: Path, tmp_path: Path) -> None:
    update_bundle(bundle, reports={"parity.json": json.dumps(parity()).encode()})
    inside = write_report(bundle).read_text()
    assert re.findall(r'href="([^"]*)"', inside) == ["parity.json", "manifest.json"]
    assert all((bundle / name).is_file() for name in ("parity.json", "manifest.json"))
    assert "href=" not in write_report(bundle, tmp_path / "elsewhere.html").read_text()


def test_calibration_in_a_line(bundle: Path) -> None:
    images = [{"corruption": None}, {"corruption": "fog", "severity": 2}, {"corruption": "snow"}]
    recipe = {"description": "300 images", "statistics": "mean-minmax", "unknown": [1]}
    listing = {"seed": 3, "images": images, "recipe": recipe}  # as an earlier release wrote it
    update_bundle(bundle, reports={"calibration.json": json.dumps(listing).encode()})
    page = report_page(open_bundle(bundle))
    assert "1 clean and 2 corrupted images, seed 3; 300 images; ranges: mean-minmax" in page
    for damaged in (b"{", b"[]", b'{"schema": 9}', b"[" * 100_000, b'{"seed": 1, "images": 5}'):
        update_bundle(bundle, reports={"calibration.json": damaged})
        with pytest.raises(UsageError, match=r"calibration\.json") as error:
            report_page(open_bundle(bundle))
        assert "\n" not in str(error.value)


def test_size_beside_the_float_model(bundle: Path) -> None:
    assert "times as much" not in report_page(open_bundle(bundle))
    update_bundle(bundle, sections={SECTION: {"size_bytes": 12_300_000}})
    page = report_page(open_bundle(bundle))
    assert "float: 12.3 MB" in page
    assert "<figcaption>Size" in page
    update_bundle(bundle, sections={SECTION: {"size_bytes": "much"}})
    with pytest.raises(UsageError, match="section 'float'"):
        report_page(open_bundle(bundle))


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
    page = report_page(open_bundle(bundle), inside=True)
    assert (bundle / "report.html").read_text() == page != before


def test_refusals_are_one_line(bundle: Path, tmp_path: Path) -> None:
    zip_bundle(bundle, tmp_path / "cpu.zip")
    with pytest.raises(UsageError, match="with -o"):
        write_report(tmp_path / "cpu.zip")
    out = write_report(tmp_path / "cpu.zip", tmp_path / "page.html")
    assert out.read_text().startswith("<!DOCTYPE html>")
    update_bundle(bundle, reports={"bench.json": b'{"schema": 99}'})
    with pytest.raises(EdgekitError, match="run 'edgekit bench'"):
        write_report(bundle)

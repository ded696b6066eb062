"""Several bundles on one page, and a bundle whose engine is not built yet."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from edgekit.bench.options import BenchOptions
from edgekit.bundle.selftest import SELFTEST
from edgekit.bundle.store import Bundle, open_bundle, update_bundle
from edgekit.cli.main import main
from edgekit.parity.document import GRAPH_SECTION
from edgekit.report.page import report_page
from edgekit.report.several import several_page
from tests import bundles
from tests.bench import example as bench_example
from tests.parity import example as parity_example


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two bundles: one measured, one not."""
    for name in ("one", "two"):
        shutil.copytree(bundles.bundle("cpu", "inline"), tmp_path / name)
    measure(tmp_path / "one")
    return tmp_path


def measure(path: Path, **changes: object) -> None:
    bench = bench_example.document(BenchOptions(), baselines=("float, ONNX Runtime",))
    parity = dataclasses.replace(parity_example.document(), **changes)  # type: ignore[arg-type]
    update_bundle(
        path,
        reports={
            "bench.json": json.dumps(bench.to_dict()).encode(),
            "parity.json": json.dumps(parity.to_dict()).encode(),
        },
    )


def test_a_column_each(folder: Path) -> None:
    page = several_page([open_bundle(folder / name) for name in ("one", "two")])
    for text in (
        ">1: one</th>",
        ">2: two</th>",
        "Do not ship</td><td>? Not decided yet (robustness not measured)</td>",
        "<td>+1.50 [+1.00, +2.00]</td><td>-</td>",
        "<td>2.00 [1.90, 2.10]</td><td>-</td>",
        "<td>1.00, 1.30</td>",
        "<td>EPYC, 8 cores</td>",
    ):
        assert text in page, text
    assert "<svg" not in page  # one point is no comparison


def test_choices_are_drawn_and_doubts_are_said(folder: Path) -> None:
    measure(folder / "two", data="other photos")
    page = several_page([open_bundle(folder / name) for name in ("one", "two")])
    assert page.count("<svg") == 1
    assert page.count("<circle") == 2
    assert "Errors are of different images, corruptions or severities" in page
    assert "different machines" not in page


def test_one_model_built_on_several_dates_has_a_history(folder: Path) -> None:
    """Whatever the order on the command line; what was built at once has none."""
    shutil.copytree(folder / "one", folder / "three")
    measure(folder / "two")
    built = {"one": "2026-03-01T10:00:00Z", "two": "2026-01-01T00:00:00Z"}
    opened = [
        dated(open_bundle(folder / name), built.get(name, "2026-02-01T00:00:00Z"))
        for name in ("one", "two", "three")
    ]
    page = several_page(opened)
    (figure,) = re.findall(r"<h2>Over time</h2>\n(<figure>.*?</figure>)\n</section>", page)
    assert "2 built 2026-01-01 00:00; 3 built 2026-02-01 00:00; 1 built 2026-03-01 10:00" in figure
    titles = re.findall(r"<title>([^<]*)</title>", figure)
    assert titles == [
        f"{mark}, {date}: {what}"
        for what in ("corruption error 21.50", "median latency, ms 1.00")
        for mark, date in (
            ("2", "2026-01-01 00:00"),
            ("3", "2026-02-01 00:00"),
            ("1", "2026-03-01 10:00"),
        )
    ]
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)%', figure)]
    assert places[:3] == sorted(places[:3])
    assert places[:3] == places[3:]
    at_once = [dated(one, "2026-03-01T10:00:00Z") for one in opened]
    assert "Over time" not in several_page(at_once)
    # One measured build is no history, and neither are two targets.
    bare = open_bundle(Path(shutil.copytree(bundles.bundle("cpu", "inline"), folder / "bare")))
    assert "Over time" not in several_page([opened[0], dated(bare, "2026-02-01T00:00:00Z")])
    target = dataclasses.replace(opened[1].manifest.target, name="another")
    manifest = dataclasses.replace(opened[1].manifest, target=target)
    other = dataclasses.replace(opened[1], manifest=manifest)
    assert "Over time" not in several_page([opened[0], other])


def dated(bundle: Bundle, created: str) -> Bundle:
    """The bundle as if built then."""
    manifest = dataclasses.replace(bundle.manifest, created=created)
    return dataclasses.replace(bundle, manifest=manifest)


def test_several_need_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(folder / "one"), str(folder / "two")]
    with pytest.raises(SystemExit) as stop:
        main(["report", *names])
    assert stop.value.code == 2
    assert "name a file with -o" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["report", *names, "--json", "-o", str(folder / "both.html")])
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "bundle": names[0],
        "report": str(folder / "both.html"),
        "bundles": names,
    }
    assert "2 bundles side by side" in (folder / "both.html").read_text()


def test_a_pending_engine_says_what_is_proven_and_what_is_to_come(folder: Path) -> None:
    guard = {"views": 64, "logits_rms": 0.08, "top1_equal": 0.984375, "codes_equal": 0.953125}
    page = report_page(with_sections(folder / "two", engine={"state": "pending"}, guard=guard))
    for text in (
        "Not decided yet (its engine is not built)",
        "on 64 held-out views 98.4% of top-1 answers, 95.3% of codes equal",
        "not the engine",
        "edgekit parity BUNDLE --device NAME",
    ):
        assert text in page, text
    assert "<svg" not in page
    assert "Before the device" not in report_page(open_bundle(folder / "two"))
    graph = dataclasses.replace(parity_example.document(verdict="pass"), judged="graph")
    sections = {"engine": {"state": "pending"}, GRAPH_SECTION: graph.to_dict()}
    page = report_page(with_sections(folder / "two", **sections))
    for text in (
        "<dt>the graph&#x27;s robustness</dt><dd>pass: +1.50 points [+1.00, +2.00] of corruption",
        "<h2>Robustness of the graph</h2>",
        "This is not the engine&#x27;s robustness.",
        "<h2>Codes of the graph</h2>",
        "Not decided yet (its engine is not built)",
    ):
        assert text in page, text
    beside = several_page([with_sections(folder / "two", **sections), open_bundle(folder / "one")])
    assert "of the graph and not the engine</td><td>+1.50 [+1.00, +2.00]</td><td>-</td>" in beside
    unchecked = report_page(with_sections(folder / "two", engine={"state": "pending"}))
    assert "not checked" in unchecked
    assert SELFTEST not in open_bundle(folder / "two").manifest.files
    assert "none in the bundle" in unchecked


def with_sections(path: Path, **sections: object) -> Bundle:
    opened = open_bundle(path)
    manifest = dataclasses.replace(opened.manifest, sections=sections)
    return dataclasses.replace(opened, manifest=manifest)

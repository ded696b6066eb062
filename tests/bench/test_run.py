"""`edgekit bench` as a whole, on a small bundle."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekit.bench.document import BenchDocument, BenchReport
from edgekit.bench.evidence import save
from edgekit.bench.interleaved import Ratio
from edgekit.bench.options import SCENARIOS, BenchOptions
from edgekit.bench.results import PHASES
from edgekit.bench.run import bench_bundles
from edgekit.bundle.engine import EngineState
from edgekit.bundle.selftest import SELFTEST, SelfTest
from edgekit.bundle.store import open_bundle, update_bundle
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.report.bench_table import show
from edgekit.steps.selftest import make_self_test, with_own_answers
from edgekit.steps.selftest_scenes import make_scenes
from tests import bundles

QUIET = Console(verbosity=-1)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles.bundle("cpu", "inline"), tmp_path / "cpu"))


def stored_answers(path: Path) -> SelfTest:
    made = bundles.made()
    graph, preprocessing = onnx.load(made.onnx), made.card.preprocessing
    scenes = make_scenes(graph, preprocessing, None, 0)
    test = make_self_test(graph, preprocessing, scenes, "openvino")
    return with_own_answers(path, test)


def measure(path: Path, cache: Path, **options: Any) -> BenchDocument:
    chosen = BenchOptions(**{"seconds": 0.3, "baseline": "none", **options})
    (document,) = bench_bundles([path], chosen, QUIET, cache).bundles
    return document


def test_the_lookups_share_is_named(tmp_path: Path) -> None:
    path = Path(shutil.copytree(bundles.bundle("cpu", "plugin"), tmp_path / "cpu"))
    assert list(path.glob("*.so"))  # the operator, not an inlined lookup
    layers = measure(path, tmp_path / "cache", scenarios=("latency",), layers=True).layers
    assert layers is not None
    parts = layers.parts
    lookup = {"codebook lookup", "lookup and head, fused"} & set(parts)
    assert len(lookup) == 1
    assert 0 < parts[lookup.pop()].share < 1
    assert "backbone" in parts


def test_every_scenario_measures(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.bench.run._COLD_STARTS", 1)
    update_bundle(bundle, reports={SELFTEST: stored_answers(bundle).to_bytes()})
    update_bundle(bundle, sections={"bench": {"schema": 1, "cores": 99}})
    measured = measure(
        bundle,
        tmp_path / "cache",
        scenarios=SCENARIOS,
        minutes=0.01,
        layers=True,
        baseline=str(bundles.made().onnx),
    )
    document = measured.to_dict()
    found = document["scenarios"]
    assert document["self_test"]["stored"]["top1_equal"] == 40
    assert document["self_test"]["stored"]["problems"] == []
    latencies = found["latency"]["latencies"]
    assert set(latencies) == {"bundle", "float, ONNX Runtime", "float, OpenVINO"}
    assert set(found["latency"]["ratios"]) == set(latencies) - {"bundle"}
    own = latencies["bundle"]
    assert own["min_ms"] <= own["median_ms"] <= own["p95_ms"] <= own["p99_ms"] <= own["max_ms"]
    assert 0 < found["latency"]["in_runtime_ms"]["bundle"] < own["median_ms"]
    assert found["throughput"]["models"]["bundle"]["images_per_second"] > 0
    for start in found["cold-start"].values():
        assert set(start["phases_ms"]) == set(PHASES)
        assert all(value >= 0 for value in start["phases_ms"].values())
        assert start["median_ms"] > start["phases_ms"]["load"]
    for kept in found["memory"].values():
        assert 20 < kept["runtime_mib"] <= kept["peak_mib"]
    assert len(found["sustained"]["points"]) >= 3
    parts = document["layers"]["parts"]
    # Even those of less than a microsecond, for which OpenVINO counts no time.
    assert {"backbone", "attention head", "codebook lookup"} <= set(parts)
    assert not {"Result", "Constant"} & {
        row["kind"].split()[0] for row in document["layers"]["layers"]
    }
    assert abs(sum(part["share"] for part in parts.values()) - 1) < 1e-6
    text = json.dumps(document, allow_nan=False)
    assert BenchDocument.from_dict(json.loads(text), "this test") == measured

    save(bundle, measured, QUIET)
    stored = open_bundle(bundle).manifest
    assert "bench.json" in stored.files
    section = stored.sections["bench"]  # in the form of the build's own comparison
    assert section["latencies"]["bundle"]["median_ms"] == own["median_ms"]
    assert section["cores"] != 99
    assert section["throughput"]["streams"] >= 1


def test_batch_and_threads_are_the_runs_own(bundle: Path, tmp_path: Path) -> None:
    document = measure(bundle, tmp_path, scenarios=("latency",), batch=3, threads=1)
    latency = document.scenarios.latency
    assert latency is not None
    assert latency.images == 3
    assert (document.runtime["batch"], document.runtime["threads"]) == (3, 1)
    update_bundle(bundle, sections={"bench": {"schema": 1}})
    save(bundle, document, QUIET)
    assert open_bundle(bundle).manifest.sections["bench"] == {"schema": 1}
    assert document.summary().batch == 3
    usual = measure(bundle, tmp_path, scenarios=("latency",))
    built = dataclasses.replace(
        usual.summary(), ratios={"float, ONNX Runtime": Ratio(2.0, 1.9, 2.1)}
    ).to_dict()
    update_bundle(bundle, sections={"bench": built})
    save(bundle, usual, QUIET)  # without baselines it says less than the build did
    assert open_bundle(bundle).manifest.sections["bench"] == built


def test_bundles_run_in_turns(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    options = BenchOptions(scenarios=("latency", "throughput"), seconds=0.3, compare=True)
    report = bench_bundles([bundle, other], options, QUIET, tmp_path)
    document = report.to_dict()
    assert BenchReport.from_dict(json.loads(json.dumps(document)), "this test") == report
    latency = document["comparison"]["latency"]
    assert list(latency["latencies"]) == [str(bundle), str(other)]
    ratio = latency["ratios"][str(other)]
    assert 0.3 < ratio["median"] < 3
    assert ratio["low"] <= ratio["median"] <= ratio["high"]
    assert set(document["comparison"]["throughput"]["ratios"]) == {str(other)}
    show(report, QUIET)
    assert "taking turns" in capsys.readouterr().out
    save(bundle, report.bundles[0], QUIET)  # nothing was measured of it alone
    assert "bench.json" not in open_bundle(bundle).manifest.files
    with pytest.raises(UsageError, match="two bundles"):
        bench_bundles([bundle], options, QUIET, tmp_path)


def test_a_bundle_that_computes_something_else_is_not_timed(bundle: Path, tmp_path: Path) -> None:
    test = stored_answers(bundle)
    assert test.own is not None
    wrong = dataclasses.replace(test.own, logits=-test.own.logits)
    test = dataclasses.replace(test, own=wrong)
    update_bundle(bundle, reports={SELFTEST: test.to_bytes()})
    with pytest.raises(EdgekitError, match="fails its self-test"):
        measure(bundle, tmp_path, scenarios=("latency",))


def edgekit(*words: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process that then fails if it imported what a device does not have."""
    code = (
        "import sys\nfrom edgekit.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n"
        "    heavy = {'torch', 'nncf', 'onnx', 'scipy', 'cv2'} & set(sys.modules)\n"
        "    if heavy: sys.stderr.write(f'heavy: {heavy}'); sys.stderr.flush(); "
        "import os; os._exit(77)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )


def test_command_prints_and_keeps_one_document(bundle: Path, tmp_path: Path) -> None:
    done = edgekit(
        *("bench", str(bundle), "--scenario", "latency", "--seconds", "0.2", "--baseline", "none"),
        *("--json", "-o", str(tmp_path / "out.json")),
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "out.json").read_text())
    assert document["bundles"][0] == json.loads((bundle / "bench.json").read_text())


def test_command_refuses_in_one_line(bundle: Path, tmp_path: Path) -> None:
    update_bundle(bundle, sections={"engine": EngineState().to_section()})
    done = edgekit("bench", str(bundle))
    assert done.returncode == 4
    assert "build_on_device.sh" in done.stderr
    assert done.stderr.count("\n") == 1
    assert edgekit("bench", str(tmp_path / "none")).returncode == 2
    for words in (["--seconds", "0"], ["--batch", "0"], ["--compare"], ["--scenario", "speed"]):
        assert edgekit("bench", str(bundles.bundle("cpu", "inline")), *words).returncode == 2

"""`benchmarks/families.py` from images to table, on a tiny network; and the order of its steps."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CIFAR10 = ROOT.parent / "shared" / "data" / "cifar10-jpeg.npz"
sys.path.append(str(ROOT / "benchmarks"))

from families_schedule import Step, run_all  # noqa: E402 - beside the script that uses it


def run(work: Path) -> str:
    command = [sys.executable, "benchmarks/families.py", "--quick", "--seconds", "60"]
    done = subprocess.run(
        [*command, "--work", str(work), "--data", str(CIFAR10)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    logs = "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in work.glob("log-*"))
    assert done.returncode == 0, done.stderr + logs
    assert "FAILED" not in done.stdout, done.stdout + logs
    return done.stdout


@pytest.mark.skipif(not CIFAR10.exists(), reason="needs CIFAR-10 beside the project")
def test_from_images_to_table_and_nothing_twice(tmp_path: Path) -> None:
    printed = run(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["form"], row["dialect"].removesuffix("-novnni")) for row in rows] == [
        ("default", "openvino"),
        ("default", "onnxruntime"),
        ("default", "tensorrt"),
        ("all-int8", "tensorrt"),
    ]
    for row in rows:
        assert printed.count(f"| {row['family']} | {row['form']} | {row['dialect']} |") == 1
        assert (row["images"], row["views"]) == (80, 5)
        assert row["codewords_used"] > 1
        change = row["corruption_change"]
        assert change["lower"] <= change["estimate"] <= change["upper"]
        difference = row["corruption_error"] - row["float_corruption_error"]
        assert change["estimate"] == pytest.approx(difference, abs=1e-6)
        # An INT8 graph that answers at all like its float model, and not by being it.
        assert 1e-4 < row["relative_rms"] < 0.3
        assert row["top1_equal"] > 0.7
    default, bare = rows[2], rows[3]
    assert len(default["kept_float"]) == 1  # the first depthwise convolution
    assert bare["kept_float"] == []
    assert default["reasons"]["first depthwise: Conv"] == 1
    assert default["reasons"]["activations: Erf"] == 5  # a GELU behind each of the convolutions
    assert default["reasons"]["batch-norms: BatchNormalization"] == 5  # and a batch norm there
    assert not any(reason.startswith("activations") for reason in bare["reasons"])
    # One result is lost: it alone is made again.
    (tmp_path / "convmixer_32_2" / "default-tensorrt.npz").unlink()
    again = run(tmp_path)
    steps = [line for line in again.splitlines() if " s  " in line]
    assert len(steps) == 1
    assert "answers:convmixer_32_2:default:tensorrt" in steps[0]
    assert again.splitlines()[1:] == printed.splitlines()[-len(again.splitlines()) + 1 :]


def step(name: str, folder: Path, code: str, *needs: str, kind: str = "cpu") -> Step:
    result = folder / name
    command = [sys.executable, "-S", "-c", f"import pathlib, time; {code}", str(result)]
    return Step(name, result, needs, kind, command)  # type: ignore[arg-type] # a word of Kind


TOUCH = "import sys; pathlib.Path(sys.argv[1]).write_text(str(time.monotonic()))"


def test_steps_wait_for_what_they_need_and_a_failure_stops_only_its_own(tmp_path: Path) -> None:
    steps = [
        step("late", tmp_path, TOUCH, "early"),
        step("early", tmp_path, f"time.sleep(0.2); {TOUCH}", kind="all"),
        step("broken", tmp_path, "raise SystemExit(3)"),
        step("empty", tmp_path, "pass"),  # ends well, and leaves no result
        step("hopeless", tmp_path, TOUCH, "broken"),
        step("worse", tmp_path, TOUCH, "hopeless"),
    ]
    failed = run_all(steps, 1, tmp_path, None)
    assert set(failed) == {"broken", "empty", "hopeless", "worse"}
    assert float((tmp_path / "early").read_text()) < float((tmp_path / "late").read_text())
    before = (tmp_path / "late").read_text()
    assert run_all(steps[:2], 1, tmp_path, None) == []
    assert (tmp_path / "late").read_text() == before


def test_a_gpu_has_so_many_places(tmp_path: Path) -> None:
    code = f"{TOUCH}; time.sleep(0.5)"
    steps = [step(f"gpu{i}", tmp_path, code, kind="gpu") for i in range(2)]
    assert run_all(steps, 1, tmp_path, None) == []
    first, second = (float((tmp_path / name).read_text()) for name in ("gpu0", "gpu1"))
    assert second - first >= 0.5


def test_a_limit_ends_what_runs(tmp_path: Path) -> None:
    steps = [
        step("endless", tmp_path, "time.sleep(60)", kind="all"),
        step("next", tmp_path, TOUCH, "endless"),
    ]
    start = time.monotonic()
    assert run_all(steps, 1, tmp_path, 1.0) == ["endless", "next"]
    assert time.monotonic() - start < 30

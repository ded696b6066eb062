"""`benchmarks/gallery.py`: its table of what is finished, and that its models are what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edgekit.parity.document import Closeness, Estimate
from tests.parity import example

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from gallery_models import MODELS, preprocessing  # noqa: E402 - beside the script that uses it


def test_the_table_has_what_is_finished(tmp_path: Path) -> None:
    model = MODELS[0].name
    close = Closeness(Estimate(0.97, 0.95, 0.98), 0.034, 0.05)
    document = example.document(closeness=close).to_dict()
    folder = tmp_path / model
    folder.mkdir()
    row = {"model": model, "tool": "nncf", "exit": 3, **document}
    (folder / "nncf.json").write_text(json.dumps(row))
    done = subprocess.run(
        [sys.executable, "benchmarks/gallery.py", "--work", str(tmp_path), "--table"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(f"| {model}"))
    assert line == (
        f"| {model} | nncf | 20.0 → 21.5 | 20.0 → 21.5 | +1.50 [+1.00, +2.00] "
        "| 97.0 / 90.0 | 3% | fail | 100 |"
    )
    stored = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(one) for one in stored] == [row]
    assert "torch" in done.stdout.splitlines()[-1]


def test_the_preprocessing_is_one_that_parity_reads(tmp_path: Path) -> None:
    from edgekit.foreign.pixels import read_preprocessing

    for model in MODELS:
        path = tmp_path / f"{model.name}.toml"
        path.write_text(preprocessing(model))
        told = read_preprocessing(str(path), model.name)
        assert told.size == (48, 48)
        assert told.preprocessing.mean == model.mean
        assert told.preprocessing.std == model.std

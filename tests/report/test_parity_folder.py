"""The folder of a comparison that no bundle keeps."""

import json
from pathlib import Path

import pytest

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.report.pair_page import pair_page
from edgekit.report.parity_folder import keep, prepare
from tests.parity.example import document


def test_a_result_replaces_an_earlier_one(tmp_path: Path) -> None:
    prepare(tmp_path)
    keep(tmp_path, document(images=50), Console(verbosity=-1))
    keep(tmp_path, document(candidate="caf\udce9.onnx"), Console(verbosity=-1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parity.json", "report.html"]
    assert json.loads((tmp_path / "parity.json").read_text())["candidate"] == "caf\udce9.onnx"
    assert "caf\N{REPLACEMENT CHARACTER}.onnx" in (tmp_path / "report.html").read_text()


def test_without_labels_there_are_no_errors_to_show() -> None:
    page = pair_page(document(labeled=False))
    assert "Errors, %" not in page
    assert "unlabeled" in page


def test_a_place_that_is_taken_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="is a bundle: name a folder of its own"):
        prepare(tmp_path)
    with pytest.raises(UsageError, match="cannot make"):
        prepare(tmp_path / "manifest.json" / "inside")

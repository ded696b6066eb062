"""The two files of `edgekit calibrate`, of which a stopped run may have written one."""

from pathlib import Path

import pytest

from edgekit.cli.calibrate import _refuse_existing, _write_both
from edgekit.core import files
from edgekit.core.errors import UsageError


def test_a_run_that_was_stopped_between_its_files_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, listing = tmp_path / "a.onnx", tmp_path / "a.onnx.images.json"
    real = files.write_bytes
    written: list[Path] = []

    def stopped(path: Path, data: bytes) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        real(path, data)

    monkeypatch.setattr(files, "write_bytes", stopped)
    with pytest.raises(KeyboardInterrupt):
        _write_both(output, b"graph", listing, b"list")
    monkeypatch.setattr(files, "write_bytes", real)
    assert listing.exists()
    _refuse_existing(output)  # as the next run does first
    _write_both(output, b"graph", listing, b"list")
    assert (output.read_bytes(), listing.read_bytes()) == (b"graph", b"list")
    with pytest.raises(UsageError, match="exists: choose another name"):
        _refuse_existing(output)


def test_another_list_is_not_overwritten(tmp_path: Path) -> None:
    output, listing = tmp_path / "a.onnx", tmp_path / "a.onnx.images.json"
    listing.write_bytes(b"somebody's")
    with pytest.raises(UsageError, match=r"images\.json is there and differs"):
        _write_both(output, b"graph", listing, b"list")
    assert listing.read_bytes() == b"somebody's"
    assert not output.exists()

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.core.folders import remove_folder
from edgekit.core.step_cache import cached, find, key_of

QUIET = Console(verbosity=-1)


def counting(calls: list[int]) -> object:
    def make(folder: Path) -> None:
        calls.append(1)
        (folder / "out.txt").write_text(f"made {len(calls)}")

    return make


def test_made_once_and_found_again(tmp_path: Path) -> None:
    calls: list[int] = []
    first = cached(tmp_path, "export", {"a": 1}, counting(calls), QUIET)  # type: ignore[arg-type]
    again = cached(tmp_path, "export", {"a": 1}, counting(calls), QUIET)  # type: ignore[arg-type]
    other = cached(tmp_path, "export", {"a": 2}, counting(calls), QUIET)  # type: ignore[arg-type]
    assert first == again != other
    assert len(calls) == 2
    assert json.loads((first / "entry.json").read_text())["inputs"] == {"a": 1}


def test_force_makes_it_again(tmp_path: Path) -> None:
    calls: list[int] = []
    for _ in range(2):
        entry = cached(tmp_path, "export", {"a": 1}, counting(calls), QUIET, force=True)  # type: ignore[arg-type]
    assert (entry / "out.txt").read_text() == "made 2"
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]


@pytest.mark.parametrize("damage", ["content", "missing", "record"])
def test_a_damaged_entry_is_found_and_rebuilt(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []
    entry = cached(tmp_path, "export", {}, counting(calls), QUIET)  # type: ignore[arg-type]
    if damage == "content":
        (entry / "out.txt").write_text("made X")
    elif damage == "missing":
        (entry / "out.txt").unlink()
    else:
        (entry / "entry.json").write_text("{")
    assert find(tmp_path, "export", {}, QUIET) is None
    assert "damaged" in capsys.readouterr().err
    cached(tmp_path, "export", {}, counting(calls), QUIET)  # type: ignore[arg-type]
    assert len(calls) == 2


def test_an_entry_that_another_build_has_mended_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and its removal."""
    calls: list[int] = []
    entry = cached(tmp_path, "export", {}, counting(calls), QUIET)  # type: ignore[arg-type]
    (entry / "out.txt").write_text("made X")

    def mended(path: Path, still: Callable[[Path], bool]) -> None:
        cached(tmp_path, "export", {}, counting(calls), QUIET, force=True)  # type: ignore[arg-type]
        remove_folder(path, still)

    monkeypatch.setattr("edgekit.core.step_cache.remove_folder", mended)
    assert find(tmp_path, "export", {}, QUIET) is None
    assert find(tmp_path, "export", {}, QUIET) == entry


def test_a_failing_step_leaves_nothing(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise EdgekitError("no")

    with pytest.raises(EdgekitError):
        cached(tmp_path, "export", {}, make, QUIET)
    assert list((tmp_path / "export").iterdir()) == []


def test_the_key_depends_on_step_and_inputs() -> None:
    assert key_of("export", {"a": 1, "b": 2}) == key_of("export", {"b": 2, "a": 1})
    assert len({key_of("export", {"a": 1}), key_of("export", {"a": 2}), key_of("x", {"a": 1})}) == 3


def test_an_unwritable_cache_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgekitError, match="set EDGEKIT_CACHE"):
        cached(tmp_path / "file", "export", {}, lambda folder: None, QUIET)

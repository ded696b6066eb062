"""The bounded folder of kept answers."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.metrics.corruption_error import kl_divergence
from edgekit.parity.answer_cache import (
    DEFAULT_BYTES,
    LIMIT,
    NO_ANSWERS,
    AnswerCache,
    CachedAnswers,
    Outputs,
    condense,
    limit_bytes,
)
from edgekit.runtime.answers import Answers
from tests.parity.models import coarse, sweep


def known(fill: int = 0, count: int = 4, classes: int = 50) -> CachedAnswers:
    labels = [f"fog/{number}" for number in range(count)]
    top = np.full(count, fill, np.int64)
    log_p = np.full((count, classes), -1.5, np.float16)
    margin = np.linspace(0, 1, count, dtype=np.float32)
    return CachedAnswers(labels, Outputs(top, log_p, top[:, None].repeat(3, 1), margin))


def used(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*") if path.name != "lock")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with AnswerCache(tmp_path, 1 << 20).shelf("a") as shelf:
        assert shelf.read("0" * 40) == NO_ANSWERS
        shelf.write("0" * 40, known(7))
        shelf.write(
            "1" * 40,
            CachedAnswers(
                ["clean"], Outputs(np.array([3]), np.zeros((1, 2), np.float16), None, None)
            ),
        )
        found, bare = shelf.read("0" * 40), shelf.read("1" * 40)
    assert found.labels == known().labels
    assert found.outputs is not None
    pairs: Iterator[tuple[Any, Any]] = zip(found.outputs, known(7).outputs or (), strict=True)
    for got, wanted in pairs:
        assert np.array_equal(got, wanted)
        assert got.dtype == wanted.dtype
    assert bare.outputs is not None
    assert bare.outputs.code is None
    assert bare.outputs.margin is None


def test_the_longest_unused_answers_make_room(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, 13_000)
    for age, key in enumerate(("first", "second", "third")):
        with cache.shelf(key) as shelf:
            for image in range(8):
                shelf.write(f"{image:040}", known())
        lock = max(tmp_path.glob("*/lock"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(lock, (age, age))
    assert used(tmp_path) <= 13_000
    left = {}
    for key in ("first", "second", "third"):
        with cache.shelf(key) as shelf:
            left[key] = sum(shelf.read(f"{image:040}") != NO_ANSWERS for image in range(8))
    assert left["third"] == 8
    assert left["first"] < left["second"]
    assert cache.bytes_used() == used(tmp_path)


def test_what_a_comparison_reads_is_never_dropped(tmp_path: Path) -> None:
    other = AnswerCache(tmp_path, 8000)
    with AnswerCache(tmp_path, 8000).shelf("running") as running:
        for image in range(8):
            running.write(f"{image:040}", known())
        with other.shelf("newer") as newer:
            for image in range(20):
                newer.write(f"{image:040}", known())
            assert used(tmp_path) <= 8000
            kept = [running.read(f"{image:040}") != NO_ANSWERS for image in range(8)]
            assert all(kept)
            assert newer.read(f"{19:040}") == NO_ANSWERS  # there was no room, so it was not kept
    with AnswerCache(tmp_path, 8000).shelf("later") as later:  # now there is
        for image in range(6):
            later.write(f"{image:040}", known())
        assert later.read(f"{5:040}") != NO_ANSWERS


def test_room_that_is_taken_ahead_is_given_back(tmp_path: Path) -> None:
    """Where there is plenty of room, most files are written without looking at the sum."""
    totals = set()
    first, second = (AnswerCache(tmp_path, 1 << 30) for _ in range(2))
    with first.shelf("first") as one, second.shelf("second") as two:
        for image in range(8):
            one.write(f"{image:040}", known(image))
            two.write(f"{image % 3:040}", known(image))  # replaced: counted once
            totals.add((tmp_path / "total").read_text())
    assert len(totals) == 1
    assert int((tmp_path / "total").read_text()) == used(tmp_path) == first.bytes_used()


def fill(folder: Path, key: str) -> None:
    with AnswerCache(folder, 60_000).shelf(key) as shelf:
        for image in range(150):
            shelf.write(f"{image:040}", known(image))
            found = shelf.read(f"{image:040}")
            assert found == NO_ANSWERS or found.outputs is not None


def test_processes_share_the_bound(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fill, args=(tmp_path, key)) for key in "abab"]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        assert used_now(tmp_path) <= 60_000 + 4 * 1000  # and what is being written
        time.sleep(0.005)
    assert [process.exitcode for process in processes] == [0] * 4
    assert int((tmp_path / "total").read_text()) == used(tmp_path) <= 60_000
    assert not list(tmp_path.glob("*/.new-*"))


def used_now(folder: Path) -> int:
    total = 0
    for path in folder.glob("*/*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def test_a_sweep_that_keeps_nothing_finds_the_same(tmp_path: Path) -> None:
    models = coarse(), coarse(key="other", blind=0.3)
    kept = list(sweep(tmp_path / "a", *models, images=4).pairs())
    forgot = sweep(tmp_path / "b", *models, cache_bytes=0, images=4)
    for _ in range(2):
        pairs = list(forgot.pairs())
        assert sum(pair.computed for pair in pairs) == 2 * 4 * 5
        for one, two in zip(kept, pairs, strict=True):
            assert np.array_equal(one.candidate.log_p, two.candidate.log_p)
    assert used(tmp_path / "b") == 0


def test_the_limit_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT, raising=False)
    assert limit_bytes() == DEFAULT_BYTES
    monkeypatch.setenv(LIMIT, "3")
    assert limit_bytes() == 3 << 20
    monkeypatch.setenv(LIMIT, "4 GB")
    with pytest.raises(UsageError, match="must be a number of megabytes such as 4096"):
        limit_bytes()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(EdgekitError, match="set EDGEKIT_CACHE to another folder"),
        AnswerCache(tmp_path / "file" / "parity", 1).shelf("a"),
    ):
        pass


@pytest.mark.parametrize("change", [1e-3, 1e-2, 0.1])
def test_half_precision_is_enough_for_the_divergence(change: float) -> None:
    rng = np.random.default_rng(0)
    logits = (4 * rng.standard_normal((300, 1000))).astype(np.float32)
    other = logits + change * rng.standard_normal(logits.shape).astype(np.float32)
    exact = kl_divergence(logits, other).mean()
    halves = [condense(Answers(part, None, None)).log_p for part in (logits, other)]
    rounded = kl_divergence(*halves).mean()
    assert rounded == pytest.approx(exact, rel=0.02, abs=2e-6)
    assert kl_divergence(halves[0], halves[0]).max() == 0


def test_the_winner_is_taken_before_rounding() -> None:
    logits = np.array([[10.0, 10.00001, -9e4], [np.nan, 1, 2], [np.inf, 0, 0]], np.float32)
    outputs = condense(Answers(logits, None, None))
    assert outputs.top.tolist() == [1, -1, -1]
    assert np.isfinite(outputs.log_p).all()

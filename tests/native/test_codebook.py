"""The compiled lookup against its definition in NumPy, and its refusals."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.native import codebook as native

METRICS = ["dot", "l2"]
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)


def available_paths() -> list[str]:
    with native.Codebook(np.ones((1, 1), np.float32)) as codebook:
        return list(codebook.describe()["available"])


def same(found: native.LookupResult, expected: native.LookupResult, what: str = "") -> None:
    np.testing.assert_array_equal(found.indices, expected.indices, what)
    np.testing.assert_array_equal(found.best, expected.best, what)
    np.testing.assert_array_equal(found.margin, expected.margin, what)


def check(rows: np.ndarray, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """All paths of this machine, both metrics, equal to the definition bit for bit."""
    for metric in METRICS:
        expected = native.lookup_reference(rows, x, metric)
        for path in available_paths():
            monkeypatch.setenv("EDGEKIT_LOOKUP_PATH", path)
            with native.Codebook(rows, metric) as codebook:
                assert codebook.describe()["path"] == path
                same(codebook.lookup(x), expected, path)
                one = codebook.lookup(x[:1], want_margin=False)
                np.testing.assert_array_equal(one.indices, expected.indices[:1], path)
            monkeypatch.delenv("EDGEKIT_LOOKUP_PATH")


@pytest.mark.parametrize("width", [*range(1, 34), 64, 200, 2048])
def test_equals_the_definition_for_every_width(width, monkeypatch):
    rng = np.random.default_rng(width)
    rows = rng.standard_normal((37, width), np.float32)
    check(rows, rng.standard_normal((5, width), np.float32), monkeypatch)


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 1000])
def test_equals_the_definition_for_every_size(count, monkeypatch):
    rng = np.random.default_rng(count)
    rows = rng.standard_normal((count, 24), np.float32)
    check(rows, rng.standard_normal((7, 24), np.float32), monkeypatch)


def test_a_hundred_thousand_rows():
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((100_000, 64), np.float32)
    x = rows[rng.integers(0, 100_000, 3)] + rng.standard_normal((3, 64), np.float32) / np.float32(8)
    with native.Codebook(rows) as codebook:
        same(codebook.lookup(x, threads=0), native.lookup_reference(rows, x))


def test_392_vectors_match_a_float64_argmax():
    rng = np.random.default_rng(6)
    rows = np.maximum(rng.standard_normal((1000, 512), np.float32), 0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    x = np.maximum(rng.standard_normal((392, 512), np.float32), 0)
    with native.Codebook(rows) as codebook:
        found = codebook.lookup(x).indices
    np.testing.assert_array_equal(found, (x.astype(float) @ rows.astype(float).T).argmax(axis=1))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_finite_floats(data, monkeypatch):
    n, d, m = (
        data.draw(st.integers(1, 9)),
        data.draw(st.integers(1, 20)),
        data.draw(st.integers(1, 3)),
    )
    rows = data.draw(arrays(np.float32, (n, d), elements=FINITE))
    x = data.draw(arrays(np.float32, (m, d), elements=FINITE))
    check(rows, x, monkeypatch)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), width=st.integers(60, 140), near=st.integers(0, 24))
def test_rows_that_differ_in_their_last_bits(seed, width, near, monkeypatch):
    """A row, copies with 2^-near of noise, and vectors along their differences."""
    rng = np.random.default_rng(seed)
    row = rng.standard_normal(width).astype(np.float32)
    noise = rng.standard_normal((80, width)).astype(np.float32) * np.float32(2.0**-near)
    rows = row + noise
    x = np.stack([row, row + noise[3], noise[3], noise[5] - noise[7], row - noise[9]])
    check(rows, x, monkeypatch)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_small_integers_give_the_first_of_many_ties(data):
    n, d, m = (data.draw(st.integers(1, 20)) for _ in range(3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows = rng.integers(-1, 2, (n, d)).astype(np.float32)
    x = rng.integers(-1, 2, (m, d)).astype(np.float32)
    with native.Codebook(rows) as codebook:
        found = codebook.lookup(x)
    scores = x.astype(np.int64) @ rows.astype(np.int64).T
    np.testing.assert_array_equal(found.indices, scores.argmax(axis=1))
    np.testing.assert_array_equal(found.best, scores.max(axis=1))


@pytest.mark.every_core
def test_threads_do_not_change_the_result():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((4000, 128), np.float32)
    for count in (3, 50):
        x = rng.standard_normal((count, 128), np.float32)
        with native.Codebook(rows) as codebook:
            one = codebook.lookup(x)
            for threads in (0, 2, 5):
                same(codebook.lookup(x, threads), one)


def test_no_vectors_give_no_indices():
    with native.Codebook(np.ones((3, 2), np.float32)) as codebook:
        assert codebook.lookup(np.empty((0, 2), np.float32)).indices.shape == (0,)


def test_without_margin_the_rest_is_the_same():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((50, 8), np.float32)
    x = rng.standard_normal((4, 8), np.float32)
    with native.Codebook(rows) as codebook:
        full, short = codebook.lookup(x), codebook.lookup(x, want_margin=False)
    np.testing.assert_array_equal(full.indices, short.indices)
    np.testing.assert_array_equal(full.best, short.best)
    assert np.isnan(short.margin).all()


def test_an_array_with_strides_is_taken_as_it_reads(monkeypatch):
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((8, 30), np.float32).T
    x = rng.standard_normal((8, 12), np.float32).T
    check(rows[::2], x[::3], monkeypatch)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(value):
    good = np.ones((3, 4), np.float32)
    bad = good.copy()
    bad[2, 1] = value
    with pytest.raises(UsageError, match=r"codebook: .* at row 2, column 1"):
        native.Codebook(bad)
    with native.Codebook(good) as codebook, pytest.raises(UsageError, match=r"x: .* row 2"):
        codebook.lookup(bad)


def test_wrong_arguments_are_one_line():
    good = np.ones((3, 4), np.float32)
    calls = [
        lambda: native.Codebook(good.astype(np.float64)),
        lambda: native.Codebook(good[0]),
        lambda: native.Codebook(good[:0]),
        lambda: native.Codebook(good[:, :0]),
        lambda: native.Codebook(good, "cosine"),
        lambda: native.Codebook([[1.0]]),  # type: ignore[arg-type]
        lambda: native.Codebook(good).lookup(good[:, :3]),
        lambda: native.Codebook(good).lookup(good[0]),
        lambda: native.Codebook(good).lookup(good, threads=-1),
    ]
    for call in calls:
        with pytest.raises(UsageError) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["abacus", "portable-int8", "avx2-", "int8-portable"])
def test_an_unknown_path_is_named(path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_LOOKUP_PATH", path)
    with pytest.raises(UsageError, match=f"EDGEKIT_LOOKUP_PATH.*{path}"):
        native.Codebook(np.ones((3, 4), np.float32))


def test_a_closed_codebook_says_so():
    with native.Codebook(np.ones((3, 4), np.float32)) as codebook:
        pass
    codebook.close()
    with pytest.raises(EdgekitError, match="closed"):
        codebook.lookup(np.ones((1, 4), np.float32))


def test_describe_names_sizes_and_path():
    with native.Codebook(np.ones((3, 4), np.float32), "l2") as codebook:
        description = codebook.describe()
    assert (description["n"], description["d"], description["metric"]) == (3, 4, "l2")
    assert description["packed_bytes"] >= 3 * 4 * 4


def test_a_missing_library_says_what_to_install(monkeypatch):
    monkeypatch.setattr(native, "find_resource", lambda name: None)
    native.load_library.cache_clear()
    with pytest.raises(ToolchainMissing, match=r"pip install \..*g\+\+"):
        native.load_library()


def test_a_damaged_library_says_what_to_do(monkeypatch, tmp_path):
    broken = tmp_path / "libedgekit_codebook.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(native, "find_resource", lambda name: broken)
    native.load_library.cache_clear()
    with pytest.raises(ToolchainMissing, match=r"does not load"):
        native.load_library()


def test_importing_the_module_loads_no_library():
    code = (
        "import edgekit.native.codebook, pathlib;"
        "print('libedgekit_codebook' in pathlib.Path('/proc/self/maps').read_text())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"

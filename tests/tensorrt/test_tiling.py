"""The CUDA lookup's algorithm, run on the host, against the lookup's definition in NumPy."""

import numpy as np
import pytest

from edgekit.native.codebook import LookupResult, lookup_reference
from tests.tensorrt import tiling

METRICS = ["dot", "l2"]
# Of plan.h: few vectors, few vectors of many, and tiles of several shapes.
FEW, SPLIT, TILES = 0, 1, (2, 3, 4, 5)


@pytest.fixture(scope="session")
def device_like(tmp_path_factory):
    return tiling.build(tmp_path_factory.mktemp("tiling"))


def same(found: LookupResult, expected: LookupResult) -> None:
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.best, expected.best)
    np.testing.assert_array_equal(found.margin, expected.margin)


def check(device_like, rows, x, metric="dot", **options):
    found = device_like.lookup(rows, x, metric, **options)
    same(found.result, lookup_reference(rows.astype(np.float32), x.astype(np.float32), metric))
    assert not found.nonfinite
    return found.report


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(rng, count, width, spread=1e-3):
    """Rows in groups of near-duplicates, as a collapsing codebook has."""
    centers = rng.standard_normal((max(count // 12, 1), width))
    picked = centers[rng.integers(len(centers), size=count)]
    return unit(picked + spread * rng.standard_normal((count, width)))


# Sizes around the boundaries of every kernel's blocks, with one part of the codebook and with many.
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("kernel", "m", "n", "processors"),
    [
        (FEW, 1, 1, 1), (FEW, 1, 33, 1), (FEW, 1, 700, 20), (FEW, 2, 5, 4), (FEW, 3, 257, 1),
        (FEW, 5, 65, 2), (FEW, 8, 400, 9), (SPLIT, 9, 31, 8), (SPLIT, 33, 100, 8),
        (SPLIT, 32, 129, 1), (2, 64, 129, 1), (2, 65, 64, 3), (2, 9, 400, 2), (3, 65, 81, 1),
        (3, 64, 320, 2), (4, 112, 128, 1), (4, 113, 300, 2), (5, 208, 129, 1), (5, 20, 257, 4),
        (5, 209, 161, 1),
    ],
)  # fmt: skip
def test_equals_the_definition_for_every_shape(device_like, metric, kernel, m, n, processors):
    rng = np.random.default_rng(m * 1000 + n)
    for width in (1, 37, 130):
        rows = rng.standard_normal((n, width), np.float32)
        x = rng.standard_normal((m, width), np.float32)
        report = check(device_like, rows, x, metric, processors=processors, kernel=kernel)
        assert report.kernel == kernel


def test_the_plan_takes_every_kernel(device_like):
    rng = np.random.default_rng(0)
    found = {
        check(device_like, unit(rng.standard_normal((n, 8))),
              rng.standard_normal((m, 8), np.float32), processors=p).kernel
        for m, n, p in [(3, 50, 4), (20, 50, 4), (60, 250, 4), (60, 310, 4), (110, 250, 2),
                        (200, 120, 1)]
    }  # fmt: skip
    assert found == {FEW, SPLIT, *TILES}


@pytest.mark.parametrize("m", [1, 7, 40])
def test_near_duplicates_that_float_confuses(device_like, m):
    rng = np.random.default_rng(m)
    rows = clustered(rng, 600, 512, spread=1e-8)
    x = rows[rng.integers(600, size=m)] + np.float32(1e-3) * rng.standard_normal((m, 512))
    x = x.astype(np.float32)
    check(device_like, rows, x)
    naive = (x @ rows.T).argmax(axis=1)
    expected = lookup_reference(rows, x).indices
    if m == 40:
        assert (naive != expected).any(), "the case is too easy to show anything"


@pytest.mark.parametrize("m", [1, 6, 20, 70])
def test_ties_go_to_the_lowest_index(device_like, m):
    rng = np.random.default_rng(m)
    rows = rng.integers(-1, 2, (90, 6)).astype(np.float32)
    x = rng.integers(-1, 2, (m, 6)).astype(np.float32)
    for metric in METRICS:
        check(device_like, rows, x, metric)


@pytest.mark.parametrize("m", [1, 3, 20, 70])
def test_a_collapsed_codebook_costs_what_its_distinct_rows_cost(device_like, m):
    rng = np.random.default_rng(m)
    distinct = unit(rng.standard_normal((30, 40)))
    rows = distinct[np.where(rng.random(300) < 0.9, 0, rng.integers(30, size=300))]
    x = np.abs(rng.standard_normal((m, 40), np.float32))
    report = check(device_like, rows, x)
    assert report.rows == len(np.unique(rows, axis=0))
    assert report.exact_scores <= 4 * m * report.parts
    everything_equal = np.repeat(distinct[:1], 300, axis=0)
    for metric in METRICS:
        report = check(device_like, everything_equal, x, metric)
        assert report.rows == 1
        assert report.exact_scores == m


@pytest.mark.parametrize("m", [1, 3, 20, 70])
def test_rows_that_nearly_collapsed_are_told_apart_by_their_center(device_like, m):
    rng = np.random.default_rng(m)
    rows = unit(unit(rng.standard_normal((1, 256))) + 1e-5 * rng.standard_normal((500, 256)))
    report = check(device_like, rows, rng.standard_normal((m, 256), np.float32))
    assert report.exact_scores <= 6 * m * report.parts


@pytest.mark.parametrize("m", [1, 3, 20, 70])
def test_rows_that_no_bound_separates_are_scored_by_all_blocks(device_like, m):
    rng = np.random.default_rng(m)
    # Two far groups of near-duplicates: the center is in the middle of nowhere.
    centers = np.array([[1.0], [-1.0]]) * unit(rng.standard_normal((1, 24)))
    rows = centers[rng.integers(2, size=2000)] + 1e-7 * rng.standard_normal((2000, 24))
    rows = rows.astype(np.float32)
    processors = 40
    report = check(device_like, rows, rows[:m] * 3, processors=processors)
    everything = len(rows) * m
    assert report.exact_scores <= everything
    assert report.exact_scores > 200 * m, "the case is too easy to show anything"
    # No block has much more than its share: sixteen rows at a time, or a whole vector's if there
    # are vectors enough to fill the device.
    assert report.most_exact <= max(64 * m, everything // min(m, 2 * processors) // 2)


def test_a_trained_like_codebook_needs_few_exact_scores(device_like):
    rng = np.random.default_rng(3)
    rows = unit(np.abs(rng.standard_normal((500, 640))))
    x = np.abs(rng.standard_normal((49, 640), np.float32))
    report = check(device_like, rows, x)
    assert 98 <= report.exact_scores < 49 * 4  # of 24,500 scores
    report = device_like.lookup(rows, x, want_best=False, want_margin=False).report
    assert report.exact_scores < 49


def test_blocks_tell_each_other_what_they_have(device_like):
    rng = np.random.default_rng(8)
    rows = unit(rng.standard_normal((2000, 300)))
    x = rows[rng.integers(2000, size=8)] + 0.01 * unit(rng.standard_normal((8, 300)))
    packed = device_like.pack(rows)
    found = device_like.lookup(packed, x.astype(np.float32), processors=40, want_margin=False)
    assert found.report.parts == 40
    assert found.report.exact_scores < 8 * 40 / 3
    # A lookup leaves the packed codebook as it found it: the next one must not believe its bounds.
    other = -x.astype(np.float32)
    again = device_like.lookup(packed, other, processors=40)
    same(again.result, lookup_reference(rows, other))


def test_zero_vectors_and_rows(device_like):
    rng = np.random.default_rng(4)
    for m in (1, 5, 40):
        rows = unit(rng.standard_normal((500, 19)))
        rows[::7] = 0
        x = rng.standard_normal((m, 19), np.float32)
        x[::2] = 0
        for metric in METRICS:
            check(device_like, rows, x, metric)
        check(device_like, np.zeros((40, 19), np.float32), x)


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-20, 1e15, 3e18, 1e25, 3e38])
@pytest.mark.parametrize("m", [3, 20])
def test_tiny_and_huge_values(device_like, scale, m):
    rng = np.random.default_rng(5)
    rows = (rng.uniform(-1, 1, (60, 21)) * scale).astype(np.float32)
    x = rng.uniform(-1, 1, (m, 21)).astype(np.float32)
    for metric in METRICS:
        check(device_like, rows, x, metric)
        check(device_like, rows, (x * np.float32(scale)).astype(np.float32), metric)


def test_rows_of_very_different_length(device_like):
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((200, 33)) * 10.0 ** rng.uniform(-18, 18, (200, 1))
    x = rng.standard_normal((30, 33)) * 10.0 ** rng.uniform(-18, 18, (30, 1))
    for metric in METRICS:
        check(device_like, rows.astype(np.float32), x.astype(np.float32), metric)


def test_many_vectors_go_round_by_round(device_like):
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((9, 2), np.float32)
    x = rng.standard_normal((4096 + 4, 2), np.float32)
    check(device_like, rows, x, processors=100)


@pytest.mark.parametrize("metric", METRICS)
def test_adversarial_roundings(device_like, metric):
    """Values that halves round up on one side and down on the other, as far as they can."""
    rng = np.random.default_rng(9)
    for width in (16, 96, 512):
        step = 2.0**-11  # half a unit in the last place of a half in [1, 2)
        up = 1 + step * (2 * rng.integers(0, 500, (60, width)) + 1 - 1e-3)
        down = 1 + step * (2 * rng.integers(0, 500, (60, width)) + 1 + 1e-3)
        signs = np.where(rng.random(width) < 0.5, 1.0, -1.0)
        rows = np.concatenate([up * signs, down * signs]).astype(np.float32)
        x = np.concatenate([up[:10] * signs, down[:10] * signs, -up[:3]]).astype(np.float32)
        for kernel, m in ((SPLIT, 23), (2, 23), (5, 23), (FEW, 8)):
            check(device_like, rows, x[:m], metric, kernel=kernel)


@pytest.mark.parametrize("m", [1, 4, 20, 70])
def test_cancellation_is_within_the_bound(device_like, m):
    """Terms of size 1e6 that cancel: the float score is wrong in every digit."""
    rng = np.random.default_rng(m)
    half = rng.uniform(1e3, 1e6, (1, 64)).astype(np.float32)
    x = np.repeat(np.concatenate([half, -half], axis=1), m, axis=0)
    x += rng.standard_normal(x.shape).astype(np.float32)
    same_sides = rng.uniform(1, 2, (150, 64))
    rows = np.concatenate([same_sides, same_sides], axis=1)
    rows = (rows + 1e-6 * rng.standard_normal(rows.shape)).astype(np.float32)
    check(device_like, rows, x)


@pytest.mark.parametrize("m", [1, 6, 40])
def test_half_input_is_its_float_copy(device_like, m):
    rng = np.random.default_rng(m)
    for width in (3, 40):
        rows = unit(rng.standard_normal((80, width)))
        x = rng.standard_normal((m, width)).astype(np.float16)
        x[:, 0] = np.float16(6e-8)  # subnormal
        check(device_like, rows, x)
        check(device_like, rows.astype(np.float16), x, "l2")


@pytest.mark.parametrize("m", [1, 5, 20, 70])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_vectors_are_marked_and_stay_in_range(device_like, m, value):
    rng = np.random.default_rng(m)
    rows = unit(rng.standard_normal((70, 9)))
    x = rng.standard_normal((m, 9), np.float32)
    bad = x.copy()
    bad[m // 2, 4] = value
    found = device_like.lookup(rows, bad)
    assert found.nonfinite
    assert found.result.indices[m // 2] == 0
    assert np.isnan(found.result.margin[m // 2])
    assert np.isnan(found.result.best[m // 2])
    others = np.arange(m) != m // 2
    expected = lookup_reference(rows, x)
    np.testing.assert_array_equal(found.result.indices[others], expected.indices[others])
    np.testing.assert_array_equal(found.result.margin[others], expected.margin[others])


@pytest.mark.parametrize("m", [1, 20])
def test_a_nonfinite_codebook_marks_every_vector(device_like, m):
    rng = np.random.default_rng(m)
    rows = unit(rng.standard_normal((300, 9)))
    rows[211, 3] = np.nan
    found = device_like.lookup(rows, rng.standard_normal((m, 9), np.float32))
    assert found.nonfinite
    np.testing.assert_array_equal(found.result.indices, 0)
    assert np.isnan(found.result.margin).all()


@pytest.mark.parametrize("m", [1, 20, 70])
def test_indices_alone_are_the_same(device_like, m):
    rng = np.random.default_rng(m)
    for rows in (unit(rng.standard_normal((200, 50))), clustered(rng, 200, 50, 1e-8)):
        x = rows[rng.integers(200, size=m)] + np.float32(0.1) * rng.standard_normal((m, 50))
        x = x.astype(np.float32)
        found = device_like.lookup(rows, x, want_best=False, want_margin=False)
        np.testing.assert_array_equal(found.result.indices, lookup_reference(rows, x).indices)


def test_no_vectors(device_like):
    found = device_like.lookup(np.ones((3, 2), np.float32), np.empty((0, 2), np.float32))
    assert found.result.indices.shape == (0,)


def test_the_workspace_suffices_for_every_smaller_lookup(device_like):
    sizes = [1, 8, 9, 31, 49, 64, 200, 1024, 4096, 50176]
    for n in (1, 100, 1000, 10_000, 100_000):
        needed = [device_like.workspace(m, n, 1280) for m in sizes]
        assert needed == sorted(needed)
        assert needed[-1] < 25e6
    assert device_like.workspace(1, 0, 5) == device_like.packed_bytes(5, 0) == 0
    assert device_like.packed_bytes(1000, 2048) < 0.55 * 1000 * 2048 * 4


def test_refusals(device_like):
    report = tiling.Report()
    call = device_like.library.edgekit_tiling_lookup
    rows = np.ones((4, 4), np.float32)
    indices = np.zeros(1, np.int64)
    memory = np.zeros(5000, np.complex128)
    packed = device_like.pack(rows)

    def status(**changes):
        values = {
            "x": rows.ctypes.data, "codebook": rows.ctypes.data, "m": 1, "n": 4, "d": 4,
            "indices": indices.ctypes.data, "workspace": memory.ctypes.data,
            "workspace_bytes": memory.nbytes, "packed": packed.start,
            "packed_bytes": packed.size, **changes,
        }  # fmt: skip
        return call(tiling.Request(**values), 8, -1, report)

    assert status() == 0
    for change in (
        {"x": None}, {"codebook": None}, {"indices": None}, {"workspace": None}, {"m": -1},
        {"n": 0}, {"n": 2**31}, {"d": 0}, {"d": 2**24 + 1}, {"metric": 2}, {"x_type": 2},
        {"codebook_type": 1}, {"workspace": memory.ctypes.data + 8}, {"packed": None},
        {"packed": packed.start + 16},
    ):  # fmt: skip
        assert status(**change) == tiling.INVALID_ARGUMENT, change
    assert status(workspace_bytes=100) == tiling.SMALL_WORKSPACE
    assert status(packed_bytes=100) == tiling.SMALL_WORKSPACE
    pack = device_like.library.edgekit_tiling_pack
    good = (rows.ctypes.data, 4, 4, 0, packed.start, packed.size)
    assert pack(tiling.Codebook(*good)) == 0
    for at, wrong in ((0, None), (1, 0), (2, 2**24 + 1), (3, 2), (4, packed.start + 16)):
        changed = tiling.Codebook(*good[:at], wrong, *good[at + 1 :])
        assert pack(changed) == tiling.INVALID_ARGUMENT
    assert pack(tiling.Codebook(*good[:5], 100)) == tiling.SMALL_WORKSPACE

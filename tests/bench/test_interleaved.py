import time

from edgekit.bench.interleaved import drift, histogram, ratio, summarize, time_in_turns, warm_up


def test_quantiles_are_measured_values() -> None:
    latency = summarize([float(value) for value in range(1, 101)])
    assert (latency.calls, latency.median_ms, latency.min_ms) == (100, 50.5, 1)
    assert (latency.p90_ms, latency.p99_ms) == (91, 100)
    assert summarize([3.0]).p99_ms == 3


def test_ratio_interval_encloses_the_median() -> None:
    result = ratio([2.0 + 0.01 * i for i in range(100)], [1.0] * 100)
    assert result.low < result.median < result.high
    assert abs(result.median - 2.495) < 1e-9
    assert ratio([4.0], [2.0]).low == 2


def test_compare_times_the_runs_in_turns() -> None:
    order: list[str] = []

    def run(name: str, pause: float) -> None:
        order.append(name)
        time.sleep(pause)

    result = time_in_turns(
        "fast",
        {"fast": lambda: run("fast", 0.001), "slow": lambda: run("slow", 0.004)},
        seconds=0.1,
        minimum=3,
    )
    after = order[result.warmup_calls :]
    turns = [name for i, name in enumerate(after) if i == 0 or after[i - 1] != name]
    assert turns == ["fast", "slow"] * 3
    counted = {name: latency.calls for name, latency in result.latencies.items()}
    assert all(20 < counted[name] < after.count(name) for name in ("fast", "slow"))
    assert set(result.ratios) == {"slow"}
    assert result.ratios["slow"].median > 2


def test_interval_has_the_ranks_of_the_binomial() -> None:
    # Of ten values the second from either end: P(Bin(10, 1/2) < 2) = 1.07%, of the third 5.5%.
    result = ratio([float(value) for value in range(1, 11)], [1.0] * 10)
    assert (result.low, result.high) == (2, 9)
    assert ratio([1.0, 2.0, 3.0], [1.0] * 3).high == 3  # too few for 95%: the extremes


def test_histogram_holds_every_call() -> None:
    values = [1.0 + 0.001 * index for index in range(990)] + [50.0] * 10
    found = histogram(values)
    assert sum(found.counts) + found.above == 1000
    assert (found.above, found.edges_ms[-1]) == (10, values[989])
    assert len(found.edges_ms) == len(found.counts) + 1
    assert histogram([2.0, 2.0]).counts == (2,)


def test_warm_up_waits_until_latency_stands_still() -> None:
    calls = 0

    def slow_at_first() -> None:
        nonlocal calls
        calls += 1
        time.sleep(max(0.002, 0.02 - 0.0005 * calls))

    settled = warm_up(slow_at_first, most_seconds=5)
    assert settled.stable
    assert settled.calls > 30

    def ever_slower() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.001 * 1.05 ** (calls - before))

    before = calls
    assert not warm_up(ever_slower, most_seconds=0.3).stable


def test_drift_is_that_of_the_thirds() -> None:
    assert drift([1.0] * 30 + [9.0] * 30 + [2.0] * 30) == 2

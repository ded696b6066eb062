import time

from edgekit.bench.turns import compare, ratio, summarize


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

    result = compare(
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

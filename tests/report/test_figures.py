"""Each figure by itself: what it says is there, in order, escaped, and well-formed."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from xml.etree import ElementTree

import pytest

from edgekit.bench.interleaved import Histogram, Latency
from edgekit.bench.results import ColdStart, Layers, LayerTime, Memory, PartTime, Point, Scenarios
from edgekit.parity.document import (
    CorruptionChange,
    ErrorsBySeverity,
    Estimate,
    MarginGroup,
    MarginHistogram,
    Margins,
    MeanError,
)
from edgekit.report import bench_table
from edgekit.report.figures.cold_start import cold_start
from edgekit.report.figures.gauge import gauge
from edgekit.report.figures.heatmap import heatmap
from edgekit.report.figures.intervals import by_loss, intervals
from edgekit.report.figures.latency import latency
from edgekit.report.figures.layers import layers
from edgekit.report.figures.margins import margins
from edgekit.report.figures.memory import memory
from edgekit.report.figures.pareto import Choice, pareto
from edgekit.report.figures.shares import shares
from edgekit.report.figures.sizes import sizes
from edgekit.report.figures.svg import Scale, around, name, number, signed
from edgekit.report.figures.time_series import time_series
from edgekit.report.style import DARK, LIGHT

HOSTILE = "<b>&\"'\x1b[31m\u202e\ud800"
MEAN = MeanError(
    20.0, 20.4, "mCE", "none", 0.4, -0.1, 0.9, "anytime", 0.95, Estimate(0.4, 0.0, 0.8)
)
ERRORS = ErrorsBySeverity((10.0, 30.0), (11.0, 32.5))
TIMED = Latency(100, 4.25, 4.5, 4.6, 6.5, 4.0, 9.0, 4.3, 0.1)
CALLS = Histogram((4.0, 5.0, 6.5), (60, 39), 1)
MARGINS = Margins(
    (0.05, 0.25, 0.5, 0.75, 0.95),
    MarginGroup(1500, (0.1, 0.2, 0.5, 1.0, 2.0)),
    MarginGroup(12, None),
)


def change(delta: float, *, averaged: bool = True) -> CorruptionChange:
    return CorruptionChange(
        20.0, 20.0 + delta, delta, delta - 0.5, delta + 0.5, averaged=averaged, errors=ERRORS
    )


def every_figure(label: str) -> dict[str, str]:
    """All figures, with one label in each."""
    start = ColdStart(5, 500.0, 480.0, 520.0, {"first": 20.0, label: 480.0}, 1.0)
    layer = LayerTime(label, "Convolution", 1.5, "backbone", 0.75)
    return {
        "gauge": gauge(MEAN, 0.5),
        "intervals": intervals({label: change(1.0)}, MEAN, 0.5, 3.0),
        "heatmap": heatmap("Title", "error", (1,), {label: [12.5]}, {label: [label]}, 20.0),
        "shares": shares({label: 0.9}, {label: 0.8}, 0.97),
        "margins": margins(MARGINS),
        "latency": latency({label: TIMED}, {label: CALLS}, label),
        "cold start": cold_start({"first": start}),
        "memory": memory({"first": Memory(1, 50.0, 80.0, 90.0, 100.0, None)}),
        "time series": time_series((Point(0.0, 5, 1.0, 1.1, None, None, None),)),
        "layers": layers(Layers(9, 2.0, {label: PartTime(2.0, 1.0)}, "x", (layer,))),
        "sizes": sizes(10_000_000, 33_600_000),
        "pareto": pareto([Choice("1", label, 4.0, 19.0, 18.8, 19.4)], "corruption error"),
    }


def texts(figure: str) -> list[str]:
    """Everything that is written in it, in its order."""
    return [one.text or "" for one in ElementTree.fromstring(figure).iter("text")]


def hovers(figure: str) -> str:
    return "\n".join(one.text or "" for one in ElementTree.fromstring(figure).iter("title"))


@pytest.mark.parametrize("figure", every_figure("fog"))
def test_a_figure_has_a_title_a_label_and_colors_of_both_themes(figure: str) -> None:
    drawn = every_figure("fog")[figure]
    root = ElementTree.fromstring(drawn)
    caption, svg = root.find("figcaption"), root.find("svg")
    assert caption is not None
    assert svg is not None
    assert caption.text
    assert svg.get("role") == "img"
    assert (svg.get("aria-label") or "").startswith(caption.text)
    used = set(re.findall(r"var\(--([\w-]+)\)", drawn))
    assert used - {"none"} <= LIGHT.keys() & DARK.keys()
    assert not re.search(r"(fill|stroke)[:=]\"?#", drawn)  # a color that one theme may not know


@pytest.mark.parametrize("figure", every_figure("fog"))
def test_an_axis_has_ticks_and_a_label(figure: str) -> None:
    words = {
        "gauge": "change of the corruption error, points",
        "intervals": "change of error, points",
        "heatmap": "severity",
        "shares": "equal answers, %",
        "margins": "margin of the lookup, logarithmic",
        "latency": "latency of one call, ms",
        "cold start": "ms",
        "memory": "MiB in use at most",
        "time series": "minutes",
        "layers": "ms of one inference",
        "sizes": "MB",
        "pareto": "median latency, ms",
    }
    written = texts(every_figure("fog")[figure])
    assert words[figure] in written
    assert any(re.fullmatch(r"[−\d.]+", text) for text in written)


@pytest.mark.parametrize("figure", every_figure("fog"))
def test_anything_may_be_a_label(figure: str) -> None:
    drawn = every_figure(HOSTILE * 20)[figure]
    ElementTree.fromstring(drawn)
    assert "<b>" not in drawn
    assert not {"\x1b", "\u202e"} & set(drawn)
    drawn.encode()  # no half of a character


def test_intervals_are_sorted_by_loss_with_the_mean_last() -> None:
    changes = {
        "fog": change(0.2),
        "snow": change(1.7),
        "pixelate": change(-0.9, averaged=False),
        "frost": change(0.2),
    }
    figure = intervals(changes, MEAN, 0.75, 3.0)
    assert by_loss(changes) == ["snow", "fog", "frost", "pixelate"]
    names = [text for text in texts(figure) if text.rstrip("*") in (*changes, "mean")]
    assert names == ["snow", "fog", "frost", "pixelate*", "mean"]
    assert "tolerance of the mean, 0.75" in texts(figure)
    assert "most for each, 3" in texts(figure)
    assert "snow: 20.00 to 21.70, +1.70 [+1.20, +2.20] points" in hovers(figure)
    assert "mean: 20.00 to 20.40, +0.40 [−0.10, +0.90] points" in hovers(figure)
    assert figure.count('style="fill:var(--worse)') == 1  # snow's point, which is certain
    assert "is not part of the mean" in figure


def test_a_cell_says_its_number_and_is_as_strong_as_it_is_large() -> None:
    rows = {"fog": [10.0, 40.0], "snow": [-20.0, 0.0]}
    words = {"fog": ["fog, severity 1", "fog, severity 3"], "snow": ["one", "two"]}
    figure = heatmap("Difference", "change", (1, 3), rows, words, 40.0)
    assert texts(figure)[-6:] == ["fog", "+10.0", "+40.0", "snow", "−20.0", "+0.0"]
    assert "fog, severity 3" in hovers(figure)
    cells = list(ElementTree.fromstring(figure).iter("rect"))
    assert [box.get("style") for box in cells] == [
        *["fill:var(--heat-worse)"] * 2,
        *["fill:var(--heat-better)"] * 2,
    ]
    assert [box.get("fill-opacity") for box in cells] == ["0.250", None, "0.500", "0.000"]


def test_contenders_share_an_axis() -> None:
    slow = dataclasses.replace(TIMED, median_ms=8.0, p90_ms=9.0, p99_ms=12.0)
    figure = latency({"float": slow, "bundle": TIMED}, {"bundle": CALLS}, "bundle")
    written = texts(figure)
    assert written.index("bundle") < written.index("float")
    assert "p50 4.25 · p90 4.50 · p99 6.50 ms" in written
    assert "p50 8.00 · p90 9.00 · p99 12.00 ms" in written
    assert "4.00 to 5.00 ms: 60 calls" in hovers(figure)
    marks = [line.get("x1") for line in ElementTree.fromstring(figure).iter("line")]
    assert len(set(marks)) > 6


def test_phases_come_in_their_order_not_the_files() -> None:
    phases = dict.fromkeys(("first", "import", "load", "runtime", "start", "verify"), 100.0)
    start = ColdStart(5, 590.0, 480.0, 620.0, phases, 1.0)
    figure = cold_start({"first": start, "later": start})
    assert "1 interpreter; 2 imports; 3 checksums; 4 the runtime's package; 5 the model" in (
        figure.replace("&#x27;", "'")
    )
    written = texts(figure)
    assert "compiling: 590 ms" in written
    assert [text for text in written if text in tuple("123456")] == list("123456") * 2


def test_the_terminal_has_phases_in_their_order_too() -> None:
    phases = {"first": 3.0, "import": 2.0, "later": 9.0, "start": 1.0}
    scenarios = Scenarios(cold_start={"first": ColdStart(5, 590.0, 480.0, 620.0, phases, 1.0)})
    assert bench_table.lines(scenarios) == [
        "cold start, compiling: 590 ms [480, 620] (start 1, import 2, first 3, later 9)"
    ]


def test_margins_from_a_histogram_or_from_quantiles() -> None:
    assert "same code: 1,500 lookups, median 0.5" in texts(margins(MARGINS))
    assert "another code: 12 lookups" in texts(margins(MARGINS))
    counted = dataclasses.replace(
        MARGINS, histogram=MarginHistogram((0.0, 0.01, 0.1, 1.0), (0, 500, 1000), (7, 5, 0))
    )
    figure = margins(counted)
    assert "margin 0 to 1: 1,500 lookups, 100.0%" in hovers(figure)
    assert "<rect" in figure


def test_what_another_beats_in_both_is_hollow() -> None:
    choices = [
        Choice("1", "fast", 4.0, 19.0, 18.8, 19.4),
        Choice("2", "exact", 9.0, 17.0, 16.8, 17.4),
        Choice("3", "neither", 9.5, 19.5, 19.3, 19.9),
    ]
    figure = pareto(choices, "corruption error")
    points = [one.get("style") or "" for one in ElementTree.fromstring(figure).iter("circle")]
    assert ["fill:var(--page)" in style for style in points] == [False, False, True]
    assert "neither: 9.50 ms, 19.50" in hovers(figure)
    assert "1 fast; 2 exact; 3 neither." in figure


def test_memory_that_nobody_knows_is_no_frame() -> None:
    assert memory({"first": Memory(1, None, None, None, None, None)}) == ""


def values() -> Iterator[float]:
    yield from (0.0, -1.0, 1e-300, 5e-7, 3.0, 1e18, -9e18)


@pytest.mark.parametrize("make", [lambda a, b: around([a, b]), lambda a, b: Scale(a, b)])
def test_scales_hold_for_any_numbers(make: Callable[[float, float], Scale]) -> None:
    for low in values():
        for high in values():
            scale = make(low, high)
            assert all(scale.left <= scale.at(one) <= scale.right for one in (low, high, 0.3))
            assert len(scale.ticks()) <= 12


def test_ticks_are_round_and_inside() -> None:
    assert Scale(-1.76, 1.71).ticks(7) == [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]
    assert Scale(0.0, 1138.0).ticks() == [0, 200, 400, 600, 800, 1000]
    assert Scale(0.003, 7.0, logarithmic=True).ticks() == [0.01, 0.1, 1.0]


def test_numbers_and_names_for_people() -> None:
    assert [number(one) for one in (-0.5, 1e-17, 1000.0, 0.30000000000000004)] == [
        *("−0.5", "0", "1000"),
        "0.3",
    ]
    assert signed(-0.082) == "−0.08"
    assert name("jpeg_compression") == "jpeg compression"
    assert name("x" * 40) == "x" * 17 + "…"

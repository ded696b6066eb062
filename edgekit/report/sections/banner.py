"""The top of the page: the decision, and the figures that it rests on."""

from __future__ import annotations

from edgekit.bench.document import BenchDocument, BenchSummary
from edgekit.bench.interleaved import Ratio
from edgekit.bundle.manifest import Manifest
from edgekit.parity.document import ParityDocument
from edgekit.report.decision import Decision
from edgekit.report.figures.gauge import gauge
from edgekit.report.figures.svg import signed
from edgekit.report.markup import escaped, paragraph
from edgekit.report.sizes import Sizes, megabytes

Tile = tuple[str, str, str]
"""What it is, the figure, and what belongs to it."""


def banner(
    title: str,
    decision: Decision,
    manifest: Manifest,
    sizes: Sizes,
    bench: BenchDocument | None,
    summary: BenchSummary | None,
    parity: ParityDocument | None,
) -> str:
    """The decision first, then why, then what it costs and brings."""
    figure = ""
    if parity is not None and parity.corruption_error is not None:
        figure = gauge(parity.corruption_error, parity.gates.tolerance)
    tiles = [
        _error(parity),
        _speed(summary),
        _size(sizes),
        ("target", manifest.target.name, f"{manifest.target.title}; {manifest.target.precision}"),
        _device(bench, summary, parity),
        _date(bench, parity),
    ]
    return "\n".join(
        (
            f"<h1>{escaped(title)}</h1>",
            f'<div class="banner {decision.kind}">',
            f'<p class="verdict"><span aria-hidden="true">{decision.mark}</span> '
            f"{escaped(decision.words)}</p>",
            '<div class="inside">',
            *(paragraph(why) for why in decision.why),
            figure,
            f'<dl class="tiles">{"".join(_tile(tile) for tile in tiles)}</dl>',
            "</div></div>",
        )
    )


def slowest_gain(ratios: dict[str, Ratio]) -> tuple[str, Ratio] | None:
    """The least gain over a float model: the engineer could have shipped that one instead."""
    floats = {name: ratio for name, ratio in ratios.items() if name.startswith("float")}
    return min(floats.items(), key=lambda item: item[1].median, default=None)


def _tile(tile: Tile) -> str:
    what, value, more = tile
    small = f"<small>{escaped(more)}</small>" if more else ""
    return f"<div><dt>{escaped(what)}</dt><dd>{escaped(value)}{small}</dd></div>"


def _error(parity: ParityDocument | None) -> Tile:
    what = "corruption error"
    if parity is None or parity.corruption_error is None:
        return what, "unknown", "not measured" if parity is None else "the images have no labels"
    error = parity.corruption_error
    return (
        what,
        f"{signed(error.delta)} points",
        f"{error.reference:.2f} to {error.candidate:.2f}; {error.confidence:.0%} interval "
        f"[{signed(error.lower)}, {signed(error.upper)}], tolerance {parity.gates.tolerance:g}",
    )


def _speed(summary: BenchSummary | None) -> Tile:
    own = None if summary is None else summary.own
    if summary is None or own is None:
        return "speed", "unknown", "not measured"
    latency = f"{own.median_ms:.2f} ms, p99 {own.p99_ms:.2f} ms"
    gain = slowest_gain(dict(summary.ratios or {}))
    if gain is None:
        return "speed", f"{own.median_ms:.2f} ms", "no float model was timed beside it"
    name, ratio = gain
    return (
        "speed",
        f"{ratio.median:.2f} times as fast",
        f"as {name} [{ratio.low:.2f}, {ratio.high:.2f}]; {latency}",
    )


def _size(sizes: Sizes) -> Tile:
    if sizes.ratio is None or sizes.reference is None:
        return "size", megabytes(sizes.needed), "what the device needs"
    return (
        "size",
        megabytes(sizes.needed),
        f"float: {megabytes(sizes.reference)}, {sizes.ratio:.1f} times as much",
    )


def _device(
    bench: BenchDocument | None, summary: BenchSummary | None, parity: ParityDocument | None
) -> Tile:
    names = [one.device.name for one in (bench, summary) if one is not None and one.device]
    if parity is not None and parity.device is not None:
        names.append(parity.device)
    if bench is not None:
        cores = bench.conditions.cores.usable
        machine = bench.conditions.machine
        on = f"{cores or '?'} cores"
        return "measured on", (names or [machine])[0], f"{machine}, {on}" if names else on
    if names:
        return "measured on", names[0], ""
    if summary is None and parity is None:
        return "measured on", "nothing yet", ""
    return "measured on", "the machine that built it", ""


def _date(bench: BenchDocument | None, parity: ParityDocument | None) -> Tile:
    """The newest evidence's date. Not the build's: equal builds have equal pages."""
    known = {"parity": parity, "speed": bench}
    dates = {name: one.measured for name, one in known.items() if one is not None and one.measured}
    if not dates:
        return "date", "unknown", "no dated evidence"
    times = (f"{name} {when[:16].replace('T', ' ')}" for name, when in dates.items())
    return "date", max(dates.values())[:10], f"{', '.join(times)} UTC"

"""A monitor's state in Prometheus' text format: served over http, or in a file.

The file is for the node exporter's textfile collector, which reads what ends in ``.prom``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.files import write_text
from edgekit.field.metrics_server import MetricsServer

if TYPE_CHECKING:
    from edgekit.field.monitor import Status

SUFFIX: Final = ".prom"
_LOOPBACK: Final = "127.0.0.1"
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def exposition(status: Status, monitor: str) -> str:
    """The state as text; ``monitor`` tells several on one machine apart, in a label."""
    look = status.outlook
    error = None if look is None else look.error
    families: list[tuple[str, str, str, float | None]] = [
        ("images_total", "counter", "Images watched.", status.images),
        ("unreadable_images_total", "counter", "Images that could not be read.", status.skipped),
        ("last_image_timestamp_seconds", "gauge", "When the last image was watched.",
         status.last_time),
        ("changed", "gauge", "1 while the images are not like those in the lab.", status.changed),
        ("evidence_log10", "gauge", "Evidence for a change.", status.evidence),
        ("alarm_threshold_log10", "gauge", "Evidence that raises an alarm.", status.threshold),
        ("alarms_total", "counter", "Alarms raised.", len(status.alarms)),
        ("alike", "gauge", "How much more alike neighboring images are than independent ones.",
         status.alike),
        ("lab_error", "gauge", "Share of wrong answers on clean images in the lab.",
         status.clean_error),
        ("estimated_error", "gauge", "Estimated share of wrong answers while changed.",
         None if error is None else error.mean),
        ("estimated_error_low", "gauge", "Lower end of its 90% interval.",
         None if error is None else error.low),
        ("estimated_error_high", "gauge", "Upper end of its 90% interval.",
         None if error is None else error.high),
        ("unknown", "gauge", "How likely the change is one that the lab has not seen.",
         None if look is None else look.unknown),
    ]  # fmt: skip
    own = {"monitor": monitor}
    lines: list[str] = []
    for name, kind, meaning, value in families:
        if value is not None:
            lines += [*_head(name, kind, meaning), _sample(name, own, value)]
    if look is not None and look.resembles:
        lines += _head("resembles", "gauge", "How likely the images are of this kind.")
        lines += [
            _sample(
                "resembles",
                own | {"corruption": one.corruption, "severity": str(one.severity)},
                one.weight,
            )
            for one in look.resembles
        ]
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP edgekit_{name} {meaning}", f"# TYPE edgekit_{name} {kind}"]


def _sample(name: str, labels: dict[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
    # All digits: a counter that is rounded stands still.
    return f"edgekit_{name}{{{inside}}} {int(value) if isinstance(value, int) else float(value)}"


def destination(where: str) -> Path | tuple[str, int]:
    """The file, or the host and port, that ``--metrics`` names."""
    if where.endswith(SUFFIX):
        return Path(where)
    host, colon, port = where.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else _LOOPBACK
    if host and "/" not in host and port.isascii() and port.isdecimal() and int(port) < 1 << 16:
        return host, int(port)
    raise UsageError(
        f"--metrics {where}: give a port (9464, for this machine alone), HOST:PORT, or a file "
        f"whose name ends in {SUFFIX}, as the node exporter reads"
    )


@contextmanager
def keep_metrics(
    where: str | None, text: Callable[[], str], console: Console
) -> Iterator[Callable[[], None]]:
    """Publish ``text()`` at ``where``; what it yields writes the file anew, if it is one.

    A file that cannot be written is an error at the start, and a warning later: a disk that is
    full for a while must not end the watch.
    """
    if where is None:
        yield lambda: None
        return
    place = destination(where)
    if not isinstance(place, Path):
        with MetricsServer(*place, text) as server:
            console.info(f"metrics: {server.url}")
            yield lambda: None
        return
    write_text(place, text())
    failing = False

    def write() -> None:
        nonlocal failing
        try:
            write_text(place, text())
            failing = False
        except EdgekitError as error:
            if not failing:
                console.warn(str(error))
            failing = True

    try:
        yield write
    finally:
        write()

"""Samples the machine while something is timed, and reports what may have disturbed it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgekit.bench import conditions
from edgekit.bench.energy import Meter, NoEnergy, open_meter
from edgekit.core.documents import SPARSE

_EVERY: Final = 1.0  # seconds between samples
# Beyond these a note is due: relative change of latency and clock, kelvin, cores used by others.
_LATENCY: Final = 0.05
_CLOCK: Final = 0.03
_HEAT: Final = 5.0
_OTHERS: Final = 0.1


@dataclass(frozen=True)
class Sample:
    """The machine at one moment."""

    seconds: float  # since the watch began
    mhz: float | None
    celsius: float | None  # of the hottest sensor
    throttled: int | None
    joules: float | None
    others: float | None  # cores' worth of time that other programs took since the last sample


@dataclass(frozen=True)
class Span:
    """How a figure moved while it was watched."""

    first: float
    last: float
    least: float
    most: float


@dataclass(frozen=True)
class WatchSummary:
    """First, last and extreme values."""

    seconds: float
    mhz: Span | None
    celsius: Span | None
    throttled: int | None
    other_programs_cores: float | None


@dataclass(frozen=True)
class Energy:
    """The energy used in all, or why it is unknown."""

    available: bool
    why: str | None = field(default=None, metadata=SPARSE)
    source: str | None = field(default=None, metadata=SPARSE)
    joules: float | None = field(default=None, metadata=SPARSE)
    watts: float | None = field(default=None, metadata=SPARSE)
    millijoules_per_inference: float | None = field(default=None, metadata=SPARSE)
    millijoules_per_image: float | None = field(default=None, metadata=SPARSE)


class Watch:
    """Samples the machine about once a second, provided `look` is called often enough.

    ``rails`` are the power sensors that the target names.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        rails: Sequence[str] = (),
        every: float = _EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.no_energy = ""
        self.samples: list[Sample] = []
        self._root = root
        self._every = every
        self._clock = clock
        self._meter = self._open_meter(rails)
        self._start = clock()
        self._processor = _ProcessorTime.now(root)
        self._record()

    def look(self) -> Sample | None:
        """Take a sample, if one is due."""
        if self._clock() - self._start - self.samples[-1].seconds < self._every:
            return None
        return self._record()

    def finish(self) -> None:
        """Take the last sample."""
        if self._clock() - self._start - self.samples[-1].seconds > 0.2:
            self._record()

    @property
    def seconds(self) -> float:
        """Seconds from the first sample to the last."""
        return self.samples[-1].seconds

    def energy(self, inferences: int, images: int) -> Energy:
        """The energy used in all, or why it is unknown."""
        if self._meter is None:
            return Energy(available=False, why=self.no_energy)
        joules = self.samples[-1].joules or 0.0
        return Energy(
            available=True,
            source=self._meter.source,
            joules=joules,
            watts=joules / self.seconds if self.seconds else 0.0,
            millijoules_per_inference=1e3 * joules / inferences if inferences else None,
            millijoules_per_image=1e3 * joules / images if images else None,
        )

    def summary(self) -> WatchSummary:
        """First, last and extreme values, for the document."""
        return WatchSummary(
            seconds=self.seconds,
            mhz=_span([sample.mhz for sample in self.samples]),
            celsius=_span([sample.celsius for sample in self.samples]),
            throttled=self._throttled(),
            other_programs_cores=self._others(),
        )

    def notes(self, *, latency_drift: float, what: str = "latency") -> list[str]:
        """Caveats for the reader of the figures; empty if nothing stood out."""
        notes = []
        if abs(latency_drift - 1) > _LATENCY:
            way = "rose" if latency_drift > 1 else "fell"
            notes.append(
                f"{what} {way} by {abs(latency_drift - 1):.0%} from the first to the last third"
            )
        notes += _drifted(
            "the clock", "MHz", [sample.mhz for sample in self.samples], relative=_CLOCK
        )
        notes += _drifted(
            "the temperature", "°C", [sample.celsius for sample in self.samples], absolute=_HEAT
        )
        if throttled := self._throttled():
            notes.append(f"the processor was throttled {throttled} time(s)")
        others = self._others()
        if others is not None and others > _OTHERS:
            notes.append(f"other programs kept {others:.1f} cores busy meanwhile")
        return notes

    def _record(self) -> Sample:
        heat = conditions.celsius(self._root)
        joules = None
        if self._meter is not None:
            self._meter.sample()
            joules = self._meter.joules
        processor = _ProcessorTime.now(self._root)
        others = None if processor is None else processor.others_since(self._processor)
        self._processor = processor
        sample = Sample(
            seconds=self._clock() - self._start,
            mhz=conditions.megahertz(self._root),
            celsius=max(heat.values()) if heat else None,
            throttled=conditions.throttle_count(self._root),
            joules=joules,
            others=others,
        )
        self.samples.append(sample)
        return sample

    def _throttled(self) -> int | None:
        counts = [sample.throttled for sample in self.samples if sample.throttled is not None]
        return counts[-1] - counts[0] if counts else None

    def _others(self) -> float | None:
        cores = [sample.others for sample in self.samples[1:] if sample.others is not None]
        return statistics.fmean(cores) if cores else None

    def _open_meter(self, rails: Sequence[str]) -> Meter | None:
        try:
            return open_meter(rails, self._root)
        except NoEnergy as why:
            self.no_energy = str(why)
            return None


@dataclass(frozen=True)
class _ProcessorTime:
    """Seconds of processor time since boot: of all processes, and of this one and its children."""

    at: float
    all: float
    own: float

    @staticmethod
    def now(root: Path) -> _ProcessorTime | None:
        """None where the kernel does not report it."""
        try:
            line = (root / "proc/stat").read_text(encoding="ascii").splitlines()[0].split()
            user, nice, system, _, _, interrupts, soft = (int(word) for word in line[1:8])
        except (OSError, ValueError, IndexError):
            return None
        busy = user + nice + system + interrupts + soft
        if not busy:  # some sandboxes show zeros
            return None
        mine = os.times()
        own = mine.user + mine.system + mine.children_user + mine.children_system
        return _ProcessorTime(time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), own)

    def others_since(self, before: _ProcessorTime | None) -> float | None:
        """Cores' worth of time that others took; None if the time is too short to tell."""
        if before is None or self.at - before.at < 0.2:
            return None
        others = (self.all - before.all) - (self.own - before.own)
        return max(0.0, others / (self.at - before.at))


def _span(values: list[float | None]) -> Span | None:
    known = [value for value in values if value is not None]
    return Span(known[0], known[-1], min(known), max(known)) if known else None


def _drifted(
    what: str,
    unit: str,
    values: list[float | None],
    *,
    relative: float | None = None,
    absolute: float | None = None,
) -> list[str]:
    """A note if the last third differs from the first third by more than the limit."""
    known = [value for value in values if value is not None]
    third = len(known) // 3
    if not third:
        return []
    first, last = statistics.median(known[:third]), statistics.median(known[-third:])
    limit = relative * first if relative is not None else absolute or 0.0
    if abs(last - first) <= limit:
        return []
    way = "rose" if last > first else "fell"
    return [f"{what} {way} from {first:.0f} to {last:.0f} {unit}"]

"""``edgekit.Monitor``: notices, without labels, that a model no longer sees what it knows."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.engine import check_engine_built
from edgekit.bundle.manifest import FIELD
from edgekit.core.documents import Document, parse_json
from edgekit.core.errors import UsageError
from edgekit.core.files import read_regular, write_bytes
from edgekit.field.detector import Detector, Experts
from edgekit.field.mixture import Mixture, mixture
from edgekit.field.outlook import ErrorEstimate, Outlook, clean_error, outlook
from edgekit.field.reference import FieldReference
from edgekit.field.state import RECENT, Alarm, Seen, State, chance_of, state_bytes, state_from

if TYPE_CHECKING:
    from edgekit.runtime.model import Model, Prediction

IMAGES_A_FALSE_ALARM: Final = 100_000
_SAVE_SECONDS: Final = 10.0
_LEAST_ACCEPTED: Final = 100
_LEAST_REPEATS: Final = 100  # images before their likeness to the one before is judged
_ALIKE: Final = 2.0  # times as often as independent images


@dataclass(frozen=True)
class Status(Document):
    """What a monitor has to say. Times are seconds since 1970."""

    SCHEMA: ClassVar = 1
    DERIVED: ClassVar = ("too_alike",)

    images: int
    skipped: int  # bad images, which have no answer
    last_time: float | None  # of the last image; None before the first
    changed: bool
    evidence: float  # log10 of the evidence for a change; an alarm at `threshold`
    threshold: float
    since_image: int | None  # the likeliest first changed image, counted from 0
    since_time: float | None
    outlook: Outlook | None  # while changed
    mixture: Mixture | None  # of the last images
    clean_error: float | None  # in the lab
    alarms: tuple[Alarm, ...]
    # How much more often than by chance an image's codeword is the one before's; None at first.
    # Frames of one scene are no independent images: far above 1, false alarms are to be expected.
    alike: float | None

    @property
    def too_alike(self) -> bool:
        """Whether the images are too much like their predecessors for the promise to hold."""
        return self.alike is not None and self.alike > _ALIKE

    @property
    def error(self) -> ErrorEstimate | None:
        """The estimated share of wrong answers now."""
        return None if self.outlook is None else self.outlook.error


class Monitor:
    """Watches the predictions of one bundle; any number of threads may call it.

    ``bundle`` is what `edgekit.load` returned, the path of a bundle, or a reference. ``state`` is a
    file, written by the first update after ten seconds and at once after an alarm: the next
    Monitor with it goes on where this one was. On average at least ``images_a_false_alarm``
    images pass before a false alarm.
    """

    def __init__(
        self,
        bundle: Model | FieldReference | str | os.PathLike[str],
        *,
        state: str | os.PathLike[str] | None = None,
        images_a_false_alarm: float = IMAGES_A_FALSE_ALARM,
    ) -> None:
        reference = bundle if isinstance(bundle, FieldReference) else reference_of(bundle)
        if not images_a_false_alarm >= 10:
            raise UsageError(
                f"images_a_false_alarm must be at least 10, not {images_a_false_alarm}"
            )
        self._lock = threading.Lock()
        self._path = None if state is None else Path(state)
        self._reference = reference
        self._experts = Experts(reference)
        self._detector = Detector.begin(self._experts, images_a_false_alarm)
        self._state = State.begin(reference)
        self._recent: deque[Seen] = deque(maxlen=RECENT)
        self._saved = time.monotonic()
        if self._path is not None and self._path.exists():
            self._state = state_from(
                read_regular(self._path), self._path, self._detector, self._recent, reference
            )

    def update(self, predictions: Prediction | Iterable[Prediction]) -> bool:
        """Take in one prediction or several, in order; whether the images have changed."""
        several = predictions if isinstance(predictions, Iterable) else (predictions,)
        with self._lock:
            before = len(self._state.alarms)
            for prediction in several:
                self._take(prediction)
            if self._path is not None and (
                len(self._state.alarms) > before or time.monotonic() > self._saved + _SAVE_SECONDS
            ):
                self._save()
            return self._state.changed

    @property
    def changed(self) -> bool:
        """Whether the images have changed."""
        return self._state.changed

    def status(self) -> Status:
        """What it has to say now."""
        with self._lock:
            return self._status()

    def save(self) -> None:
        """Write the state file, if there is one."""
        with self._lock:
            self._save()

    def accept(self) -> None:
        """What the last images look like is normal here: they take the reference's place.

        For a field whose images never were like the lab's, such as another mix of classes. Evidence
        begins anew. Estimates of errors stay the lab's.
        """
        with self._lock:
            if len(self._recent) < _LEAST_ACCEPTED:
                raise UsageError(
                    f"only {len(self._recent)} images were seen: accept what is normal after "
                    f"{_LEAST_ACCEPTED}"
                )
            last = tuple(seen.symbol for seen in self._recent)
            self._state = self._state.after_accepting(last)
            self._detector = Detector.begin(self._experts, np.exp(self._detector.threshold))
            self._detector.take_as_normal(np.array(last, np.int64))
            self._recent.clear()
            self._save()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.save()

    def _take(self, prediction: Prediction) -> None:
        state, detector = self._state, self._detector
        if prediction.error is not None or prediction.index is None:
            state.skipped += 1
            return
        reference = self._reference
        if not 0 <= prediction.index < reference.classes:
            raise UsageError(
                f"{prediction.source}: class {prediction.index} does not exist, the reference has "
                f"0 to {reference.classes - 1}"
            )
        code = prediction.index if reference.kind == "class" else prediction.code
        clear = prediction.probability if reference.kind == "class" else prediction.margin
        if not isinstance(code, int) or isinstance(clear, tuple):
            raise UsageError(
                f"{prediction.source}: its prediction has no codeword, and this monitor's "
                "reference has: it belongs to another bundle"
            )
        symbol = reference.symbol(code, clear)
        if self._recent and self._recent[-1].code == code:
            state.repeats += 1
        now = time.time()
        detector.update(symbol, chance_of(state.seed, state.images), learn=not state.changed)
        self._recent.append(Seen(symbol, prediction.index, code, now, not state.changed))
        state.images += 1
        if not state.changed and detector.alarming:
            self._alarm(now)
        elif state.changed and detector.calm:
            state.changed = False
            state.since_image = state.since_time = None
            detector.begin_anew()

    def _alarm(self, now: float) -> None:
        state, detector = self._state, self._detector
        state.changed = True
        best = int(np.argmax(detector.evidence + detector.experts.log_weights))
        first = int(detector.since[best])
        back = min(detector.images - first, len(self._recent))
        changed = list(self._recent)[len(self._recent) - back :]
        learned = [seen.symbol for seen in changed if seen.learned]
        detector.forget(np.array(learned, np.int64))
        state.since_image = state.images - (detector.images - first)
        state.since_time = changed[0].time if changed else now
        state.alarms = (*state.alarms, Alarm(state.images, now, state.since_image))[-RECENT:]

    def _status(self) -> Status:
        state, detector = self._state, self._detector
        total = detector.total
        recent = [(seen.label, seen.code) for seen in self._recent]
        alike = None
        if state.images > _LEAST_REPEATS:
            shares = np.bincount([code for _, code in recent]) / len(recent)
            expected = float((shares**2).sum())
            alike = state.repeats / state.images / max(expected, 1 / state.images)
        return Status(
            images=state.images,
            skipped=state.skipped,
            last_time=self._recent[-1].time if self._recent else None,
            changed=state.changed,
            evidence=float(total / np.log(10)) if np.isfinite(total) else 0.0,
            threshold=float(detector.threshold / np.log(10)),
            since_image=state.since_image,
            since_time=state.since_time,
            outlook=outlook(self._experts, self._since_change()) if state.changed else None,
            mixture=mixture(self._reference, recent),
            clean_error=clean_error(self._reference),
            alarms=state.alarms,
            alike=alike,
        )

    def _since_change(self) -> NDArray[np.int64]:
        """The symbols since the change, as far as they are remembered."""
        first = self._state.since_image or 0
        count = min(self._state.images - first, len(self._recent))
        last = list(self._recent)[len(self._recent) - count :]
        return np.array([seen.symbol for seen in last], np.int64)

    def _save(self) -> None:
        if self._path is None:
            return
        write_bytes(self._path, state_bytes(self._state, self._detector, self._recent))
        self._saved = time.monotonic()


def reference_of(bundle: Model | str | os.PathLike[str]) -> FieldReference:
    """The reference in a bundle; verified, as everything that is read from one."""
    from edgekit.bundle.store import open_bundle

    if isinstance(bundle, (str, os.PathLike)):
        opened = open_bundle(Path(bundle), any_arch=True)
    else:
        opened = bundle.bundle
    if FIELD not in opened.manifest.files:
        check_engine_built(opened)  # only then can its answers be known
        raise UsageError(
            f"{opened.path} has no {FIELD}, which a monitor compares with: build it with "
            "'edgekit build --watch', which says what is missing"
        )
    data = (opened.folder / FIELD).read_bytes()
    return FieldReference.from_dict(parse_json(data, FIELD), f"{opened.path}: {FIELD}")

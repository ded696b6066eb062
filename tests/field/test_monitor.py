"""The monitor: what it remembers, what it refuses, what it says."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from edgekit.core.errors import UsageError
from edgekit.field.mixture import mixture
from edgekit.field.monitor import Monitor
from edgekit.field.reference import FieldReference
from edgekit.runtime.model import Prediction
from tests.field.lab import (
    BINS,
    CLASSES,
    CODES,
    clean_distribution,
    foggy_distribution,
    reference,
    stream,
)


def predictions(symbols: list[int]) -> list[Prediction]:
    return [
        Prediction(
            f"image {i}",
            label=str(symbol // BINS % CLASSES),
            index=symbol // BINS % CLASSES,
            probability=0.9,
            code=symbol // BINS,
            margin=0.05 if symbol % BINS == 0 else 0.5,
        )
        for i, symbol in enumerate(symbols)
    ]


def day(fog: int = 600) -> list[Prediction]:
    random = np.random.default_rng(0)
    clean = stream(clean_distribution(), 400, random)
    return predictions(clean + stream(foggy_distribution(), fog, random))


def test_it_says_when_and_what() -> None:
    monitor = Monitor(reference())
    assert not monitor.update(day()[:400])
    assert monitor.status().outlook is None
    assert monitor.update(day()[400:])
    status = monitor.status()
    assert status.changed
    assert status.since_image is not None
    assert 350 < status.since_image < 460
    assert status.outlook is not None
    assert status.outlook.resembles[0].corruption == "fog"
    assert status.mixture is not None
    assert len(status.alarms) == 1
    assert status.error is not None
    assert status.error.low < status.error.mean < status.error.high
    assert status.clean_error == pytest.approx(0.2)


def test_a_reboot_changes_nothing(tmp_path: Path) -> None:
    """Saved and read again after each part, it ends where an uninterrupted one ends."""
    path, every = tmp_path / "state.json", day()
    Monitor(reference(), state=path).save()
    (tmp_path / "same.json").write_bytes(path.read_bytes())  # the same dice
    whole = Monitor(reference(), state=path)
    whole.update(every)
    for start in range(0, len(every), 137):
        part = Monitor(reference(), state=tmp_path / "same.json")
        part.update(every[start : start + 137])
        part.save()
    one, other = whole.status(), part.status()
    assert one.evidence == pytest.approx(other.evidence, abs=1e-9)
    assert (one.images, one.changed, one.since_image) == (
        other.images,
        other.changed,
        other.since_image,
    )
    assert one.outlook == other.outlook
    assert path.stat().st_size < 60_000


@pytest.mark.every_core
def test_many_threads_count_every_image() -> None:
    monitor = Monitor(reference())
    parts = [day()[start::4] for start in range(4)]
    threads = [threading.Thread(target=monitor.update, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert monitor.status().images == len(day())


def test_what_is_normal_here_can_be_accepted(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    monitor = Monitor(reference(), state=state)
    assert monitor.update(day())
    monitor.accept()
    status = monitor.status()
    assert not status.changed
    assert len(status.alarms) == 1  # they are history
    random = np.random.default_rng(8)
    assert not monitor.update(predictions(stream(foggy_distribution(), 300, random)))
    assert monitor.update(predictions(stream(clean_distribution(), 300, random)))
    monitor.save()
    assert len(Monitor(reference(), state=state).status().alarms) == 2
    fresh = Monitor(reference())
    fresh.update(day()[:20])
    with pytest.raises(UsageError, match="only 20 images"):
        fresh.accept()


def test_an_alarm_ends_and_another_follows() -> None:
    random, monitor = np.random.default_rng(12), Monitor(reference())
    states = []
    for distribution in (clean_distribution(), foggy_distribution()) * 3:
        states.append(monitor.update(predictions(stream(distribution, 600, random))))
    status = monitor.status()
    assert states == [False, True] * 3
    assert len(status.alarms) == 3
    assert [alarm.since_image // 600 for alarm in status.alarms] == pytest.approx([1, 3, 5], abs=1)
    assert monitor._detector.counts.min() >= 0


def test_bad_images_are_counted_apart() -> None:
    monitor = Monitor(reference())
    monitor.update(Prediction("broken.jpg", error="broken.jpg is corrupt"))
    status = monitor.status()
    assert (status.images, status.skipped) == (0, 1)


def test_frames_of_one_scene_are_noticed() -> None:
    monitor = Monitor(reference())
    symbols = np.repeat(stream(clean_distribution(), 60, np.random.default_rng(9)), 5)
    monitor.update(predictions(symbols.tolist()))
    assert monitor.status().too_alike
    other = Monitor(reference())
    alone = stream(clean_distribution(), 300, np.random.default_rng(9))
    other.update(predictions(alone))
    assert not other.status().too_alike


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(schema=1),
        lambda d: d.update(counts=d["counts"][:-1]),
        lambda d: d.update(counts=[d["counts"][0][:-1], *d["counts"][1:]]),
        lambda d: d.update(counts=[[-1] * len(row) for row in d["counts"]]),
        lambda d: d.update(evidence=["x"] * len(d["evidence"])),
        lambda d: d.update(learned=[[1.0]]),
        lambda d: d.update(recent=[[0, 0, 0]]),
        lambda d: d.pop("seed"),
    ],
)
def test_a_damaged_state_is_refused_in_a_line(tmp_path: Path, change: object) -> None:
    path = tmp_path / "state.json"
    with Monitor(reference(), state=path) as monitor:
        monitor.update(day()[:50])
    document = json.loads(path.read_text())
    assert callable(change)
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError) as error:
        Monitor(reference(), state=path)
    assert "\n" not in str(error.value)
    assert "state.json" in str(error.value)


def test_another_bundles_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    Monitor(reference(0), state=path).save()
    with pytest.raises(UsageError, match="another bundle"):
        Monitor(reference(1), state=path)


def test_another_mix_of_classes_is_told_from_a_corruption() -> None:
    lab, random = reference(images=400), np.random.default_rng(10)
    clean = [symbol // BINS for symbol in stream(clean_distribution(), 200, random)]
    same = mixture(lab, [(code % CLASSES, code) for code in clean])
    only = mixture(lab, [(code % CLASSES, code) for code in clean if code % CLASSES in (1, 2)])
    foggy = [symbol // BINS for symbol in stream(foggy_distribution(), 200, random)]
    other = mixture(lab, [(code % CLASSES, code) for code in foggy])
    assert same is not None
    assert only is not None
    assert other is not None
    assert (same.sign, only.sign) == ("neither", "classes")
    assert other.sign in ("within classes", "both")


def test_a_reference_survives_json_and_refuses_nonsense() -> None:
    lab = reference()
    document = json.loads(json.dumps(lab.to_dict()))
    assert FieldReference.from_dict(document, "field.json") == lab
    for name, value in (
        ("size", 3),
        ("classes", 0),
        ("edges", [2, 1]),
        ("joint", [[0, CODES, 1]]),
        ("schema", 9),
        ("normal", {**document["normal"], "images": 7}),
    ):
        with pytest.raises(UsageError, match=r"field\.json"):
            FieldReference.from_dict({**document, name: value}, "field.json")


def test_a_prediction_of_another_model_is_refused() -> None:
    monitor = Monitor(reference())
    alien = dataclasses.replace(predictions([0])[0], code=CODES)
    with pytest.raises(UsageError, match="the reference has 0 to 11"):
        monitor.update(alien)
    with pytest.raises(UsageError, match="another bundle"):
        monitor.update(dataclasses.replace(alien, code=None))

"""The field against the lab: shares that add up, parts in their order, few bars of many codes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from edgekit.core.errors import UsageError
from edgekit.field.history import field_against_lab, stored_against_lab
from edgekit.field.monitor import Monitor
from edgekit.field.state import Seen
from tests.field.lab import BINS, CODES, reference
from tests.field.test_monitor import day


def seen(codes: list[int], bin_: int = 0) -> list[Seen]:
    return [Seen(code * BINS + bin_, 0, code, 100.0 + i, i < 60) for i, code in enumerate(codes)]


def test_parts_stand_in_their_order() -> None:
    lab = reference(images=400)
    found = field_against_lab(lab, seen([1] * 50 + [2] * 50), parts=2)
    assert found is not None
    assert (found.kind, sorted(found.codes)) == ("code", list(range(CODES)))
    assert list(found.lab.usage) == sorted(found.lab.usage, reverse=True)
    assert found.codes[0] > found.codes[-1]  # the lab's distribution rises with the number
    assert found.lab.images == 800
    assert (found.lab.first, found.lab.last, found.lab.changed) == (None, None, 0)
    assert sum(found.lab.usage) + found.lab.others == pytest.approx(1)
    assert sum(found.lab.margins) == pytest.approx(1)
    first, second = found.field
    assert (first.images, first.first, first.last, first.changed) == (50, 100.0, 149.0, 0)
    assert (second.images, second.first, second.last, second.changed) == (50, 150.0, 199.0, 40)
    assert first.usage[found.codes.index(1)] == second.usage[found.codes.index(2)] == 1
    assert first.margins == (1.0, 0.0)
    assert len(field_against_lab(lab, seen([1] * 100)).field) == 4
    assert len(field_against_lab(lab, seen([1] * 60)).field) == 2
    assert field_against_lab(lab, seen([1] * 24)) is None


def test_of_many_codewords_the_frequent_are_shown() -> None:
    lab = dataclasses.replace(reference(), size=1000)
    found = field_against_lab(lab, seen([999] * 30 + list(range(500, 520))))
    assert found is not None
    assert len(found.codes) == 48
    assert 999 in found.codes
    assert found.lab.others == 0
    many = field_against_lab(lab, seen(list(range(100, 225))))
    assert many is not None
    assert 0.4 < sum(part.others for part in many.field) / len(many.field) < 0.95


def test_it_is_read_from_a_monitors_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    monitor = Monitor(reference(), state=path)
    monitor.update(day()[:600])
    monitor.save()
    found = stored_against_lab(reference(), path)
    assert found is not None
    assert [part.images for part in found.field] == [64] * 4
    assert (
        found.field[0].changed < found.field[-1].changed == 64
    )  # of fog, which began at image 400
    with pytest.raises(UsageError, match="another bundle's monitor"):
        stored_against_lab(reference(seed=1), path)
    document = json.loads(path.read_text())
    document["recent"][3]["symbol"] = CODES * BINS
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="a codeword or class does not exist"):
        stored_against_lab(reference(), path)
    with pytest.raises(UsageError, match="a codeword or class does not exist"):
        Monitor(reference(), state=path)

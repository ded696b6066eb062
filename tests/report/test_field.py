"""The field against the lab, drawn: a row for each part, whatever the file says of times."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree

from edgekit.field.history import field_against_lab
from edgekit.field.state import Seen
from edgekit.report.sections.field import field
from tests.field.lab import BINS, reference


def seen(count: int, *, since: int, time: float = 1.8e9) -> list[Seen]:
    return [Seen(i % 5 * BINS, 0, i % 5, time + 60 * i, learned=i < since) for i in range(count)]


def test_a_row_for_the_lab_and_each_part() -> None:
    page = field(field_against_lab(reference(), seen(100, since=60), parts=2))
    tree = ElementTree.fromstring(page)
    texts = ["".join(one.itertext()) for one in tree.iter("text")]
    assert texts == [
        "lab: 400 clean images",
        "2027-01-15 08:00 to 2027-01-15 08:49 UTC: 50 images",
        "2027-01-15 08:50 to 2027-01-15 09:39 UTC: 50 images",
    ]
    assert "The last 100 images that the monitor saw; 40 of them came after an alarm." in page
    titles = [one.text for one in tree.iter("title")]
    assert len(titles) == 3 * (12 + BINS)
    assert any(str(title).startswith("code 3: 20.0%, in the lab ") for title in titles)
    heights = [float(box.attrib["height"]) for box in tree.iter("rect")]
    assert max(heights) == 52
    assert "series-2" in page
    assert "series-2" not in field(field_against_lab(reference(), seen(100, since=100)))


def test_nothing_to_show_and_times_that_are_none() -> None:
    assert field(field_against_lab(reference(), seen(9, since=9))) == ""
    page = field(field_against_lab(reference(), seen(30, since=30, time=1e18)))
    assert "second 1000000000000000000 to second" in page
    many = dataclasses.replace(reference(), size=400)
    wide = field(field_against_lab(many, [Seen(BINS * i, 0, i, 0.0, True) for i in range(100)]))
    assert "all others: " in wide

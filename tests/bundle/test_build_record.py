"""What a bundle's manifest says of its build."""

import dataclasses
from typing import Any

import pytest

from edgekit.bundle.build_record import BuildRecord, build_record
from edgekit.bundle.store import open_bundle
from edgekit.core.documents import DocumentError
from tests import bundles

RECORD = BuildRecord("ab" * 32, complete=True, data="photos", seed=3)


def test_records_are_read_back_also_those_without_a_schema() -> None:
    plain = RECORD.to_dict()
    assert plain == {"schema": 1, **dataclasses.asdict(RECORD)}
    assert BuildRecord.from_dict(plain, "a test") == RECORD
    del plain["schema"]
    assert BuildRecord.from_dict(plain, "a test") == RECORD


def test_a_bundle_that_was_packed_some_other_way_has_an_empty_one() -> None:
    manifest = open_bundle(bundles.bundle()).manifest
    assert build_record(manifest, "here") == BuildRecord()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ([], "must be an object, not a list"),
        ({"schema": 2}, "has schema 2, this edgekit reads 1"),
        ({"seed": "0"}, "'seed' must be a whole number, not '0'"),
        ({"complete": 1}, "'complete' must be true or false, not 1"),
        ({"data": ["a", "b"]}, "'data' must be a text, not a list"),
    ],
)
def test_odd_sections_are_one_line(section: Any, message: str) -> None:
    manifest = open_bundle(bundles.bundle()).manifest
    odd = dataclasses.replace(manifest, sections={"build": section})
    with pytest.raises(DocumentError) as error:
        build_record(odd, "here")
    text = str(error.value)
    assert text.startswith("here: its manifest's section 'build'")
    assert message in text
    assert text.endswith(": build the bundle again")

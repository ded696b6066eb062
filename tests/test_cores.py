"""How the processes of a test run share the machine."""

import os

import pytest

from tests import cores


@pytest.mark.parametrize(
    ("worker", "count", "share"),
    [
        (None, None, None),
        ("gw0", "1", [2, 3, 5, 7]),
        ("gw0", "2", [2, 5]),
        ("gw1", "2", [3, 7]),
        ("gw3", "4", [7]),
        ("gw4", "5", None),
    ],
)
def test_each_process_has_its_own(
    worker: str | None, count: str | None, share: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[list[int]] = []
    monkeypatch.setattr(cores, "EVERY", {7, 5, 3, 2})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, share: taken.append(share))
    for name, value in (("", worker), ("_COUNT", count)):
        variable = f"PYTEST_XDIST_WORKER{name}"
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    cores.divide()
    assert taken == ([] if share is None else [share])

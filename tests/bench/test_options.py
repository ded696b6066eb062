"""How long a measurement may take."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from edgekit.bench.options import BenchOptions
from edgekit.core.errors import UsageError
from edgekit.steps.config import BuildConfig
from tests import commands


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 1e18])
def test_what_is_no_time_to_measure_for(value: float) -> None:
    def refused(make: Any, **settings: float) -> str:
        with pytest.raises(UsageError) as error:
            make(**settings)
        assert f"not {value:g}" in str(error.value)
        return str(error.value)

    assert "seconds must be above 0 and at most 86,400" in refused(BenchOptions, seconds=value)
    assert "minutes must be above 0 and at most 10,080" in refused(BenchOptions, minutes=value)
    assert "bench_seconds must be above 0 and at most" in refused(BuildConfig, bench_seconds=value)


def test_the_command_says_it_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = commands.run(capsys, "bench", tmp_path, "--seconds", "1e18")
    said = "error: seconds must be above 0 and at most 86,400, not 1e+18\n"
    assert (ended.code, ended.err) == (2, said)

"""Commands of edgekit in this process, as a shell sees them."""

from typing import NamedTuple

import pytest

from edgekit.cli.main import main


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], *words: object) -> Ended:
    """Run ``edgekit WORDS``; what was printed before is forgotten."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    code, printed = stop.value.code, capsys.readouterr()
    assert isinstance(code, int)
    return Ended(code, printed.out, printed.err)

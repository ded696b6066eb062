"""What the guard says of a model, and when it looks for the layers to blame."""

from __future__ import annotations

import pytest

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.quantize.results import Closeness
from edgekit.steps.guard import enforce

CLOSE = Closeness(64, 0.1, 0.95, 0.9)
ANOTHER = Closeness(64, 2.0, 0.2, 0.1)
QUIET = Console(verbosity=-1)


def no_graph_is_read() -> list[str]:
    raise AssertionError("the layers were asked for")


def test_only_a_refusal_looks_for_its_layers() -> None:
    enforce(CLOSE, QUIET, no_graph_is_read, insist=True)
    enforce(ANOTHER, QUIET, no_graph_is_read, insist=False)
    with pytest.raises(EdgekitError, match=r"most of it comes from conv1, conv7; nothing was wri"):
        enforce(ANOTHER, QUIET, lambda: ["conv1", "conv7"], insist=True)
    with pytest.raises(EdgekitError, match=r"of their RMS; nothing was written"):
        enforce(ANOTHER, QUIET, list, insist=True)

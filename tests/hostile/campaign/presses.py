"""Ctrl-C while NNCF is at work, at moments that no clock could meet.

The whole group gets the signal, as from a terminal.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

MOMENTS = ("begins", "collects", "inserts")
SAID = "NNCF is at work"


def main(words: list[str]) -> Any:
    """A moment, and the command that is interrupted then."""
    from nncf.onnx.graph.model_transformer import ONNXModelTransformer

    from edgekit.cli.main import main as edgekit
    from edgekit.quantize import calibrate, statistics

    match words[0]:
        case "begins":
            _pressing(calibrate._Counted, "__iter__", 1)
        case "collects":
            _pressing(statistics._Wanted, "give", 12)  # of the second image
        case "inserts":
            _pressing(ONNXModelTransformer, "transform", 1)
    return edgekit(words[1:])


def _pressing(where: type, name: str, call: int) -> None:
    """Press at the ``call``-th call of a method."""
    whole: Callable[..., Any] = getattr(where, name)
    calls: list[str] = []

    def pressed(*words: Any, **more: Any) -> Any:
        calls.append(name)
        if len(calls) == call:
            _press()
        return whole(*words, **more)

    setattr(where, name, pressed)


def _press() -> None:
    print(SAID, file=sys.stderr, flush=True)
    os.killpg(0, signal.SIGINT)

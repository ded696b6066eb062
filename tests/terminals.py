"""Output as on a terminal."""

import os
import re

import pytest


def pretend(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """From here on, standard output and error are a terminal of ``width`` columns."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.fileno", lambda: 1)
    monkeypatch.setattr("sys.stderr.fileno", lambda: 2)
    monkeypatch.setattr(os, "get_terminal_size", lambda _=1: os.terminal_size((width, 24)))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def uncolored(text: str) -> str:
    """Without the sequences that set colors and draw progress bars; each state is a line."""
    return re.sub("\x1b\\[[?0-9;]*[A-Za-z]", "", text).replace("\r", "\n")

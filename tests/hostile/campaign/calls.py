"""Calls of a program that uses edgekit, with the ending of a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError


def _ended(call: Callable[[], object]) -> None:
    try:
        call()
    except EdgekitError as error:
        Console().error(str(error))
        sys.exit(error.exit_code)


def load(words: list[str]) -> None:
    """``edgekit.load`` and one prediction, of every backend."""
    import numpy as np

    import edgekit

    def call() -> None:
        model = edgekit.load(words[0])
        model.predict(np.zeros((2, 40, 50, 3), np.uint8))

    _ended(call)


def self_test(words: list[str]) -> None:
    """The stored test of a bundle, as the script on a device runs it."""
    from edgekit.runtime.finish_engine import main

    sys.exit(main(["selftest", words[0]]))


def read_data(words: list[str]) -> None:
    """Open a data set, split it, and read images of it."""
    from edgekit.data.datasets import content_hash, open_dataset
    from edgekit.data.splits import split_dataset

    def call() -> None:
        data = open_dataset(words[0])
        content_hash(data)
        split_dataset(data)
        for i in range(min(len(data), 20)):
            data.image(i)
            data.label(i)

    _ended(call)


def read_labels(words: list[str]) -> None:
    """A text file of class names."""
    from edgekit.model.labels import read_labels as read

    _ended(lambda: read(Path(words[0])))


def impatient(words: list[str]) -> None:
    """``edgekit`` with the ssh of the case, and with less patience for it than a user has."""
    from edgekit.cli.main import main
    from edgekit.devices.link import LIMITS

    os.environ["PATH"] = f"{Path.cwd() / 'network'}{os.pathsep}{os.environ['PATH']}"
    for name in ("silence", "start", "taking", "answer", "command"):
        object.__setattr__(LIMITS, name, 4.0)
    object.__setattr__(LIMITS, "closing", 1.0)
    main(words)

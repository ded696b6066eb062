"""OpenVINO cores, one for each set of extensions, kept for the life of the process.

OpenVINO's CPU device gives the thread that loads it another signal stack, and restores the former
one when the core is destroyed. If two cores are destroyed in the order of their creation, the
second restores the stack of the first, which no longer exists: the next signal, such as Ctrl-C, is
a crash. Cores that are never destroyed restore nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.core.files import file_sha256

_cores: dict[tuple[str, ...], Any] = {}
_lock = threading.Lock()


def _unlock() -> None:
    """In a forked child: the thread that held the lock does not exist there."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock)


def shared_core(extensions: Sequence[Path] = ()) -> Any:
    """The process's `openvino.Core` with these extensions; equal files count as one."""
    import openvino as ov

    key = tuple(sorted(file_sha256(path) for path in extensions))
    with _lock:
        if key not in _cores:
            core = ov.Core()
            for path in extensions:
                core.add_extension(str(path))
            _cores[key] = core
        return _cores[key]

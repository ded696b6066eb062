"""What holds for every test."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.core.console import Console
from edgekit.core.documents import Document
from tests import cores, shared

# A shell that starts the tests in the background has them, and all that they start, ignore
# Ctrl-C; tests that press it would wait for ever.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


cores.divide()
shared.begin()

LONGEST = (
    *("e2e/test_build.py", "e2e/test_guard.py", "e2e/test_parity.py"),
    *("training/test_run.py", "cli/test_calibrate.py", "e2e/test_families.py"),
    *("hostile/test_disturbances.py", "workflows/test_build.py", "workflows/test_finetune.py"),
)
"""They begin first, so that no process is left alone with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put `LONGEST` first, otherwise the order stays; leave out what one core cannot tell."""
    here = Path(__file__).parent
    names = {item.path: item.path.relative_to(here).as_posix() for item in items}

    def place(item: pytest.Item) -> int:
        name = names[item.path]
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)
    if cores.shared():
        for item in items:
            if item.get_closest_marker("every_core"):
                item.add_marker(pytest.mark.skip(reason="needs all cores: pytest -m every_core"))


@pytest.fixture(scope="session", autouse=True)
def _documents_fit_their_schemas() -> Iterator[None]:
    """Whatever a command prints in this process, with --json or without, is as published."""
    printed = Console.document

    def checked(console: Console, document: Document) -> None:
        from tests.documents import check  # imports every document's type

        check(document)
        printed(console, document)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Console, "document", checked)
        yield

"""What holds for every test."""

import signal
import threading
from collections.abc import Iterator

import pytest

from edgekit.core.console import Console
from edgekit.core.documents import Document
from tests import shared

# A shell that starts the tests in the background has them, and all that they start, ignore
# Ctrl-C; tests that press it would wait for ever.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


shared.begin()


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

"""A folder with the result of a comparison that no bundle keeps: its document and its page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edgekit.core.console import Console, json_text, printable
from edgekit.core.errors import UsageError
from edgekit.core.files import make_folder, write_text
from edgekit.parity.across_document import AcrossDocument
from edgekit.parity.document import FILE, ParityDocument
from edgekit.parity.examples import Examples
from edgekit.report.across_page import across_page
from edgekit.report.page import REPORT
from edgekit.report.pair_page import pair_page

ACROSS: Final = "parity-across.json"


def prepare(folder: Path) -> None:
    """Make the folder, before a comparison that may take hours."""
    if (folder / "manifest.json").exists():
        raise UsageError(f"--out {folder} is a bundle: name a folder of its own")
    try:
        make_folder(folder)
    except OSError as error:
        raise UsageError(f"--out: cannot make {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--out: nothing can be written to {folder}: name another folder")


def keep(
    folder: Path,
    document: ParityDocument | AcrossDocument,
    console: Console,
    examples: Examples | None = None,
) -> None:
    """Write both files; those of an earlier comparison are replaced."""
    if isinstance(document, AcrossDocument):
        name, page = ACROSS, across_page(document)
    else:
        name, page = FILE, pair_page(document, examples)
    write_text(folder / name, json_text(document) + "\n")
    write_page(folder / REPORT, page)
    console.info(f"wrote {folder / name} and {REPORT}")


def write_page(path: Path, page: str) -> None:
    """Write a page; names in it may be no text that UTF-8 knows."""
    write_text(path, printable(page))

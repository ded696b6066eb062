"""Puts a measurement into its bundle, as the evidence or beside it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from edgekit.bench.document import FILE, BenchDocument, BenchSummary, read_bench, read_summary
from edgekit.bench.strength import section, settle
from edgekit.bundle.store import Bundle, change_bundle, open_bundle
from edgekit.core.console import Console
from edgekit.core.documents import DocumentError
from edgekit.core.errors import EdgekitError


def save(
    path: Path, document: BenchDocument, console: Console, *, replace: bool = False
) -> BenchDocument:
    """Put bench.json into the bundle and its summary into the manifest, if it is a folder.

    `edgekit.bench.strength` decides whether it becomes the evidence; ``replace`` overrules it.
    The document comes back with all measurements of the bundle counted.
    """
    if not document.scenarios.measured() and document.layers is None:
        return document  # all was measured in turns with other bundles, and is no bundle's own

    def change(bundle: Bundle) -> tuple[dict[str, Any], dict[str, bytes]]:
        nonlocal document
        standing = _standing(bundle, console)
        evidence, why = settle(standing, document, replace=replace)
        document = dataclasses.replace(document, looks=evidence.looks, beside=evidence.beside)
        sections = {}
        if why is not None and standing is not None:
            console.warn(
                f"kept beside {FILE}, which stays ({standing.measured}): {why}; --replace puts "
                "this one in its place"
            )
        elif (headline := section(_headline(bundle), document)) is not None:
            sections["bench"] = headline.to_dict()
        text = json.dumps(evidence.to_dict(), indent=1, sort_keys=True) + "\n"
        return sections, {FILE: text.encode()}

    if not path.is_dir():
        change(open_bundle(path, any_arch=True))
        console.warn(
            f"{path} is a .zip and stays as it is: unpack it to keep {FILE} in the bundle, or name "
            "a file with -o"
        )
        return document
    try:
        change_bundle(path, change)
    except (EdgekitError, PermissionError) as error:
        console.warn(f"{FILE} is not in the bundle: {error}")
    return document


def _standing(bundle: Bundle, console: Console) -> BenchDocument | None:
    """The bundle's evidence; one that cannot be read makes way for whatever can."""
    try:
        return read_bench(bundle)
    except DocumentError as error:
        console.warn(f"replaced: {error}")
        return None


def _headline(bundle: Bundle) -> BenchSummary | None:
    try:
        return read_summary(bundle)
    except DocumentError:  # another edgekit's: replaced
        return None

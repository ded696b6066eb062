"""Stores a measurement in its bundle, as the evidence or beside it."""

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
    """Write bench.json into the bundle, and its summary into the manifest, if it is a folder.

    `edgekit.bench.strength` decides whether it becomes the evidence; ``replace`` overrides that.
    The returned document counts all measurements of the bundle.
    """
    if not document.scenarios.measured() and document.layers is None:
        return document  # everything was a comparison of bundles, nothing belongs to one of them

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
            f"{path} is a .zip and stays unchanged: unpack it to store {FILE} in it, or name a "
            "file with -o"
        )
        return document
    try:
        change_bundle(path, change)
    except (EdgekitError, PermissionError) as error:
        console.warn(f"{FILE} was not stored in the bundle: {error}")
    return document


def _standing(bundle: Bundle, console: Console) -> BenchDocument | None:
    """The bundle's evidence; an unreadable one may be replaced by anything."""
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

"""``edgekit parity --across``: what its words mean, its run and what it prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.errors import GateFailed, UsageError
from edgekit.core.typed_toml import nearest

if TYPE_CHECKING:
    from edgekit.foreign.open import ForeignOptions
    from edgekit.parity.options import ParityOptions
    from edgekit.steps.context import Context
    from edgekit.workflows.across import Deployed

_KEYS = ("preprocessing", "output-name", "background", "extension")


def across_artifacts(
    context: Context,
    names: Sequence[str],
    devices: Sequence[str],
    options: ParityOptions,
    told: ForeignOptions,
    settings: Sequence[str],
    *,
    seed: int | None,
    report: Path | None = None,
    out: Path | None = None,
) -> None:
    """Compare all of ``names`` and of ``devices`` (NAME:BUNDLE); ``told`` holds for every file.

    ``settings`` are NAME:OPTION=VALUE, of one file each; ``report`` is where a page goes, ``out``
    a folder for page and document.
    """
    from edgekit.model.labels import read_labels
    from edgekit.report.across_page import across_page
    from edgekit.report.across_table import failure, show
    from edgekit.report.parity_folder import keep, prepare, write_page
    from edgekit.workflows.across import parity_across
    from edgekit.workflows.foreign_parity import Side

    if told.output is not None or told.background:
        raise UsageError(
            "with --across, say of which file: --of NAME:output-name=... or background"
        )
    if options.gates.min_code_agreement is not None:
        raise UsageError("--min-code-agreement is for two bundles: leave it out with --across")
    if out is not None:
        prepare(out)
    files = list(names)
    everything = [*files, *devices]
    if options.reference is not None and options.reference not in everything:
        files.insert(0, options.reference)
    labels = None if options.labels is None else read_labels(Path(options.labels))
    ours = _settled(files, dataclasses.replace(told, labels=labels), settings)
    artifacts: list[Side | Deployed] = [
        Side(name, options_of) for name, options_of in zip(files, ours, strict=True)
    ]
    artifacts += [_deployed(device) for device in devices]
    place = (
        0 if options.reference is None else [one.name for one in artifacts].index(options.reference)
    )
    document = parity_across(
        context,
        artifacts,
        place,
        options,
        seed=seed,
        allow_fallback=told.allow_fallback,
        allow_weak=told.allow_weak,
    )
    context.console.document(document)
    show(context.console, document)
    if out is not None:
        keep(out, document, context.console)
    if report is not None:
        write_page(report, across_page(document))
        context.console.info(f"wrote {report}")
    if document.verdict != "pass":
        raise GateFailed(failure(document))


def _settled(
    files: Sequence[str], told: ForeignOptions, settings: Sequence[str]
) -> list[ForeignOptions]:
    """The options of each file: ``told``, changed by what is said of it alone."""
    found = [told] * len(files)
    for text in settings:
        name, colon, rest = text.rpartition(":")
        while colon and name not in files:  # values and names may have colons, too
            name, colon, more = name.rpartition(":")
            rest = f"{more}:{rest}"
        if not colon:
            listed = ", ".join(files)
            raise UsageError(f"--of {text}: write NAME:OPTION=VALUE, NAME one of {listed}")
        key, equals, value = rest.partition("=")
        if key not in _KEYS:
            raise UsageError(f"--of {text}: no option '{key}'{nearest(key, list(_KEYS))}")
        if bool(equals and value) == (key == "background"):
            shown = "background" if key == "background" else f"{key}=VALUE"
            raise UsageError(f"--of {text}: write {name}:{shown}")
        place = files.index(name)
        found[place] = _changed(found[place], key, value)
    return found


def _changed(told: ForeignOptions, key: str, value: str) -> ForeignOptions:
    if key == "background":
        return dataclasses.replace(told, background=True)
    if key == "extension":
        return dataclasses.replace(told, extension=Path(value))
    if key == "output-name":
        return dataclasses.replace(told, output=value)
    return dataclasses.replace(told, preprocessing=value)


def _deployed(text: str) -> Deployed:
    from edgekit.workflows.across import Deployed

    device, colon, bundle = text.rpartition(":")
    if not (colon and device and bundle):
        raise UsageError(f"--device {text}: with --across write NAME:BUNDLE")
    return Deployed(device, Path(bundle))

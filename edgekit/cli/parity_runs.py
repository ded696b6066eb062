"""The comparisons that ``edgekit parity`` makes of two: which engine runs each, and where."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.errors import UsageError

if TYPE_CHECKING:
    from edgekit.parity.compare import Comparison
    from edgekit.parity.document import ParityDocument
    from edgekit.parity.options import ParityOptions
    from edgekit.steps.context import Context
    from edgekit.workflows.foreign_parity import Side


def of_any(
    context: Context,
    candidate: Side,
    reference: Side,
    options: ParityOptions,
    seed: int | None,
    device: str | None,
    worst: int,
) -> Comparison:
    """The comparison of any two classifiers."""
    from edgekit.workflows.foreign_parity import parity_of_any

    if device is None:
        return parity_of_any(context, candidate, reference, options, seed=seed, worst=worst)
    if not candidate.bundle:
        raise UsageError(
            f"--device runs bundles, and {candidate.name} is none: give "
            "command:'ssh DEVICE python3 PROGRAM', see docs/foreign.md"
        )
    from edgekit.devices.remote_predictor import on_device

    with on_device(device, Path(candidate.name), context.console) as there:
        return parity_of_any(
            context, candidate, reference, options, seed=seed, on_device=there, worst=worst
        )


def against(
    context: Context,
    candidate: Side,
    baseline: str,
    options: ParityOptions,
    seed: int | None,
    limit: float,
) -> ParityDocument:
    """The same comparison with the earlier bundle as the reference; nothing is stored."""
    from edgekit.parity.options import Gates
    from edgekit.workflows.foreign_parity import Side, parity_of_any
    from edgekit.workflows.parity import parity_with_earlier

    context.console.info(f"parity: comparing with the earlier {baseline}")
    earlier = Side(baseline, candidate.told)
    if candidate.bundle and earlier.bundle:
        return parity_with_earlier(
            context, Path(candidate.name), Path(baseline), options, limit, seed=seed
        )
    options = dataclasses.replace(options, gates=Gates(limit))
    return parity_of_any(context, candidate, earlier, options, seed=seed).document


def of_bundle(
    context: Context,
    bundle: Path,
    options: ParityOptions,
    seed: int | None,
    device: str | None,
    worst: int,
    *,
    replace: bool,
    pictures: bool,
) -> Comparison:
    """The comparison of a bundle with its float original, which becomes its evidence.

    ``pictures``: the bundle keeps a few of the images, for its page.
    """
    from edgekit.parity.example_images import examples_of
    from edgekit.report.page import refresh_report
    from edgekit.workflows.parity import parity_of_bundle, save_report

    if device is None:
        comparison = parity_of_bundle(context, bundle, options, seed=seed, worst=worst)
    else:
        from edgekit.devices.remote_predictor import on_device

        with on_device(device, bundle, context.console) as there:
            comparison = parity_of_bundle(
                context, bundle, options, seed=seed, candidate=there, worst=worst
            )
    examples = examples_of(comparison) if pictures else None
    document = save_report(
        bundle, comparison.document, context.console, replace=replace, examples=examples
    )
    refresh_report(bundle)
    return comparison._replace(document=document)

"""A full sweep of the built-in test images, for the benchmarks that time one; not a command."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any


def full_sweep(
    bundle: Path, reference: Path, images: int, seed: int, folder: Path, executor: Any = None
) -> Any:
    """All cells of ``images`` images, with no answers kept from earlier ones.

    ``executor`` answers them; None is this process.
    """
    from edgekit.data.base import subset
    from edgekit.data.corruption_grid import Cells, MakeVariants
    from edgekit.data.corruptions import BENCHMARK15
    from edgekit.data.datasets import open_dataset
    from edgekit.data.loading import default_workers
    from edgekit.parity.engines import open_reference
    from edgekit.parity.executors import LOCAL
    from edgekit.parity.predictors import open_bundle_predictor
    from edgekit.parity.sweep import Sweep

    dataset = open_dataset("builtin:fashion-mnist")
    candidate = open_bundle_predictor(bundle)
    return Sweep(
        subset(dataset, dataset.given_splits["test"]),
        MakeVariants(candidate.preprocessing, Cells(BENCHMARK15, (1, 2, 3, 4, 5))),
        open_reference(reference),
        candidate,
        Path(tempfile.mkdtemp(dir=folder)),
        images,
        default_workers(),
        seed,
        executor=executor or LOCAL,
    )

"""Every hazard of the campaign."""

from __future__ import annotations

from tests.hostile.campaign import checkpoints, configs, data_files, documents, frames, images, zips
from tests.hostile.campaign.case import Hazard


def hazards() -> tuple[Hazard, ...]:
    """All of them, in the order in which they are run."""
    return (
        *documents.HAZARDS,
        *zips.HAZARDS,
        *checkpoints.HAZARDS,
        *images.HAZARDS,
        *data_files.HAZARDS,
        *configs.HAZARDS,
        *frames.HAZARDS,
    )


def disturbances() -> tuple[Hazard, ...]:
    """Commands that are killed, cut off, out of room or not alone: seconds a case, not moments."""
    from tests.hostile.campaign import full, operators, power, stops, together

    return (*stops.HAZARDS, *power.HAZARDS, *full.HAZARDS, *together.HAZARDS, *operators.HAZARDS)

"""Every hazard of the campaign."""

from __future__ import annotations

from tests.hostile.campaign import images
from tests.hostile.campaign.case import Hazard


def hazards() -> tuple[Hazard, ...]:
    """All of them, in the order in which they are run."""
    return images.HAZARDS

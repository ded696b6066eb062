"""Images with answers by hand, for tests of what is done with them."""

import base64
import dataclasses
from typing import Any

import numpy as np

from edgekit.data.encode import jpeg
from edgekit.parity.examples import Answered, Codes, Example, ExampleCell, Examples, Picture

MEASURED = "2026-01-02T03:04:05Z"


def picture(side: int = 32, **changes: Any) -> Picture:
    ramp = np.arange(side * side * 3, dtype=np.uint8).reshape(side, side, 3)
    data = base64.b64encode(jpeg(ramp, 224).data).decode()
    right, wrong = Answered("coat", 0.973, right=True), Answered("bag", 0.61, right=False)
    usual = Picture(data, side, side, right, wrong, Codes(0, 1, 12, 7))
    return dataclasses.replace(usual, **changes)


def examples(
    side: int = 32, image: str = "photos/1.png", measured: str = MEASURED, **changes: Any
) -> Examples:
    one = Example(image, "fog", 3, "coat", picture(side), picture(side, **changes))
    worst = ExampleCell("worst", "fog", 3, 0.25, (one,))
    other = ExampleCell("random", "gaussian_noise", 1, 0.0, (one,))
    return Examples(measured, (worst, other))

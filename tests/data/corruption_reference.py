"""The reference's outputs, and its random numbers in its order.

    python -m tests.data.corruption_reference

prints the table of docs/corruptions.md: how far edgekit is from the reference when it draws the
same numbers.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FIXTURES = Path(__file__).parent / "fixtures"


class ReferenceDraws:
    """Replays what the reference drew after np.random.seed(7)."""

    def __init__(self, seed: int = 7) -> None:
        self._state = np.random.RandomState(seed)

    def normal(self, shape):
        return self._state.normal(size=shape)

    def uniform(self, shape):
        return self._state.random_sample(shape)

    def integers(self, low, high, shape):
        return self._state.randint(low, high, size=shape)

    def photon_counts(self, image, full_scale):
        return self._state.poisson(image / 255 * full_scale)


@lru_cache(maxsize=2)
def fixtures(side: int) -> dict[str, NDArray[np.uint8]]:
    """Arrays by "clean" or "<corruption>/<severity>"."""
    with np.load(FIXTURES / f"corruptions-{side}.npz") as stored:
        return {name: _decoded(stored[name]) for name in stored.files}


def _decoded(lossless: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(lossless.tobytes())).convert("RGB"))


def cells(side: int) -> list[tuple[str, int]]:
    names = [name.split("/") for name in fixtures(side) if name != "clean"]
    return [(corruption, int(severity)) for corruption, severity in names]


def rms(changed: NDArray[np.uint8], image: NDArray[np.uint8]) -> float:
    return float(np.sqrt(np.mean((changed.astype(np.float64) - image) ** 2)))


def print_differences() -> None:
    from edgekit.data.corruptions import ALL19
    from edgekit.data.corruptions.apply import apply

    print("corruption, then for 224 and 32 px: mean and largest difference, RMS change / reference")
    for corruption in ALL19:
        row = []
        for side in (224, 32):
            image = fixtures(side)["clean"]
            means, largest, ratios = [0.0], [0], []
            for name, severity in cells(side):
                if name == corruption:
                    expected = fixtures(side)[f"{name}/{severity}"]
                    result = apply(image, name, severity, ReferenceDraws())
                    difference = np.abs(result.astype(int) - expected)
                    means.append(float(difference.mean()))
                    largest.append(int(difference.max()))
                    ratios.append(rms(result, image) / rms(expected, image))
            span = f"{min(ratios):.3f} to {max(ratios):.3f}" if ratios else "-"
            row.append(f"{max(means):8.4f} {max(largest):4d}  {span:14}")
        print(f"{corruption:18}", *row, sep=" | ")


if __name__ == "__main__":
    print_differences()

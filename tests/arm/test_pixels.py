"""What decides pixels, on x86 and aarch64: equal bytes, or as near as corruptions.md says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgekit.data.synthetic import pictures
from tests.arm.conftest import Table
from tests.arm.userland import SOURCE, Userland

Pixels = dict[str, NDArray[np.uint8]]
Both = tuple[Pixels, Pixels]


@pytest.fixture(scope="module")
def both(userland: Userland, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """The results of `tests.arm.pixels` here and there, from the same files."""
    folder = tmp_path_factory.mktemp("pixels")
    for index, (quality, subsampling) in enumerate(((95, 0), (75, 2), (60, 1))):
        (image,) = pictures(1, (240, 320), seed=index)
        path = folder / f"q{quality}.jpg"
        Image.fromarray(image).save(path, quality=quality, subsampling=subsampling)
    words = ("-m", "tests.arm.pixels", folder)
    subprocess.run([sys.executable, *words, folder / "x86.npz"], cwd=SOURCE, check=True)
    there: list[str | Path] = ["python3", *words, folder / "arm.npz"]
    done = userland.run(there, binds=[folder], seconds=3000)
    assert done.returncode == 0, done.stderr
    x86, arm = (dict(np.load(folder / f"{name}.npz")) for name in ("x86", "arm"))
    assert x86.keys() == arm.keys()
    return x86, arm


def differences(both: Both, kind: str) -> dict[str, tuple[int, float]]:
    """Of the results that differ: the largest difference, and the share of values that do."""
    x86, arm = both
    found = {}
    for name in x86:
        if name.startswith(f"{kind}/") and not np.array_equal(x86[name], arm[name]):
            off = np.abs(x86[name].astype(int) - arm[name].astype(int))
            found[name] = (int(off.max()), float((off > 0).mean()))
    return found


def count(both: Both, kind: str) -> int:
    """Results of a kind."""
    return sum(name.startswith(f"{kind}/") for name in both[0])


@pytest.mark.parametrize("kind", ["decode", "resize"])
def test_decoding_and_resizing_are_equal(both: Both, kind: str, table: Table) -> None:
    assert count(both, kind) >= 3
    assert differences(both, kind) == {}
    table.add(kind, f"{count(both, kind)} of {count(both, kind)} results byte for byte as on x86")


def test_corruptions_are_nearly_equal(both: Both, table: Table) -> None:
    """A function of image id, corruption, severity and seed, but for the last bit of arithmetic."""
    cells, off = count(both, "corrupt"), differences(both, "corrupt")
    assert cells == 190
    assert len(off) <= 5
    assert max((level for level, _ in off.values()), default=0) <= 1
    assert max((share for _, share in off.values()), default=0.0) < 1e-4
    table.add("corruptions", f"{cells - len(off)} of {cells} cells equal; {off or 'all'}")

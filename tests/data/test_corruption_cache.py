"""The disk cache: same pixels, bounded, shared, and never believing a damaged file."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgekit.core.errors import UsageError
from edgekit.data import corruption_cache
from edgekit.data.corruption_cache import CorruptionCache
from edgekit.data.corruptions import corrupt

ENTRY = 88 + 16 * 20 * 3  # header and pixels of `image`


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*"))


def test_second_request_is_read_and_equal(tmp_path):
    cache = CorruptionCache(tmp_path / "deep" / "cache", 10**6)
    first = cache.corrupt(image(), "snow", 2, image_id="a")
    again = CorruptionCache(tmp_path / "deep" / "cache", 10**6)
    second = again.corrupt(image(), "snow", 2, image_id="a")
    assert (cache.hits, cache.misses, again.hits, again.misses) == (0, 1, 1, 0)
    assert np.array_equal(first, second)
    assert np.array_equal(second, corrupt(image(), "snow", 2, image_id="a"))
    second[:] = 0  # its own memory
    assert again.bytes_used() == ENTRY


def test_every_part_of_the_request_is_in_the_key(tmp_path, monkeypatch):
    cache = CorruptionCache(tmp_path / "cache", 10**6)
    textures = tmp_path / "textures"
    textures.mkdir()
    import cv2

    for number in range(1, 6):
        cv2.imwrite(str(textures / f"frost{number}.png"), np.full((40, 40, 3), 99, np.uint8))
    cache.corrupt(image(), "frost", 2, image_id="a")
    cache.corrupt(image(), "frost", 3, image_id="a")
    cache.corrupt(image(), "fog", 2, image_id="a")
    cache.corrupt(image(1), "frost", 2, image_id="a")
    cache.corrupt(image().reshape(20, 16, 3), "frost", 2, image_id="a")
    cache.corrupt(image(), "frost", 2, image_id="b")
    cache.corrupt(image(), "frost", 2, image_id="a", seed=1)
    cache.corrupt(image(), "frost", 2, image_id="a", frost_textures=textures)
    monkeypatch.setattr(corruption_cache, "code_version", lambda: b"another release")
    cache.corrupt(image(), "frost", 2, image_id="a")
    assert (cache.hits, cache.misses) == (0, 9)


def test_textures_do_not_split_what_they_do_not_change(tmp_path):
    cache = CorruptionCache(tmp_path, 10**6)
    cache.corrupt(image(), "fog", 2, image_id="a")
    cache.corrupt(image(), "fog", 2, image_id="a", frost_textures=tmp_path)
    assert cache.hits == 1


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "longer", "other"])
def test_damaged_entries_are_computed_again(tmp_path, damage):
    cache = CorruptionCache(tmp_path, 10**6)
    good = cache.corrupt(image(), "fog", 1, image_id="a")
    (path,) = entries(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[500] ^= 1
    elif damage == "cut":
        del content[-100:]
    elif damage == "empty":
        content.clear()
    elif damage == "longer":
        content += b"x"
    else:
        cache.corrupt(image(1), "fog", 1, image_id="a")
        (other,) = set(entries(tmp_path)) - {path}
        content = bytearray(other.read_bytes())
    path.write_bytes(content)
    fresh = CorruptionCache(tmp_path, 10**6)
    assert np.array_equal(fresh.corrupt(image(), "fog", 1, image_id="a"), good)
    assert (fresh.hits, fresh.misses) == (0, 1)
    assert np.array_equal(fresh.corrupt(image(), "fog", 1, image_id="a"), good)
    assert fresh.hits == 1


def test_size_stays_bounded_and_the_stalest_goes_first(tmp_path):
    cache = CorruptionCache(tmp_path, 20 * ENTRY)
    for i in range(20):
        cache.corrupt(image(i), "pixelate", 1, image_id="a")
    now = time.time()
    for age, path in enumerate(entries(tmp_path)):
        os.utime(path, (now - 1000 - age, now - 1000 - age))
    cache.corrupt(image(3), "pixelate", 1, image_id="a")  # read: young again
    assert cache.hits == 1
    for i in range(20, 37):
        cache.corrupt(image(i), "pixelate", 1, image_id="a")
        assert cache.bytes_used() <= 20 * ENTRY
    assert cache.bytes_used() >= 15 * ENTRY
    hits = cache.hits
    cache.corrupt(image(3), "pixelate", 1, image_id="a")
    assert cache.hits == hits + 1


def test_an_entry_larger_than_the_bound_is_not_kept(tmp_path):
    cache = CorruptionCache(tmp_path, ENTRY - 1)
    cache.corrupt(image(), "fog", 1, image_id="a")
    assert entries(tmp_path) == []


def test_a_lost_sum_is_counted_again(tmp_path):
    cache = CorruptionCache(tmp_path, 4 * ENTRY)
    for i in range(4):
        cache.corrupt(image(i), "pixelate", 1, image_id="a")
    (tmp_path / "total").write_text("garbage")
    cache.corrupt(image(9), "pixelate", 1, image_id="a")
    assert cache.bytes_used() <= 4 * ENTRY


def test_abandoned_temporary_files_go_with_the_next_scan(tmp_path):
    cache = CorruptionCache(tmp_path, 10**6)
    cache.corrupt(image(), "fog", 1, image_id="a")
    folder = entries(tmp_path)[0].parent
    old, young = folder / ".new-old", folder / ".new-young"
    for path in (old, young):
        path.write_bytes(b"half an entry")
    os.utime(old, (0, 0))
    assert cache.bytes_used() == ENTRY
    assert not old.exists()
    assert young.exists()


WORKER = """
import sys
from pathlib import Path
import numpy as np
from edgekit.data.corruption_cache import CorruptionCache
from edgekit.data.corruptions import corrupt
folder, bound, order = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cache = CorruptionCache(folder, bound)
for turn in range(4):
    for i in range(40)[::order]:
        pixels = np.random.default_rng(i).integers(0, 256, (16, 20, 3), dtype=np.uint8)
        result = cache.corrupt(pixels, "pixelate", 1, image_id="a")
        assert np.array_equal(result, corrupt(pixels, "pixelate", 1, image_id="a"))
        assert cache.bytes_used() <= bound, cache.bytes_used()
print(cache.hits, cache.misses)
"""


@pytest.mark.parametrize("held", [50, 15])
def test_two_processes_share_a_cache(tmp_path, held):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(held * ENTRY), order],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        for order in ("1", "-1")
    ]
    counts = []
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        counts.append([int(word) for word in output.split()])
    assert [sum(count) for count in counts] == [160, 160]
    files = entries(tmp_path)
    assert not [path for path in files if path.name.startswith(".new-")]
    assert sum(path.stat().st_size for path in files) <= held * ENTRY
    if held == 50:
        assert len(files) == 40
        assert sum(count[0] for count in counts) >= 240  # all but the first turns
        assert int((tmp_path / "total").read_text()) == 40 * ENTRY


def test_a_cache_that_cannot_be_written_warns_once_and_goes_on(tmp_path):
    cache = CorruptionCache(tmp_path, 10**6)
    (tmp_path / "lock").mkdir()  # stands where the lock file belongs
    with pytest.warns(UserWarning, match="cannot be written"):
        result = cache.corrupt(image(), "fog", 1, image_id="a")
    assert np.array_equal(result, corrupt(image(), "fog", 1, image_id="a"))
    cache.corrupt(image(1), "fog", 1, image_id="a")
    assert entries(tmp_path) == []


def test_workers_can_carry_it(tmp_path):
    cache = pickle.loads(pickle.dumps(CorruptionCache(tmp_path, 10**6)))
    cache.corrupt(image(), "fog", 1, image_id="a")
    assert cache.bytes_used() == ENTRY


def test_mistakes(tmp_path):
    with pytest.raises(UsageError, match="holds nothing"):
        CorruptionCache(tmp_path, 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot make the cache folder"):
        CorruptionCache(tmp_path / "file" / "cache", 10)
    with pytest.raises(UsageError, match="did you mean"):
        CorruptionCache(tmp_path, 10).corrupt(image(), "fogg", 1, image_id="a")

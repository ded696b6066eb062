"""What holds for every corruption, whatever the image."""

from __future__ import annotations

import hashlib
import io
import math
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from edgekit.core.errors import UsageError
from edgekit.data.corruptions import ALL19, BENCHMARK15, EXTRA4, corrupt, parse_seen
from edgekit.data.corruptions.blur import clipped_zoom, scatter
from edgekit.data.corruptions.common import motion_blur, motion_taps
from edgekit.data.corruptions.random_fields import KeyedDraws
from edgekit.data.corruptions.tables import table_for
from tests.data.corruption_reference import ReferenceDraws, fixtures, rms

RANDOM = {
    "gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow",
    "frost", "fog", "elastic_transform", "speckle_noise", "spatter",
}  # fmt: skip


def photograph(height: int, width: int) -> np.ndarray:
    return cv2.resize(fixtures(224)["clean"], (width, height), interpolation=cv2.INTER_AREA)


@st.composite
def images(draw):
    height, width = draw(st.integers(8, 150)), draw(st.integers(8, 150))
    kind = draw(st.sampled_from(["noise", "flat", "photograph", "gray"]))
    if kind == "flat":
        return np.full((height, width, 3), draw(st.integers(0, 255)), dtype=np.uint8)
    if kind == "photograph":
        return photograph(height, width)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels = 1 if kind == "gray" else 3
    values = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return np.ascontiguousarray(np.broadcast_to(values, (height, width, 3)))


@given(image=images(), corruption=st.sampled_from(ALL19), severity=st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_any_image_gives_a_fresh_image_of_its_kind(image, corruption, severity):
    before = image.copy()
    result = corrupt(image, corruption, severity, image_id="a")
    assert result.dtype == np.uint8
    assert result.shape == image.shape
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert not np.shares_memory(result, image)
    assert np.array_equal(image, before)
    assert np.array_equal(result, corrupt(image, corruption, severity, image_id="a"))


@given(
    level=st.integers(0, 255),
    corruption=st.sampled_from(
        ["defocus_blur", "gaussian_blur", "glass_blur", "motion_blur", "zoom_blur", "pixelate",
         "elastic_transform", "contrast"]
    ),
    severity=st.integers(1, 5),
    side=st.sampled_from([(32, 40), (64, 50), (150, 130)]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_averages_leave_a_flat_image_as_it_is(level, corruption, severity, side):
    image = np.full((*side, 3), level, dtype=np.uint8)
    result = corrupt(image, corruption, severity, image_id="a")
    if corruption == "defocus_blur" and side[0] == 150 and severity >= 4:
        # The reference's larger disks weigh 1.013 and 1.011 in all.
        assert np.abs(result.astype(int) - level * 1.01).max() <= 2
    else:
        assert np.array_equal(result, image)


@pytest.mark.parametrize("side", [224, 32])
@pytest.mark.parametrize(
    "corruption",
    ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "defocus_blur",
     "gaussian_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression",
     "motion_blur", "fog"],
)  # fmt: skip
def test_severity_grows_where_its_parameters_do(side, corruption):
    image = fixtures(side)["clean"]
    draws = 1 if corruption not in RANDOM else 12 if side == 224 else 150
    strengths = [
        np.mean([rms(corrupt(image, corruption, s, image_id=f"{i}"), image) for i in range(draws)])
        for s in range(1, 6)
    ]
    assert strengths == sorted(strengths)
    assert strengths[0] > 0
    assert strengths[4] > 1.1 * strengths[0]


@pytest.mark.parametrize("corruption", ALL19)
def test_seed_and_image_id_matter_where_there_is_chance(corruption):
    image = photograph(60, 70)
    # Mud, spatter's severity 5, covers enough of a small image to differ.
    base = corrupt(image, corruption, 5, image_id="a", seed=0)
    same_if_no_chance = corruption not in RANDOM
    for image_id, seed in (("b", 0), ("a", 1)):
        other = corrupt(image, corruption, 5, image_id=image_id, seed=seed)
        assert np.array_equal(base, other) == same_if_no_chance


@pytest.mark.parametrize("corruption", ["gaussian_noise", "pixelate", "snow"])
def test_a_view_gives_what_its_copy_gives(corruption):
    wide = photograph(80, 120)
    view = wide[:, ::2]
    result = corrupt(view, corruption, 3, image_id="a")
    assert np.array_equal(result, corrupt(view.copy(), corruption, 3, image_id="a"))


DIGESTS = """
import hashlib, sys
import cv2, numpy as np
from edgekit.data.corruptions import ALL19, corrupt
cv2.setNumThreads(int(sys.argv[1]))
np.random.seed(int(sys.argv[2]))
image = np.random.RandomState(1).randint(0, 256, (130, 140, 3)).astype(np.uint8)
names = ALL19 if sys.argv[1] == "1" else ALL19[::-1]
for name in names:
    print(name, hashlib.sha256(corrupt(image, name, 2, image_id="x/1.png", seed=3)).hexdigest())
"""


def test_other_processes_get_the_same_pixels():
    image = np.random.RandomState(1).randint(0, 256, (130, 140, 3)).astype(np.uint8)
    here = {
        name: hashlib.sha256(corrupt(image, name, 2, image_id="x/1.png", seed=3).data).hexdigest()
        for name in ALL19
    }
    for threads, seed in (("1", "5"), ("2", "6")):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "PYTHONPATH": str(Path(__file__).parents[3]),
        }
        output = subprocess.run(
            [sys.executable, "-c", DIGESTS, threads, seed],
            env=environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert dict(line.split() for line in output.splitlines()) == here


# The pieces that were rewritten, each against a plain form of what it stands for.


@given(
    height=st.integers(8, 30),
    width=st.integers(8, 30),
    reach=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_scatter_equals_copying_pixel_by_pixel(height, width, reach, seed):
    draws, expected = ReferenceDraws(seed), np.arange(height * width).reshape(height, width)
    for row in range(height - reach, reach, -1):
        for column in range(width - reach, reach, -1):
            right, down = draws.integers(-reach, reach, (2,))
            expected[row, column] = expected[row + down, column + right]
    result = scatter(height, width, reach, ReferenceDraws(seed))
    assert np.array_equal(result, expected.reshape(-1))


@given(
    height=st.integers(8, 60),
    width=st.integers(8, 60),
    zoom=st.sampled_from([1.01, 1.07, 1.24, 1.75, 2.5, 4.0]),
)
@settings(max_examples=60, deadline=None)
def test_clipped_zoom_equals_scipy(height, width, zoom):
    pixels = np.random.default_rng(0).random((height, width), dtype=np.float32)
    rows, columns = math.ceil(height / zoom), math.ceil(width / zoom)
    top, left = (height - rows) // 2, (width - columns) // 2
    # Rounding puts scipy's last sample beyond the edge for some sizes, where it would read 0.
    cut = pixels[top : top + rows, left : left + columns]
    large = ndimage.zoom(cut, zoom, order=1, mode="nearest")
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    expected = large[top : top + height, left : left + width]
    assert np.abs(clipped_zoom(pixels, zoom) - expected).max() < 0.04  # 1/32 px in old OpenCV


@given(
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    angle=st.floats(-135, 45),
    radius=st.integers(3, 20),
)
@example(height=8, width=8, angle=2.0, radius=8)
@settings(max_examples=60, deadline=None)
def test_motion_blur_equals_the_sum_of_shifted_images(height, width, angle, radius):
    image = photograph(height, width)
    rows, columns = np.arange(height)[:, None], np.arange(width)
    total = np.zeros(image.shape)
    for down, across, weight in motion_taps(radius, 3, angle):
        source = image[np.clip(rows + down, 0, height - 1), np.clip(columns + across, 0, width - 1)]
        total += weight * source
    result = motion_blur(image, radius, 3, angle)
    assert np.abs(result - total).max() <= 1.01
    # A sum that is a whole number but for its rounding may be cut off on either side.
    whole = np.abs(total - np.round(total)) < 1e-3
    below = np.round(total) - result
    assert np.isin(below[whole], (0, 1)).all()
    assert np.abs(result - np.floor(total))[~whole].sum() < 0.02 * total.size


@given(image=images(), severity=st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_jpeg_and_pixelate_equal_pillow(image, severity):
    height, width = image.shape[:2]
    table = table_for((height, width))
    quality = {224: (25, 18, 15, 10, 7), 64: (65, 58, 50, 40, 25), 32: (80, 65, 58, 50, 40)}
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "JPEG", quality=quality[table][severity - 1])
    expected = np.array(Image.open(encoded))
    assert np.array_equal(corrupt(image, "jpeg_compression", severity, image_id="a"), expected)

    shares = {
        224: (0.6, 0.5, 0.4, 0.3, 0.25),
        64: (0.9, 0.8, 0.7, 0.6, 0.5),
        32: (0.95, 0.9, 0.85, 0.75, 0.65),
    }
    share = shares[table][severity - 1]
    coarse = Image.fromarray(image).resize(
        (int(width * share), int(height * share)), Image.Resampling.BOX
    )
    expected = np.array(coarse.resize((width, height), Image.Resampling.BOX))
    assert np.array_equal(corrupt(image, "pixelate", severity, image_id="a"), expected)


# Names and mistakes.


def test_names():
    assert len(BENCHMARK15) == 15
    assert len(set(ALL19)) == 19
    assert ALL19 == BENCHMARK15 + EXTRA4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("benchmark15", BENCHMARK15),
        ("extra4", EXTRA4),
        ("all19", ALL19),
        ("none", ()),
        ("fog, gaussian_noise,fog", ("gaussian_noise", "fog")),
        ("extra4,fog", ("fog", *EXTRA4)),
    ],
)
def test_parse_seen(text, expected):
    assert parse_seen(text) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("gausian_noise", "did you mean 'gaussian_noise'"),
        ("fog,elastic", "did you mean 'elastic_transform'"),
        ("benchmark", "did you mean 'benchmark15'"),
        ("fog,none", "'none' cannot be combined"),
        ("", "unknown corruption ''"),
    ],
)
def test_parse_seen_names_the_mistake(text, part):
    with pytest.raises(UsageError, match=part) as caught:
        parse_seen(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "table"),
    [(8, 32), (28, 32), (45, 32), (46, 64), (64, 64), (96, 64), (119, 64), (120, 224),
     (224, 224), (1000, 224), ((224, 64), 64), ((33, 500), 32)],
)  # fmt: skip
def test_table_for_takes_the_nearest_in_ratio(size, table):
    assert table_for(size) == table


IMAGE = np.zeros((16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "corruption", "severity", "part"),
    [
        (IMAGE, "snoww", 1, "did you mean 'snow'"),
        (IMAGE, "snow", 0, "severity 0 does not exist: use 1 to 5"),
        (IMAGE, "snow", 6, "use 1 to 5"),
        (IMAGE, "snow", 2.5, "not an integer"),
        (IMAGE.astype(np.float32), "snow", 1, "need uint8 pixels, got float32"),
        (IMAGE[..., 0], "snow", 1, r"need an image \[H, W, 3\]"),
        (IMAGE[:7], "snow", 1, "7 x 16 px is too small"),
        ([1, 2], "snow", 1, "got list"),
    ],
)
def test_mistakes_are_one_line(image, corruption, severity, part):
    with pytest.raises(UsageError, match=part) as caught:
        corrupt(image, corruption, severity, image_id="a")
    assert "\n" not in str(caught.value)


def test_frost_takes_the_users_textures(tmp_path):
    red = np.full((40, 50, 3), (0, 0, 200), np.uint8)
    for number in range(1, 6):
        cv2.imwrite(str(tmp_path / f"frost{number}.png"), red)
    black = np.zeros((100, 90, 3), np.uint8)
    result = corrupt(black, "frost", 1, image_id="a", frost_textures=tmp_path)
    assert np.array_equal(np.unique(result.reshape(-1, 3), axis=0), [[60, 0, 0]])  # 0.3 x 200


def test_a_missing_or_broken_texture_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no frost\d.png or .jpg in"):
        corrupt(IMAGE, "frost", 1, image_id="a", frost_textures=tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    for number in range(1, 6):
        (broken / f"frost{number}.jpg").write_bytes(b"not an image")
    with pytest.raises(UsageError, match="not a readable image"):
        corrupt(IMAGE, "frost", 1, image_id="a", frost_textures=broken)


def test_importing_the_names_loads_no_opencv():
    code = "import sys, edgekit.data.corruptions; print('cv2' in sys.modules, 'PIL' in sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    ).stdout  # fmt: skip
    assert output.split() == ["False", "False"]


def test_keyed_draws_do_not_touch_the_global_state():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    corrupt(photograph(40, 40), "snow", 1, image_id="a")
    assert np.array_equal(before, np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002
    assert not np.array_equal(
        KeyedDraws("a", "fog", 1, 0).uniform((4,)), KeyedDraws("a", "fog", 2, 0).uniform((4,))
    )

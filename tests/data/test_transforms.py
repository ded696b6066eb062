import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekit.core.errors import UsageError
from edgekit.data.transforms import IMAGENET, LITE0, Interpolation, Preprocessing, Resize

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def resize_then_crop(image: np.ndarray, resize: int, size: int, interpolation: str) -> np.ndarray:
    """torchvision's Resize(resize) and CenterCrop(size), horizontal pass first."""
    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    longer = int(resize * long / short)
    to_height, to_width = (resize, longer) if height <= width else (longer, resize)
    picture = Image.fromarray(image)
    picture = picture.resize((to_width, height), FILTERS[interpolation])
    picture = picture.resize((to_width, to_height), FILTERS[interpolation])
    top, left = round((to_height - size) / 2.0), round((to_width - size) / 2.0)
    return np.asarray(picture)[top : top + size, left : left + size]


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([(256, 224), (110, 96), (37, 32)]),
    st.sampled_from(sorted(FILTERS)),
)
def test_shortest_side_is_torchvisions_resize_and_center_crop(
    height: int, width: int, sizes: tuple[int, int], interpolation: Interpolation
) -> None:
    assume(max(height, width) <= 16 * min(height, width))
    resize, size = sizes
    preprocessing = replace(IMAGENET, size=(size, size), interpolation=interpolation)
    image = noise(height, width)
    expected = resize_then_crop(image, resize, size, interpolation)
    assert np.array_equal(preprocessing.fit(image), expected)


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.tuples(st.integers(1, 64), st.integers(1, 64)),
    st.sampled_from(["shortest-side", "squash"]),
    st.sampled_from([0.3, 0.875, 1.0]),
)
def test_fit_gives_the_size_whatever_comes_in(
    shape: tuple[int, int], size: tuple[int, int], resize: Resize, ratio: float
) -> None:
    preprocessing = Preprocessing(size=size, resize=resize, crop_ratio=ratio)
    result = preprocessing.fit(noise(*shape))
    assert result.shape == (*size, 3)
    assert result.dtype == np.uint8


@pytest.mark.parametrize("shape", [(10, 20_000), (20_000, 10)])
def test_a_panorama_costs_no_more_than_a_photo(shape: tuple[int, int]) -> None:
    import tracemalloc

    image = noise(*shape)
    tracemalloc.start()
    result = IMAGENET.fit(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.shape == (224, 224, 3)
    assert peak < 8e6


def test_same_size_and_ratio_one_changes_nothing() -> None:
    image = noise(96, 64)
    preprocessing = Preprocessing(size=(96, 64), crop_ratio=1.0)
    assert np.array_equal(preprocessing.fit(image), image)
    result = preprocessing.fit(image)
    result[:] = 0
    assert image.any()  # the result is the caller's own


def test_ratio_one_on_a_longer_image_is_a_pure_crop() -> None:
    image = noise(96, 100)
    preprocessing = Preprocessing(size=(96, 96), crop_ratio=1.0)
    assert np.array_equal(preprocessing.fit(image), image[:, 2:98])


def test_squash_keeps_the_sides_and_shortest_side_keeps_the_shape() -> None:
    image = np.zeros((60, 120, 3), np.uint8)
    image[:, :30] = 255  # the left quarter, which a center crop of a square drops
    squash = Preprocessing(size=(60, 60), resize="squash", crop_ratio=1.0).fit(image)
    crop = Preprocessing(size=(60, 60), resize="shortest-side", crop_ratio=1.0).fit(image)
    assert (squash[:, :14] == 255).all()
    assert not squash[:, 16:].any()
    assert not crop.any()


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    result = Preprocessing(size=(32, 32), crop_ratio=1.0).fit(stripes)
    assert np.abs(result[:, 1:-1].astype(int) - 127).max() <= 2  # away from the sides


def test_normalize_is_torchvisions() -> None:
    batch = np.stack([noise(224, 224, seed) for seed in range(2)])
    result = IMAGENET.normalize(batch)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = ((batch / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert np.abs(result - expected).max() < 2e-6


def test_lite0_normalizes_exactly() -> None:
    batch = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    result = replace(LITE0, size=(16, 16)).normalize(batch)
    expected = (np.arange(256, dtype=np.float64) - 127) / 128
    assert np.array_equal(result[0, 0].ravel(), expected.astype(np.float32))


def test_bgr_takes_mean_and_std_in_its_own_order() -> None:
    rgb = Preprocessing(size=(4, 4), mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    bgr = replace(rgb, channel_order="BGR", mean=(3.0, 2.0, 1.0), std=(6.0, 5.0, 4.0))
    batch = noise(4, 4)[None]
    assert np.array_equal(bgr.normalize(batch), rgb.normalize(batch)[:, ::-1])


@pytest.mark.parametrize(
    "batch", [np.zeros((1, 224, 224, 3)), np.zeros((224, 224, 3), np.uint8),
              np.zeros((1, 3, 224, 224), np.uint8)]
)  # fmt: skip
def test_normalize_refuses_other_arrays(batch: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"normalize takes uint8 \[B, 224, 224, 3\]"):
        IMAGENET.normalize(batch)


@pytest.mark.parametrize(
    "image", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)]
)
def test_fit_refuses_other_arrays(image: np.ndarray) -> None:
    with pytest.raises(UsageError, match="preprocessing takes uint8 images"):
        IMAGENET.fit(image)


preprocessings = st.builds(
    Preprocessing,
    size=st.tuples(st.integers(1, 512), st.integers(1, 512)),
    resize=st.sampled_from(["shortest-side", "squash"]),
    crop_ratio=st.floats(0.05, 1),
    interpolation=st.sampled_from(sorted(FILTERS)),
    mean=st.tuples(*[st.floats(-1e6, 1e6)] * 3),
    std=st.tuples(*[st.floats(1e-3, 1e6)] * 3),
    channel_order=st.sampled_from(["RGB", "BGR"]),
)


@given(preprocessings)
def test_json_round_trip_is_exact(preprocessing: Preprocessing) -> None:
    again = Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict())))
    assert again == preprocessing
    assert again.fingerprint() == preprocessing.fingerprint()


def test_fingerprint_sees_every_field_and_not_the_number_type() -> None:
    changes: list[dict[str, Any]] = [
        {"size": (224, 225)},
        {"resize": "squash"},
        {"crop_ratio": 0.9},
        {"interpolation": "box"},
        {"mean": (0.0, 0.0, 0.0)},
        {"std": (1.0, 1.0, 1.0)},
        {"channel_order": "BGR"},
    ]
    prints = {replace(IMAGENET, **change).fingerprint() for change in changes}
    assert len(prints | {IMAGENET.fingerprint()}) == len(changes) + 1
    size: Any = [224.0, 224]
    whole = replace(LITE0, mean=(127, 127, 127), size=size)
    assert whole == LITE0
    assert whole.fingerprint() == LITE0.fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": [1, 1]}, r"unknown key 'sizes' \(did you mean 'size'\?\)"),
        ({"resize": "short"}, "unknown resize 'short'"),
        ({"interpolation": "billinear"}, "did you mean 'bilinear'"),
        ({"channel_order": "rgb"}, "unknown channel_order 'rgb'"),
        ({"layout": "NHWC"}, "unknown layout 'NHWC'"),
        ({"size": [224]}, "size must be 2 numbers"),
        ({"size": [224, 0]}, "size must be height and width, 1 to 8192"),
        ({"size": [224.5, 224]}, "size must be height and width"),
        ({"mean": "127"}, "mean must be 3 numbers, not '127'"),
        ({"mean": [1, 2, None]}, "mean must be 3 numbers"),
        ({"std": [1, 0, 1]}, "std must be positive"),
        ({"std": [1, float("nan"), 1]}, "std must be 3 numbers"),
        ({"crop_ratio": 1.5}, "crop_ratio must be 0.05 to 1"),
        ({"crop_ratio": True}, "crop_ratio must be a number, not True"),
    ],
)
def test_from_dict_is_strict(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Preprocessing.from_dict({**IMAGENET.to_dict(), **change})


def test_from_dict_wants_every_key() -> None:
    values = IMAGENET.to_dict()
    del values["std"]
    with pytest.raises(UsageError, match="missing key 'std'"):
        Preprocessing.from_dict(values)

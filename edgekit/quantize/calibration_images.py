"""The images of a calibration: chosen by recipe, listed with hashes, loaded at network size."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.core.documents import Document
from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import from_dict
from edgekit.data.base import Dataset
from edgekit.data.corruptions import corrupt, parse_seen
from edgekit.data.loading import load_each, rng_for
from edgekit.data.splits import stratified_sample
from edgekit.data.transforms import Preprocessing
from edgekit.quantize.recipes import Recipe

_CANDIDATES = 4  # images per chosen one that a selection by code or quality looks at

Codes = NDArray[np.int64]  # [M] or [M, positions]


@dataclass(frozen=True)
class CalibrationImage:
    """One image of the list that is stored beside the result."""

    index: int  # in the calibration part
    key: str
    sha256: str
    corruption: str | None
    severity: int | None


@dataclass(frozen=True)
class ImageList(Document):
    """The images of a calibration; stored beside its result, and enough to repeat it."""

    SCHEMA: ClassVar = 1

    seed: int
    pixels: str  # SHA-256 of all pixels as the network sees them
    recipe: Recipe
    images: tuple[CalibrationImage, ...]

    def to_json(self) -> str:
        """The text of ``calibration.json``."""
        return json.dumps(self.to_dict(), indent=1)


def read_list(path: Path) -> ImageList:
    """Read the list that an earlier calibration stored."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the image list {path}: {error}") from error
    if not isinstance(table, dict):
        raise UsageError(
            f"{path} is not a list of calibration images: 'edgekit calibrate' writes one"
        )
    number = table.pop("schema", ImageList.SCHEMA)  # earlier releases wrote none
    if number != ImageList.SCHEMA:
        raise UsageError(
            f"{path} has schema {number!r}, this edgekit reads {ImageList.SCHEMA}: calibrate again"
        )
    return from_dict(ImageList, table, str(path))


@dataclass(frozen=True)
class Prepare:
    """The loading function: fits an image to the network's size and corrupts it if asked to."""

    preprocessing: Preprocessing
    seed: int

    def __call__(self, dataset: Dataset, image: CalibrationImage) -> NDArray[np.uint8]:
        """Load one image, uint8 [height, width, 3]."""
        fitted = self.preprocessing.fit(dataset.image(image.index))
        if image.corruption is None or image.severity is None:
            return fitted
        return corrupt(
            fitted, image.corruption, image.severity, image_id=image.sha256, seed=self.seed
        )


def choose_images(
    dataset: Dataset,
    recipe: Recipe,
    seed: int,
    codes_of: Callable[[tuple[CalibrationImage, ...]], Codes] | None = None,
) -> tuple[CalibrationImage, ...]:
    """The images of ``dataset`` (the calibration part) to calibrate on, in order.

    ``codes_of`` returns the float model's codes, which a stratified selection needs.
    """
    if recipe.selection == "random":
        shuffled = rng_for(seed, 0, "calibrate random").permutation(len(dataset))
        return _assigned(dataset, np.sort(shuffled[: recipe.images]).tolist(), recipe, seed)
    if recipe.selection == "balanced":
        chosen = stratified_sample(dataset, recipe.images, seed=seed).tolist()
        return _assigned(dataset, chosen, recipe, seed)
    if recipe.selection == "quality":
        raise UsageError("a selection by quality needs the network's size: use 'balanced'")
    if codes_of is None:
        raise UsageError("a stratified selection needs a model with a codebook: use 'balanced'")
    return choose_stratified(candidates(dataset, recipe, seed), recipe, codes_of)


def candidates(dataset: Dataset, recipe: Recipe, seed: int) -> tuple[CalibrationImage, ...]:
    """What a selection by code or by quality chooses from."""
    pool = stratified_sample(dataset, _CANDIDATES * recipe.images, seed=seed).tolist()
    return _assigned(dataset, pool, recipe, seed)


def choose_stratified(
    pool: tuple[CalibrationImage, ...],
    recipe: Recipe,
    codes_of: Callable[[tuple[CalibrationImage, ...]], Codes],
) -> tuple[CalibrationImage, ...]:
    """Every corruption in proportion; within it, the images whose codes were chosen least so far.

    With enough images, every codeword that occurs in the pool is covered.
    """
    codes = codes_of(pool).reshape(len(pool), -1)
    own = [set(row.tolist()) for row in codes]
    strata: dict[str | None, list[int]] = {}
    for place, image in enumerate(pool):
        strata.setdefault(image.corruption, []).append(place)
    count = min(recipe.images, len(pool))
    uses: Counter[int] = Counter()
    chosen: list[int] = []
    for number in range(count):
        # The stratum furthest behind its share, then its most useful image.
        lagging = max(
            (name for name, places in strata.items() if places),
            key=lambda name: _share(pool, name) * (number + 1) - _taken(pool, chosen, name),
        )
        best = max(
            strata[lagging], key=lambda place: sum(1 / (1 + uses[code]) for code in own[place])
        )
        strata[lagging].remove(best)
        uses.update(own[best])
        chosen.append(best)
    return tuple(pool[place] for place in sorted(chosen))


def _share(pool: Sequence[CalibrationImage], corruption: str | None) -> float:
    return sum(image.corruption == corruption for image in pool) / len(pool)


def _taken(pool: Sequence[CalibrationImage], chosen: list[int], corruption: str | None) -> int:
    return sum(pool[place].corruption == corruption for place in chosen)


def _assigned(
    dataset: Dataset, chosen: Sequence[int], recipe: Recipe, seed: int
) -> tuple[CalibrationImage, ...]:
    """The chosen images, each with the corruption that the recipe assigns to it."""
    corruptions = parse_seen(recipe.corruptions)
    images = []
    for position, index in enumerate(chosen):
        image = CalibrationImage(index, dataset.key(index), dataset.digest(index), None, None)
        # Spread evenly: the k-th image is corrupted where k * share passes a whole number.
        before, after = (int((position + step) * recipe.corrupted_share) for step in (0, 1))
        if after > before:
            rng = rng_for(seed, 0, f"calibrate {image.sha256}")
            image = dataclasses.replace(
                image,
                corruption=corruptions[before % len(corruptions)],
                severity=int(rng.choice(recipe.severities)),
            )
        images.append(image)
    return tuple(images)


def listed_images(dataset: Dataset, listing: ImageList, path: Path) -> tuple[CalibrationImage, ...]:
    """The list's images at their present places in ``dataset``, found by content."""
    places = {dataset.digest(index): index for index in range(len(dataset))}
    missing = [image for image in listing.images if image.sha256 not in places]
    if missing:
        raise UsageError(
            f"{len(missing)} of the {len(listing.images)} images of {path} are not in the "
            f"calibration part of {dataset.name}, such as {missing[0].key}: use the data and the "
            f"--seed ({listing.seed}) it was made with"
        )
    return tuple(dataclasses.replace(image, index=places[image.sha256]) for image in listing.images)


def pixels_hash(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of the calibration images as the network sees them."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def coverage(codes: Codes, chosen: Codes) -> dict[str, Any]:
    """How many of the codewords in the pool the chosen images cover."""
    return {
        "codes_in_pool": len(np.unique(codes)),
        "codes_seen": len(np.unique(chosen)),
    }


def load_images(
    dataset: Dataset,
    images: tuple[CalibrationImage, ...],
    preprocessing: Preprocessing,
    seed: int,
    workers: int = 0,
) -> NDArray[np.uint8]:
    """The chosen images, uint8 [M, height, width, 3]; 300 of 224 px are 45 MB."""
    return np.stack(list(load_each(dataset, images, Prepare(preprocessing, seed), workers=workers)))

"""What all self-tests of a model share: their images, and the float model's answers to them.

A bundle's graph answers for these images (edgekit.steps.selftest). Choosing them, and finding what
two known faults would change, works with the float model as well as with any graph made from it:
once for all targets and recipes, and without their rounding.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekit.core.step_cache import cached, versions_of
from edgekit.data.splits import stratified_sample
from edgekit.data.synthetic import pictures
from edgekit.data.transforms import Preprocessing
from edgekit.quantize.engine import answers
from edgekit.runtime.answers import Answers
from edgekit.steps.artifacts import Exported
from edgekit.steps.build_data import BuildData
from edgekit.steps.context import Context

IMAGES: Final = 40
_PHOTOS: Final = 28  # of them, if the build has photos; the others are synthetic, in color
_PHOTO_POOL, _PICTURE_POOL = 64, 48  # candidates
# Cells along the longer side. Coarse enough to hide people and documents in a photo, fine enough to
# keep photos of different classes and codes apart.
_CELLS: Final = 64
_MOST_COLUMNS, _MOST_POSITIONS = 1024, 64  # keep the file below `MOST_BYTES` with any model
_BRIGHTER: Final = 10  # gray levels


@dataclass(frozen=True, eq=False)
class Scenes:
    """M images, the K classes and P positions stored for each, and the effects of known faults.

    The fields are those of the same names in `SelfTest`.
    """

    images: NDArray[np.uint8]
    cell: int
    columns: NDArray[np.int64]
    positions: NDArray[np.int64]
    brighter: NDArray[np.float32]
    swapped: NDArray[np.float32]

    def pixels(self, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """The images at the model's size."""
        return _enlarged(self.images, self.cell, preprocessing)


def scenes_of(
    context: Context, exported: Exported, data: BuildData | None, *, photos: bool
) -> Scenes:
    """The scenes of a float graph, through the cache.

    They come from synthetic pictures and, with ``photos``, from the validation part of ``data``.
    """
    seed = 0 if data is None else data.seed
    source = data if photos else None

    def make(folder: Path) -> None:
        scenes = make_scenes(onnx.load(exported.onnx), exported.card.preprocessing, source, seed)
        arrays: dict[str, Any] = {name: getattr(scenes, name) for name in _FIELDS}
        np.savez(folder / "scenes.npz", **arrays)

    inputs = {
        "onnx": exported.report["sha256"],
        "split": None if source is None else source.splits.summary()["sha256"],
        "seed": seed,
        "preprocessing": exported.card.preprocessing.to_dict(),
        "tools": versions_of("edgekit", "openvino", "numpy", "pillow"),
    }
    again = "compile" in context.forced
    folder = cached(context.cache, "scenes", inputs, make, context.console, force=again)
    with np.load(folder / "scenes.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in _FIELDS}
    return Scenes(**{**arrays, "cell": int(arrays["cell"])})


_FIELDS: Final = tuple(Scenes.__dataclass_fields__)


def make_scenes(
    graph: onnx.ModelProto, preprocessing: Preprocessing, data: BuildData | None, seed: int
) -> Scenes:
    """The scenes of a float graph; photos come from ``data``."""
    cell = -(-max(preprocessing.size) // _CELLS)
    pool, photos = _candidates(preprocessing, data, seed, cell)
    everything = answers(graph, _enlarged(pool, cell, preprocessing), preprocessing)
    chosen = choose(everything, photos)
    images = pool[chosen]
    pixels = _enlarged(images, cell, preprocessing)
    columns = _columns(everything.logits[chosen])
    places = 1 if everything.code is None else everything.code.reshape(len(pool), -1).shape[1]
    spaced = np.linspace(0, places - 1, min(places, _MOST_POSITIONS))

    def logits(changed: NDArray[np.uint8]) -> NDArray[np.float32]:
        return answers(graph, changed, preprocessing).logits[:, columns].astype(np.float32)

    # In both directions: a mean may be wrong either way, and images have white areas.
    high, low = (
        np.clip(pixels.astype(np.int64) + step, 0, 255).astype(np.uint8)
        for step in (_BRIGHTER, -_BRIGHTER)
    )
    unchanged = everything.logits[chosen][:, columns].astype(np.float32)
    return Scenes(
        images=images,
        cell=cell,
        columns=columns,
        positions=np.unique(spaced.astype(np.int64)),
        brighter=((logits(high) - logits(low)) / 2).astype(np.float32),
        swapped=logits(np.ascontiguousarray(pixels[..., ::-1])) - unchanged,
    )


def _enlarged(
    images: NDArray[np.uint8], cell: int, preprocessing: Preprocessing
) -> NDArray[np.uint8]:
    height, width = preprocessing.size
    return images.repeat(cell, axis=1).repeat(cell, axis=2)[:, :height, :width]


def choose(answers: Answers, photos: int, count: int = IMAGES) -> NDArray[np.int64]:
    """Choose ``count`` images from the pool, whose first ``photos`` are photos.

    Each time it takes the image whose class and codes have occurred least so far, and among equals
    the one with the clearest answer, since an answer that rounding may change tests nothing.
    """
    total = len(answers.logits)
    top = np.sort(answers.logits, axis=1)
    lead = top[:, -1] - top[:, -min(2, top.shape[1])]
    clear = _rank(lead)
    codes: list[list[int]] = [[] for _ in range(total)]
    if answers.code is not None:
        codes = answers.code.reshape(total, -1).tolist()
        if answers.margin is not None:
            clear = clear + _rank(answers.margin.reshape(total, -1).min(axis=1))
    best = answers.logits.argmax(axis=1).tolist()
    use = Counter(code for row in codes for code in row)
    classes: Counter[int] = Counter()
    chosen_codes: Counter[int] = Counter()

    def gain(place: int) -> float:
        own = set(codes[place])
        new = 1 / (1 + classes[best[place]])
        # Codes that are used more count more, and are repeated sooner.
        new += sum((1 + use[code] / total) / (1 + chosen_codes[code]) for code in own) / max(
            len(own), 1
        )
        return float(new * (1 + clear[place]))

    chosen: list[int] = []
    for first, last, limit in (
        (0, photos, min(_PHOTOS, photos)),
        (photos, total, count),
    ):
        rest = list(range(first, last))
        while rest and len(chosen) < limit:
            place = max(rest, key=gain)
            rest.remove(place)
            chosen.append(place)
            classes[best[place]] += 1
            chosen_codes.update(set(codes[place]))
    return np.array(sorted(chosen), np.int64)


def _rank(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """0 for the smallest value, almost 1 for the largest."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable") / len(values)


def _candidates(
    preprocessing: Preprocessing, data: BuildData | None, seed: int, cell: int
) -> tuple[NDArray[np.uint8], int]:
    """Photos, then synthetic pictures, one pixel per cell; and how many are photos."""
    photos: list[NDArray[np.uint8]] = []
    if data is not None and len(data.splits.validation):
        part = data.splits.part("validation", data.dataset)
        rows = stratified_sample(part, _PHOTO_POOL, seed=seed)
        photos = [_coarse(preprocessing.fit(part.image(int(row))), cell) for row in rows]
    synthetic = pictures(_PICTURE_POOL, preprocessing.size, seed, fine=False)
    return np.stack([*photos, *(_coarse(image, cell) for image in synthetic)]), len(photos)


def _coarse(image: NDArray[np.uint8], cell: int) -> NDArray[np.uint8]:
    """The mean of every cell; cells at the lower and right edge may be smaller."""
    if cell == 1:
        return image
    down, right = (np.arange(0, side, cell) for side in image.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.int64), down, axis=0), right, axis=1)
    high = np.diff([*down, image.shape[0]])[:, np.newaxis, np.newaxis]
    wide = np.diff([*right, image.shape[1]])[np.newaxis, :, np.newaxis]
    return np.asarray((sums + high * wide // 2) // (high * wide), np.uint8)


def _columns(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """The classes whose logits are stored: all, or the predicted ones and some others."""
    classes = logits.shape[1]
    if classes <= _MOST_COLUMNS:
        return np.arange(classes)
    met = np.unique(logits.argmax(axis=1))
    others = np.linspace(0, classes - 1, _MOST_COLUMNS - len(met)).astype(np.int64)
    return np.union1d(met, others).astype(np.int64)

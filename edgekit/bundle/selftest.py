"""``selftest.npz``: a bundle's stored images, and the answers expected for them.

docs/bundle-format.md describes it. Read on devices: imports nothing heavy, unpickles nothing, and
checks every size before unpacking.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.core.npz import NpzError, read_arrays

SELFTEST: Final = "selftest.npz"
SCHEMA: Final = 2
MOST_BYTES: Final = 2_000_000
"""The most that a stored test may take in a bundle."""

_MOST_IMAGES: Final = 256
_MOST_UNPACKED: Final = 256 << 20  # 8 images of 3,000 x 3,000, as the first schema stored them
_MOST_CELL: Final = 1024


@dataclass(frozen=True, eq=False)
class StoredAnswers:
    """A model's answers to the M stored images: K classes, P positions of the feature map."""

    logits: NDArray[np.float32]  # [M, K]
    best: NDArray[np.int64]  # [M]: the most probable of all classes
    lead: NDArray[np.float32]  # [M]: its logit less the second best
    code: NDArray[np.int64] | None  # [M, P]; None without a codebook
    margin: NDArray[np.float32] | None  # [M, P]; None where the graph leaves it out

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Its fields as arrays for an .npz."""
        values = {name: getattr(self, name) for name in _ANSWERS}
        return {f"{prefix}_{name}": value for name, value in values.items() if value is not None}


_ANSWERS: Final = tuple(field.name for field in dataclasses.fields(StoredAnswers))


@dataclass(frozen=True, eq=False)
class SelfTest:
    """The content of ``selftest.npz``."""

    images: NDArray[np.uint8]  # [M, rows, columns, 3]; each pixel stands for a cell of the image
    cell: int  # side of a cell in pixels
    classes: int  # of the model
    columns: NDArray[np.int64]  # [K]: the classes whose logits are stored
    positions: NDArray[np.int64]  # [P]: the places of the feature map whose codes are stored
    reference: StoredAnswers
    own: StoredAnswers | None  # the bundle's, where it was built
    where: str  # runtime and kind of CPU of `own`
    noise: float  # root mean square difference between two runtimes, in units of `_scale`
    margin_noise: float  # that of the margins
    # Change of the logits, [M, K], if every pixel is ten gray levels brighter, and if red and blue
    # are swapped: two mistakes that look like noise in one image, but not across all of them.
    brighter: NDArray[np.float32]
    swapped: NDArray[np.float32]

    def pixels(self, size: tuple[int, int], start: int, stop: int) -> NDArray[np.uint8]:
        """Images ``start`` to ``stop`` at the model's size."""
        part = self.images[start:stop]
        large = part.repeat(self.cell, axis=1).repeat(self.cell, axis=2)
        return np.ascontiguousarray(large[:, : size[0], : size[1]])

    def to_bytes(self) -> bytes:
        """The file; the same test gives the same bytes."""
        arrays: dict[str, Any] = {
            "schema": np.array(SCHEMA, np.int64),
            "cell": np.array(self.cell, np.int64),
            "classes": np.array(self.classes, np.int64),
            "noise": np.array([self.noise, self.margin_noise], np.float64),
            "where": np.array(self.where),
        }
        for name in ("images", "columns", "positions", "brighter", "swapped"):
            arrays[name] = getattr(self, name)
        arrays |= self.reference.arrays("reference")
        arrays |= {} if self.own is None else self.own.arrays("own")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class OldTest:
    """The first schema: a few pictures at full size, and the answers to them."""

    images: NDArray[np.uint8]
    logits: NDArray[np.float32]
    code: NDArray[np.int64] | None


def read_self_test(path: Path, size: tuple[int, int]) -> SelfTest | OldTest:
    """Read a stored test for images of ``size``; an error of one line if it is not one."""
    arrays = read_arrays(path, most_bytes=_MOST_UNPACKED)
    if "schema" not in arrays:
        return _read_old(arrays, path, size)
    take = _Taker(arrays, path)
    if (schema := take.number("schema", 1 << 31)) != SCHEMA:
        raise take.wrong(f"its schema is {schema}, this edgekit reads {SCHEMA}")
    images, cell = take.array("images", "u1", 4), take.number("cell", _MOST_CELL)
    rows, columns = (-(-side // cell) for side in size)
    if images.shape[1:] != (rows, columns, 3) or not 1 <= len(images) <= _MOST_IMAGES:
        raise take.wrong(f"images {list(images.shape)} do not fit a model of {list(size)}")
    count, classes = len(images), take.number("classes", 1 << 31)
    stored, positions = take.array("columns", "i8", 1), take.array("positions", "i8", 1)
    if not len(stored) or stored.min() < 0 or stored.max() >= classes:
        raise take.wrong(f"its columns are not among {classes} classes")
    if len(positions) and positions.min() < 0:
        raise take.wrong("its positions are negative")
    noise = take.shaped("noise", "f8", (2,))
    if not (noise >= 0).all():
        raise take.wrong("its noise is not a number")
    logits = (count, len(stored))
    return SelfTest(
        images=images,
        cell=cell,
        classes=classes,
        columns=stored,
        positions=positions,
        reference=take.answers("reference", logits, (count, len(positions))),
        own=take.answers("own", logits, (count, len(positions)))
        if "own_logits" in arrays
        else None,
        where=str(take.array("where", "U", 0)),
        noise=float(noise[0]),
        margin_noise=float(noise[1]),
        brighter=take.shaped("brighter", "f4", logits),
        swapped=take.shaped("swapped", "f4", logits),
    )


def _read_old(arrays: Mapping[str, NDArray[Any]], path: Path, size: tuple[int, int]) -> OldTest:
    take = _Taker(arrays, path)
    images = take.array("images", "u1", 4)
    if images.shape[1:] != (*size, 3) or not len(images):
        raise take.wrong(f"images {list(images.shape)} do not fit a model of {list(size)}")
    logits = take.array("logits", "f4", 2)
    if len(logits) != len(images):
        raise take.wrong(f"{len(images)} images, {len(logits)} answers")
    code = arrays.get("code")
    if code is not None and (code.dtype.kind != "i" or len(code) != len(images)):
        raise take.wrong("'code' does not have one answer per image")
    return OldTest(images, logits, code)


@dataclass(frozen=True)
class _Taker:
    """Takes arrays out of a file, each with its type and shape checked."""

    arrays: Mapping[str, NDArray[Any]]
    path: Path

    def wrong(self, why: str) -> NpzError:
        return NpzError(f"{self.path} is not a valid self-test ({why}): build the bundle again")

    def array(self, name: str, kind: str, axes: int) -> NDArray[Any]:
        if name not in self.arrays:
            raise self.wrong(f"it has no '{name}'")
        array = self.arrays[name]
        fits = array.dtype.kind == "U" if kind == "U" else array.dtype == np.dtype(kind)
        if not fits or array.ndim != axes:
            raise self.wrong(f"'{name}' is {array.dtype} {list(array.shape)}")
        return array

    def shaped(self, name: str, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
        array = self.array(name, kind, len(shape))
        if array.shape != shape:
            raise self.wrong(f"'{name}' is {list(array.shape)}, not {list(shape)}")
        if kind.startswith("f") and np.isnan(array).any():
            raise self.wrong(f"'{name}' holds NaN")
        return array

    def number(self, name: str, most: int) -> int:
        value = int(self.array(name, "i8", 0))
        if not 1 <= value <= most:
            raise self.wrong(f"'{name}' is {value}")
        return value

    def answers(
        self, prefix: str, logits: tuple[int, int], codes: tuple[int, int]
    ) -> StoredAnswers:
        def optional(name: str, kind: str) -> NDArray[Any] | None:
            full = f"{prefix}_{name}"
            return self.shaped(full, kind, codes) if full in self.arrays else None

        return StoredAnswers(
            logits=self.shaped(f"{prefix}_logits", "f4", logits),
            best=self.shaped(f"{prefix}_best", "i8", logits[:1]),
            lead=self.shaped(f"{prefix}_lead", "f4", logits[:1]),
            code=optional("code", "i8"),
            margin=optional("margin", "f4"),
        )

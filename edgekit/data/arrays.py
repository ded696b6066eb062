"""Datasets in one .npz file: arrays of pixels, or JPEG (PNG, ...) files laid end to end.

Per split prefix (``train_``, ``val_``, ``calibration_``, ``test_``, or none at all):

    images [N, H, W] or [N, H, W, 1 or 3] uint8,   labels [N] integers
    jpeg [bytes] uint8,  offsets [N + 1] integers,  labels [N] integers

and, once, ``classes`` [C] of text. Image i of the second form is jpeg[offsets[i]:offsets[i + 1]].

`numpy.savez` stores arrays uncompressed, and those are mapped from the file, never read as a
whole. Arrays from `numpy.savez_compressed` have to be unpacked into memory, in every worker
process, so together they must fit within `edgekit.core.limits`.
"""

from __future__ import annotations

import hashlib
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.damage import DAMAGE, METHODS
from edgekit.core.errors import UsageError
from edgekit.core.files import open_regular
from edgekit.core.limits import check_size
from edgekit.core.npz import read_header
from edgekit.data.base import SPLIT_NAMES, IndexArray, array_digest
from edgekit.data.decode import decode_bytes

_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: the lengths of its name and extras


@dataclass(frozen=True, eq=False)
class _Part:
    """The images of one split; ``offsets`` is None where ``data`` holds pixels."""

    split: str
    data: NDArray[np.uint8]
    offsets: IndexArray | None
    labels: IndexArray


class NpzDataset:
    """An .npz file as a dataset. A pickled one reopens its file."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        with _Npz(path, name) as npz:
            prefixes = [prefix for prefix in ("", *_prefixes(npz)) if f"{prefix}labels" in npz]
            if not prefixes:
                raise UsageError(
                    f"{name} has no array 'labels' (or 'train_labels', ...): it has "
                    f"{', '.join(npz.names) or 'nothing'}"
                )
            if prefixes[0] == "" and len(prefixes) > 1:
                raise UsageError(f"{name} has both 'labels' and '{prefixes[1]}labels': keep one")
            self._parts = [_read_part(npz, prefix, name) for prefix in prefixes]
            self._classes = self._read_classes(npz)
        counts = [len(part.labels) for part in self._parts]
        if not sum(counts):
            raise UsageError(f"{name} has no images")
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return NpzDataset, (self._path, self._name)  # a mapped array would be pickled as a copy

    @property
    def name(self) -> str:
        """The name it was opened by."""
        return self._name

    @property
    def classes(self) -> tuple[str, ...]:
        """The array ``classes``, or the label numbers as text."""
        return self._classes

    @property
    def given_splits(self) -> Mapping[str, IndexArray]:
        """The splits named by array prefixes."""
        return {
            part.split: np.arange(self._starts[p], self._starts[p + 1])
            for p, part in enumerate(self._parts)
            if part.split
        }

    def __len__(self) -> int:
        return int(self._starts[-1])

    def label(self, i: int) -> int:
        """The class of image ``i``."""
        part, row = self._locate(i)
        return int(part.labels[row])

    def key(self, i: int) -> str:
        """The split and the index within it, such as ``test/17``; just the index without splits."""
        part, row = self._locate(i)
        return f"{part.split}/{row}" if part.split else str(row)

    def digest(self, i: int) -> str:
        """SHA-256 of the encoded image, or of the pixels and their shape."""
        part, row = self._locate(i)
        if part.offsets is None:
            return array_digest(part.data[row])
        return hashlib.sha256(_encoded(part, row)).hexdigest()

    def image(self, i: int) -> NDArray[np.uint8]:
        """Image ``i`` as RGB; gray becomes three equal channels."""
        part, row = self._locate(i)
        if part.offsets is not None:
            return decode_bytes(_encoded(part, row), f"{self._name}, image {self.key(i)}")
        pixels = part.data[row]
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))

    def stored(self, i: int) -> bytes | None:
        """The encoded image ``i``, if the file holds encoded ones."""
        part, row = self._locate(i)
        return None if part.offsets is None else _encoded(part, row)

    def _locate(self, i: int) -> tuple[_Part, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"{self._name} has {len(self)} images, no number {i}")
        part = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self._parts[part], i - int(self._starts[part])

    def _read_classes(self, npz: _Npz) -> tuple[str, ...]:
        highest = max(int(part.labels.max(initial=-1)) for part in self._parts)
        lowest = min(int(part.labels.min(initial=0)) for part in self._parts)
        if "classes" not in npz:
            classes = tuple(str(label) for label in range(min(highest, 1_000_000) + 1))
        else:
            array = npz.read("classes")
            if array.ndim != 1 or array.dtype.kind not in "US":
                raise UsageError(f"{self._name}: 'classes' must be a list of texts")
            classes = tuple(
                text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
                for text in array.tolist()
            )
        if lowest < 0 or highest >= len(classes):
            invalid = lowest if lowest < 0 else highest
            raise UsageError(
                f"{self._name}: label {invalid} is not among the {len(classes)} classes"
            )
        return classes


def _prefixes(npz: _Npz) -> list[str]:
    return [f"{name}_" for name in SPLIT_NAMES if f"{name}_labels" in npz]


def _encoded(part: _Part, row: int) -> bytes:
    assert part.offsets is not None
    return part.data[part.offsets[row] : part.offsets[row + 1]].tobytes()


def _read_part(npz: _Npz, prefix: str, name: str) -> _Part:
    split = SPLIT_NAMES[prefix[:-1]] if prefix else ""
    labels = npz.read(f"{prefix}labels")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UsageError(f"{name}: '{prefix}labels' must be a list of whole numbers")
    labels = labels.astype(np.int64)
    if f"{prefix}jpeg" in npz and f"{prefix}offsets" in npz:
        data, offsets = npz.read(f"{prefix}jpeg"), npz.read(f"{prefix}offsets")
        if data.ndim != 1 or data.dtype != np.uint8:
            raise UsageError(f"{name}: '{prefix}jpeg' must be the files' bytes, one after another")
        if offsets.dtype.kind not in "iu" or offsets.shape != (len(labels) + 1,):
            raise UsageError(
                f"{name}: '{prefix}offsets' must be {len(labels) + 1} whole numbers, one more "
                f"than the labels"
            )
        offsets = offsets.astype(np.int64)
        if offsets[0] < 0 or offsets[-1] > len(data) or (np.diff(offsets) < 0).any():
            raise UsageError(f"{name}: '{prefix}offsets' do not increase within the bytes")
        return _Part(split, data, offsets, labels)
    if f"{prefix}images" not in npz:
        raise UsageError(f"{name} has '{prefix}labels', but no '{prefix}images' or '{prefix}jpeg'")
    images = npz.read(f"{prefix}images")
    if images.dtype != np.uint8:
        raise UsageError(f"{name}: '{prefix}images' must be uint8, 0 to 255, not {images.dtype}")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise UsageError(
            f"{name}: '{prefix}images' must be [N, H, W] or [N, H, W, 1 or 3], not "
            f"{list(images.shape)}"
        )
    if len(images) != len(labels):
        raise UsageError(f"{name}: {len(images)} '{prefix}images', but {len(labels)} labels")
    return _Part(split, images, None, labels)


class _Npz:
    """The arrays of an .npz, mapped from the file where they are stored uncompressed."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        try:
            self._stream = open_regular(path)
            self._zip = zipfile.ZipFile(self._stream)
        except DAMAGE as error:
            raise UsageError(f"cannot read {path} as .npz: {error}") from error
        self._members = {info.filename.removesuffix(".npy"): info for info in self._zip.infolist()}
        self._unpacked = 0

    def __enter__(self) -> _Npz:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._stream.close()

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> list[str]:
        """The arrays' names."""
        return sorted(self._members)

    def read(self, array: str) -> NDArray[Any]:
        """One array; pickled objects are refused."""
        info = self._members[array]
        place = f"{self._name}: array '{array}'"
        if info.compress_type not in METHODS:
            raise UsageError(f"{place} is packed in a way that is not read here: use numpy.savez")
        try:
            with self._zip.open(info) as stream, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of headers that Python 2 wrote: they are read
                header = read_header(stream)
                if header.dtype.hasobject:
                    raise UsageError(f"{place} holds Python objects: store numbers or texts")
                if header.impossible or header.size > info.file_size:
                    raise UsageError(f"{place} is damaged: it claims to be larger than its file")
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                    self._unpacked += info.file_size
                    hint = "save the file with numpy.savez, not savez_compressed; "
                    check_size(self._unpacked, f"{place} is compressed and", hint=hint)
                    stream.seek(0)
                    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
                skip = stream.tell()
            with self._path.open("rb") as raw:
                raw.seek(info.header_offset)
                name_length, extra_length = _LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))
            start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length + skip
            if 0 in header.shape:
                return np.zeros(header.shape, header.dtype)
            order: Any = "F" if header.fortran else "C"
            return np.memmap(self._path, header.dtype, "r", start, header.shape, order)
        except DAMAGE as error:
            raise UsageError(f"{place} cannot be read: {error}") from error

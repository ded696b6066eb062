"""The published ImageNet-C (or a set in its layout) as datasets."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import UsageError
from edgekit.data.base import IndexArray
from edgekit.data.folder import Folder
from edgekit.data.image_files import FileDataset, class_list

_log = logging.getLogger(__name__)


class ImageNetC:
    """The published layout of ImageNet-C: ``corruption/severity/class/image.JPEG``.

    As a dataset it consists of its clean images (the folder ``clean``, which users add themselves;
    without it there are none); `cells` returns the corrupted ones. The corruptions may also be one
    folder deeper, where the published archives (blur, digital, ...) unpack them.
    """

    def __init__(self, root: Folder, name: str, skip_bad: bool = False) -> None:
        self._root, self._name, self._skip_bad = root, name, skip_bad
        self._cells: dict[tuple[str, int], str] = {}  # folders below the root
        # `clean` holds classes, which may have severities' names: 1 to 5.
        for folder in (one for one in root.folders() if one != "clean"):
            if not self._find_severities(folder):
                for inner in root.folders(folder):
                    self._find_severities(f"{folder}/{inner}")
        if not self._cells:
            raise UsageError(
                f"{name} has no folders like gaussian_noise/1: name the folder that holds the "
                f"corruptions"
            )
        clean = "clean" if "clean" in root.folders() else None
        reference = clean or next(iter(self._cells.values()))
        self._folder_names, self._classes = class_list(root, root.folders(reference), name)
        self._clean = self._dataset(clean, self._keys(clean)) if clean else None

    @property
    def name(self) -> str:
        """The name it was opened by."""
        return self._name

    @property
    def classes(self) -> tuple[str, ...]:
        """The class folders, or their names in ``classes.txt``."""
        return self._classes

    @property
    def given_splits(self) -> Mapping[str, IndexArray]:
        """Everything is for testing."""
        return {"test": np.arange(len(self))}

    @property
    def clean(self) -> FileDataset | None:
        """The clean images, if there are any."""
        return self._clean

    def __len__(self) -> int:
        return 0 if self._clean is None else len(self._clean)

    def label(self, i: int) -> int:
        """The class of clean image ``i``."""
        return self._require_clean().label(i)

    def key(self, i: int) -> str:
        """The key of clean image ``i``, which is the same in every cell."""
        return self._require_clean().key(i)

    def digest(self, i: int) -> str:
        """The digest of clean image ``i``."""
        return self._require_clean().digest(i)

    def image(self, i: int) -> NDArray[np.uint8]:
        """Clean image ``i``."""
        return self._require_clean().image(i)

    def cells(self) -> dict[tuple[str, int], FileDataset]:
        """A dataset per (corruption, severity), all with the same images in the same order.

        An image that some cell lacks (a partly unpacked archive) is an error; with ``skip_bad`` it
        is left out of every cell and counted in the log.
        """
        keys: dict[tuple[str, int], list[str]] = {}
        for cell, folder in self._cells.items():
            cell_keys, first = self._keys(folder), next(iter(keys.values()), None)
            # 75 cells x 50,000 paths: equal lists are kept once.
            keys[cell] = first if first is not None and first == cell_keys else cell_keys
        everywhere, anywhere = set(next(iter(keys.values()))), set[str]()
        for cell_keys in {id(cell_keys): cell_keys for cell_keys in keys.values()}.values():
            everywhere &= set(cell_keys)
            anywhere |= set(cell_keys)
        for (corruption, severity), cell_keys in keys.items():
            if not self._skip_bad and len(cell_keys) > len(everywhere):
                example = next(key for key in cell_keys if key not in everywhere)
                lacking = next(cell for cell, others in keys.items() if example not in others)
                raise UsageError(
                    f"{self._name}: {lacking[0]}/{lacking[1]} lacks {example}, which "
                    f"{corruption}/{severity} has: unpack its archive again, or --skip-bad"
                )
        missing = len(anywhere) - len(everywhere)
        if missing:
            _log.warning("%s: left out %d images that some cells lack", self._name, missing)
        common = [key for key in next(iter(keys.values())) if key in everywhere]
        if not common:
            raise UsageError(f"{self._name} has no image that is in every cell")
        return {cell: self._dataset(folder, common) for cell, folder in self._cells.items()}

    def _find_severities(self, corruption: str) -> bool:
        there = set(self._root.folders(corruption))
        severities = [severity for severity in range(1, 6) if str(severity) in there]
        for severity in severities:
            self._cells[corruption.split("/")[-1], severity] = f"{corruption}/{severity}"
        return bool(severities)

    def _require_clean(self) -> FileDataset:
        if self._clean is None:
            raise UsageError(
                f"{self._name} has no clean images: add them as {self._root.at('clean')}"
            )
        return self._clean

    def _keys(self, below: str) -> list[str]:
        known, folder = set(self._folder_names), self._root.inside(below)
        keys: list[str] = []
        for class_ in folder.folders():
            if class_ not in known:
                raise UsageError(
                    f"{self._root.at(below)} has a class '{class_}' that the rest of {self._name} "
                    "does not have"
                )
            keys.extend(folder.images(class_))
        return keys

    def _dataset(self, below: str, keys: list[str]) -> FileDataset:
        label_of = {name: label for label, name in enumerate(self._folder_names)}
        labels = np.array([label_of[key.split("/")[0]] for key in keys], np.int64)
        folder = self._root.inside(below)
        return FileDataset(f"{self._name}/{below}", folder, self._classes, tuple(keys), labels)

"""The images of a build, matched to the model's classes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edgekit.core.errors import UsageError
from edgekit.core.resources import resource
from edgekit.data.base import Dataset, with_classes
from edgekit.data.datasets import open_dataset
from edgekit.data.remote_data import remote_fingerprint
from edgekit.data.remote_folder import RemoteFolder, is_url
from edgekit.data.splits import Splits, split_dataset
from edgekit.model.card import numbered_classes
from edgekit.model.labels import read_labels
from edgekit.quantize.recipes import read_recipe
from edgekit.steps.options import DataOptions


@dataclass(frozen=True)
class BuildData:
    """A data set split for a build; ``labeled``: its labels match the model's classes."""

    dataset: Dataset
    splits: Splits
    labeled: bool
    names: tuple[str, ...]  # the data's own class names
    note: str
    seed: int  # of the split, and of every choice among the images

    def calibration(self) -> Dataset:
        """The images that set the activation ranges."""
        return self.splits.part("calibration", self.dataset)

    def test(self) -> Dataset:
        """The images for the parity test."""
        return self.splits.part("test", self.dataset)


@dataclass(frozen=True)
class SplitImages:
    """A build's images before its model is known: what is wrong with them shows at once."""

    dataset: Dataset
    splits: Splits
    seed: int

    def need(self, *parts: str) -> None:
        """Refuse them if one of the parts is empty."""
        for part in parts:
            self.splits.part(part, self.dataset)

    def matched(self, classes: tuple[str, ...]) -> BuildData:
        """With labels translated to the model's classes, all of which the data's must be."""
        named = match_classes(self.dataset, classes)
        return BuildData(
            named.dataset,
            self.splits,
            named.labeled,
            self.dataset.classes,
            named.note,
            self.seed,
        )


def split_images(options: DataOptions) -> SplitImages:
    """Open and split a build's images."""
    dataset = open_dataset(options.data, skip_bad=options.skip_bad)
    return SplitImages(dataset, split_dataset(dataset, seed=options.seed), options.seed)


def open_data(options: DataOptions, classes: tuple[str, ...]) -> BuildData:
    """Open and split a build's images, with labels translated to the model's classes."""
    return split_images(options).matched(classes)


def check_inputs(data: str, labels: str | None, recipe: str) -> None:
    """Refuse data, labels or a recipe that cannot be read; their content is checked later."""
    open_dataset(data)
    if labels is not None:
        read_labels(Path(labels))
    read_recipe(recipe)


class Matched(NamedTuple):
    """A data set whose labels are a model's classes, if ``labeled``; ``note`` is for the user."""

    dataset: Dataset
    labeled: bool
    note: str


def match_classes(dataset: Dataset, classes: tuple[str, ...]) -> Matched:
    """Translate labels to a model's classes: by name, or by order for a model without names."""
    if classes != numbered_classes(len(classes)):
        return Matched(with_classes(dataset, classes), True, "")
    count = len(dataset.classes)
    if count == len(classes):
        note = "the model names no classes: using the data's, in their order"
        return Matched(dataset, True, note)
    note = (
        f"the checkpoint names none of its {len(classes)} classes and the data have {count}: only "
        "agreement with the float model can be measured, not errors (give --labels)"
    )
    return Matched(dataset, False, note)


def data_fingerprint(uri: str) -> str:
    """A quick hash that changes when the data do: names, sizes and times, not contents.

    It decides whether a finished build is up to date; results computed from images are cached
    under the hashes of their contents.
    """
    scheme, _, rest = uri.partition(":")
    published = scheme == "imagenet-c"
    if is_url(rest if published else uri):
        return RemoteFolder(rest).fingerprint() if published else remote_fingerprint(uri)
    if scheme == "builtin":
        path = resource("data/builtin/fashion-mnist.xz")
    else:
        path = Path(rest if published else uri).expanduser()
    if not path.exists():
        raise UsageError(f"no data at '{uri}'")
    total = hashlib.sha256(uri.encode())
    # A list file's images may be anywhere; their names are its content, which its time covers.
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        try:
            status = file.stat()
        except OSError:  # a link to nowhere, or to itself: whoever reads it says so
            status = file.lstat()
        line = f"{file.relative_to(path)}\n{status.st_size} {status.st_mtime_ns}\n"
        total.update(line.encode("utf-8", "surrogateescape"))
    return total.hexdigest()

"""Opens data by name: the single entry point to all sources.

builtin:fashion-mnist      8,000 images that ship with edgekit, with fixed splits
./photos                   a folder of class folders, or of train/val/test of those
data.npz                   arrays of pixels, or JPEG files laid end to end
list.csv, list.jsonl       lines of path and label
imagenet-c:DIR             the published corrupted images
s3://bucket/photos, gs://  a folder, .npz or list in an object store; imagenet-c:s3://... too
"""

from __future__ import annotations

import logging
from pathlib import Path

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import nearest
from edgekit.data.arrays import NpzDataset
from edgekit.data.base import Dataset, IndexArray, content_hash, labels, subset, with_classes
from edgekit.data.builtin import NAMES, open_fashion_mnist
from edgekit.data.folder import LocalFolder
from edgekit.data.image_files import FileDataset, open_folder, open_list
from edgekit.data.imagenet_c import ImageNetC
from edgekit.data.loading import without_bad
from edgekit.data.remote_data import open_remote
from edgekit.data.remote_folder import RemoteFolder, is_url

__all__ = [
    "Dataset",
    "FileDataset",
    "ImageNetC",
    "IndexArray",
    "NpzDataset",
    "content_hash",
    "labels",
    "open_dataset",
    "subset",
    "with_classes",
]

_log = logging.getLogger(__name__)


def open_dataset(uri: str, *, skip_bad: bool = False, workers: int = 0) -> Dataset:
    """Open the dataset ``uri`` (see the module's docstring); no image is read yet.

    With ``skip_bad`` every image is read once, by ``workers`` processes, and unreadable ones are
    logged and left out. (Not in `ImageNetC`, whose millions of files are checked as they are
    loaded; there, an image missing from one cell is left out of all.)
    """
    dataset = _open(uri, skip_bad)
    if not skip_bad or isinstance(dataset, ImageNetC):
        return dataset
    good, bad = without_bad(dataset, workers=workers)
    for message in bad:
        _log.warning("left out: %s", message)
    if not len(good):
        raise UsageError(f"{uri}: none of its {len(bad)} images can be read ({bad[0]})")
    return good


def _open(uri: str, skip_bad: bool) -> Dataset:
    scheme, colon, rest = uri.partition(":")
    if colon and scheme == "builtin":
        if rest not in NAMES:
            raise UsageError(f"no built-in images are called '{rest}'{nearest(rest, list(NAMES))}")
        return open_fashion_mnist()
    if colon and scheme == "imagenet-c":
        root = RemoteFolder(rest) if is_url(rest) else LocalFolder(_existing(rest, uri))
        return ImageNetC(root, uri, skip_bad)
    if is_url(uri):
        return open_remote(uri)
    path = _existing(uri, uri)
    if path.is_dir():
        return open_folder(LocalFolder(path), uri)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return NpzDataset(path, uri)
    if suffix in (".csv", ".jsonl"):
        return open_list(LocalFolder(path.parent), path.name, uri)
    raise UsageError(f"{uri} is not data: give a folder, .npz, .csv or .jsonl")


def _existing(text: str, uri: str) -> Path:
    path = Path(text).expanduser()
    if not text or not path.exists():
        raise UsageError(
            f"no data at '{uri}': give a folder, a .npz, .csv or .jsonl file, "
            f"builtin:{NAMES[0]}, imagenet-c:FOLDER or s3://BUCKET/FOLDER"
        )
    return path.absolute()

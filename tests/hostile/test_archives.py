"""A .zip by an enemy, or a cache that somebody else wrote to."""

import os
import random
import shutil
import struct
import time
import warnings
import zipfile
from pathlib import Path

import pytest

from edgekit.bundle import archive
from edgekit.bundle.manifest import BundleError
from edgekit.bundle.store import open_bundle, zip_bundle
from edgekit.core.errors import UsageError
from tests.bundle_files import refusal, write


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "bundles"


def packed(tmp_path: Path, name: str = "b", weights: bytes = b"weights") -> Path:
    path = write(tmp_path / name, weights=weights)
    zip_bundle(path, tmp_path / f"{name}.zip")
    return tmp_path / f"{name}.zip"


def test_another_bundle_in_the_cache_is_not_believed(tmp_path: Path, cache: Path) -> None:
    """It is whole, and its manifest knows all its checksums; it only is another one."""
    path = packed(tmp_path)
    folder = open_bundle(path).folder
    assert folder.parent == cache
    other = write(tmp_path / "evil", weights=b"evil")
    shutil.rmtree(folder)
    shutil.copytree(other, folder)
    opened = open_bundle(path)
    assert (opened.folder / "model.bin").read_bytes() == b"weights"


def test_an_archive_that_changed_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    """Even where the manifest in it is the one that was unpacked."""
    path = packed(tmp_path)
    open_bundle(path)
    data = path.read_bytes().replace(b"weights", b"WEIGHTS")
    path.write_bytes(data)
    refusal(path)


def test_what_is_unpacked_is_what_was_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is exchanged between any two reads of it."""
    path, other = packed(tmp_path), packed(tmp_path, "other", weights=b"changed")
    whole = path.read_bytes()
    blocks = archive._blocks

    def exchanged(source: zipfile.ZipFile, entry: zipfile.ZipInfo, name: Path) -> object:
        yield from blocks(source, entry, name)
        shutil.copyfile(other, tmp_path / "new.zip")
        (tmp_path / "new.zip").replace(path)

    with monkeypatch.context() as patched:
        patched.setattr(archive, "_blocks", exchanged)
        opened = open_bundle(path)
    assert (opened.folder / "model.bin").read_bytes() == b"weights"
    assert (open_bundle(path).folder / "model.bin").read_bytes() == b"changed"
    path.write_bytes(whole)
    assert (open_bundle(path).folder / "model.bin").read_bytes() == b"weights"


def test_the_cache_keeps_the_latest_few(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_MOST_CACHED", 3)
    (cache / "notes").mkdir(parents=True)  # not ours
    folders = []
    for number in range(5):
        folders.append(open_bundle(packed(tmp_path, f"b{number}", bytes([number]))).folder)
        os.utime(folders[-1], (time.time() - 5000 + number,) * 2)
    kept = [folder.exists() for folder in folders]
    assert kept == [False, False, True, True, True]
    assert (cache / "notes").exists()
    monkeypatch.setenv("EDGEKIT_BUNDLE_CACHE_MB", "1")
    open_bundle(tmp_path / "b2.zip")
    assert [folder.exists() for folder in folders] == kept  # a few kilobytes
    monkeypatch.setenv("EDGEKIT_BUNDLE_CACHE_MB", "0")
    open_bundle(tmp_path / "b2.zip")
    assert [folder.exists() for folder in folders] == [False, False, True, False, False]


@pytest.mark.parametrize("text", ["much", "-1", "1.5", "9" * 400])
def test_the_limit_of_the_cache_is_a_number(
    tmp_path: Path, cache: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_BUNDLE_CACHE_MB", text)
    with pytest.raises(UsageError, match="EDGEKIT_BUNDLE_CACHE_MB must be a whole number of MiB"):
        open_bundle(packed(tmp_path))
    assert not cache.exists()


def test_one_that_was_just_used_stays(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_MOST_CACHED", 1)
    first = open_bundle(packed(tmp_path)).folder
    open_bundle(packed(tmp_path, "other", b"other"))
    assert first.exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing_are_refused(method: int, tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    with zipfile.ZipFile(tmp_path / "b.zip", "w", method) as target:
        for file in path.iterdir():
            target.write(file, file.name)
    assert "is packed in a way that is not read here" in refusal(tmp_path / "b.zip")


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    data = packed(tmp_path).read_bytes()
    with zipfile.ZipFile(tmp_path / "b.zip", "a") as target:
        target.writestr("n\xe4me.txt", b"")
    changed = (tmp_path / "b.zip").read_bytes().replace("n\xe4me".encode(), b"n\xff\xfeme")
    assert changed != data
    (tmp_path / "b.zip").write_bytes(changed)
    refusal(tmp_path / "b.zip")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_archive_is_one_line(compression: int, tmp_path: Path) -> None:
    path = write(tmp_path / "b", weights=bytes(range(256)) * 20)
    with zipfile.ZipFile(tmp_path / "b.zip", "w", compression) as target:
        for file in path.iterdir():
            target.write(file, file.name)
    whole = (tmp_path / "b.zip").read_bytes()
    generator = random.Random(7)
    spoiled = tmp_path / "c.zip"
    said: list[str] = []
    for _ in range(250):
        data = bytearray(whole)
        match generator.randrange(4):
            case 0:
                del data[generator.randrange(len(data)) :]
            case 1:
                at = generator.randrange(len(data))
                data[at : at + 8] = generator.randbytes(8)
            case 2:  # lengths and offsets in the tables at the end
                at = generator.randrange(len(data) - 300, len(data) - 4)
                struct.pack_into("<I", data, at, generator.choice((0, 1, 2**31, 2**32 - 1)))
            case 3:
                at = generator.randrange(len(data) - 300, len(data))
                data[at] ^= 1 << generator.randrange(8)
        spoiled.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                open_bundle(spoiled)
            except BundleError as error:
                said.append(str(error))
    assert len(said) > 100
    assert [text for text in said if "\n" in text or str(spoiled) not in text] == []

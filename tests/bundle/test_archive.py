"""Bundles in one .zip: the same bundle, and no more trusted than any other download."""

import random
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.bundle.manifest import BundleError
from edgekit.bundle.store import open_bundle, update_manifest_section, write_bundle, zip_bundle
from edgekit.core.errors import EdgekitError, UsageError
from tests.bundle_files import LABELS, about, files, refusal, write


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def test_a_zip_is_the_same_bundle(tmp_path: Path) -> None:
    path = write(tmp_path / "b", plugin=True)
    zip_bundle(path, tmp_path / "b.zip")
    opened = open_bundle(tmp_path / "b.zip")
    assert opened.manifest == open_bundle(path).manifest
    assert opened.path == tmp_path / "b.zip"
    first = (opened.folder / "model.bin").stat().st_ino
    assert (open_bundle(tmp_path / "b.zip").folder / "model.bin").stat().st_ino == first
    (opened.folder / "model.bin").write_bytes(b"spoiled in the cache")
    assert (open_bundle(tmp_path / "b.zip").folder / "model.bin").read_bytes() == b"weights"
    with pytest.raises(UsageError, match=r"is a \.zip"):
        update_manifest_section(tmp_path / "b.zip", "bench", {})
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        write_bundle(tmp_path / "folder.zip", about(), files(), LABELS, zipped=True)


def test_a_zip_that_was_packed_again_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    with zipfile.ZipFile(tmp_path / "again.zip", "w", zipfile.ZIP_DEFLATED) as target:
        for file in path.iterdir():
            target.write(file, file.name)
    assert open_bundle(tmp_path / "again.zip").labels == LABELS


def test_any_changed_byte_of_a_zip_is_refused_or_harmless(tmp_path: Path) -> None:
    zip_bundle(write(tmp_path / "b"), tmp_path / "b.zip")
    expected = open_bundle(tmp_path / "b.zip").manifest
    whole = (tmp_path / "b.zip").read_bytes()
    generator = random.Random(3)
    refused = 0
    for _ in range(150):
        changed = bytearray(whole)
        changed[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        (tmp_path / "c.zip").write_bytes(changed)
        try:
            # A date or a permission in the .zip's own tables may change, the content may not.
            opened = open_bundle(tmp_path / "c.zip")
            assert replace(opened.manifest, created="") == replace(expected, created="")
        except BundleError:
            refused += 1
    assert refused > 75


def test_a_malicious_zip_writes_nothing_outside(tmp_path: Path) -> None:
    path = write(tmp_path / "b")

    def attack(
        name: str, *, mode: int = 0o100644, data: bytes = b"evil", twice: bool = False
    ) -> None:
        target = tmp_path / "evil.zip"
        with zipfile.ZipFile(target, "w") as archive:
            for file in path.iterdir():
                archive.write(file, file.name)
            for _ in range(2 if twice else 1):
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16
                archive.writestr(info, data)
        before = sorted(p for p in tmp_path.rglob("*"))
        refusal(target)
        after = sorted(p for p in tmp_path.rglob("*") if p.is_file() or p.is_symlink())
        assert [p for p in after if p not in before] == []

    (tmp_path / "cache" / "bundles").mkdir(parents=True)
    attack("../../escaped.txt")
    attack("/absolute.txt")
    attack("folder/inside.txt")
    attack("link", mode=0o120777, data=b"/etc/passwd")
    attack("extra.so")
    attack("extra.txt")
    with pytest.warns(UserWarning, match="Duplicate name"):
        attack("extra.txt", twice=True)


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", about(), files(weights=bytes(64 << 20)), LABELS)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as target:
        for file in (tmp_path / "b").iterdir():
            target.write(file, file.name)
    assert "far more than its size" in refusal(tmp_path / "bomb.zip")


def test_a_zip_needs_a_cache_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zip_bundle(write(tmp_path / "b"), tmp_path / "b.zip")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(EdgekitError, match="set EDGEKIT_CACHE to a writable folder"):
        open_bundle(tmp_path / "b.zip")

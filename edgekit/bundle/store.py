"""A bundle: one folder (or a .zip of it) that runs a model on a device, and can prove it is intact.

Writing is all or nothing. Opening checks every file against the manifest and refuses, in one
line, a bundle with a changed, missing or added file, or one made for another machine. Loading
executes the plugins that the manifest declares and nothing else, and nothing is unpickled. (A
deploy of a TensorRT bundle also runs its script, if it is exactly what we would have written:
`edgekit.compilers.device_build.check_device_build`.)
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgekit.bundle import archive
from edgekit.bundle.manifest import (
    LABELS,
    MANIFEST,
    BundleError,
    FileEntry,
    Manifest,
    creation_time,
    is_file_name,
    parse_manifest,
)
from edgekit.bundle.onnx_external import has_external_data
from edgekit.core.errors import UsageError
from edgekit.core.files import file_sha256, link, write_text
from edgekit.core.folders import existing_folder, locked, replace_folder
from edgekit.core.host import host_arch

_LIBRARY = re.compile(r".*\.(so(\.[0-9.]+)?|dll|dylib|pyd)", re.IGNORECASE)
_ELF_MACHINES: Final = {0x3E: "x86_64", 0xB7: "aarch64"}
_MOST_MANIFEST_BYTES: Final = 16 << 20
_PATIENCE: Final = 30.0  # seconds that a reader tries beside a writer that never stops


@dataclass(frozen=True)
class Bundle:
    """A checked bundle; its files are in ``folder``."""

    path: Path
    """The folder or .zip that the user named."""
    folder: Path
    manifest: Manifest
    labels: tuple[str, ...]

    def plugins(self) -> tuple[Path, ...]:
        """The compiled libraries that its model needs."""
        return tuple(self.folder / name for name in self.manifest.plugins)


def write_bundle(
    path: Path,
    manifest: Manifest,
    files: Mapping[str, Path | bytes],
    labels: Sequence[str],
    *,
    zipped: bool = False,
) -> Manifest:
    """Write ``files`` and ``labels`` with ``manifest``, whose file table and date are filled in.

    With ``zipped``, ``path`` is a .zip file instead of a folder. An existing bundle is replaced in
    one step; any other existing folder or file is refused.
    """
    contents = {**files, LABELS: labels_text(labels)}
    for name in contents:
        if not is_file_name(name) or name == MANIFEST:
            raise UsageError(f"{name!r} cannot be a file of a bundle: use letters, digits, ._+-")
    manifest = dataclasses.replace(
        manifest,
        classes=len(labels),
        created=creation_time(),
        files={name: _entry(content) for name, content in contents.items()},
    )
    _check_plugins(manifest, contents)
    text = manifest.to_json()
    parse_manifest(text.encode(), str(path))  # refuse to write what could not be read back
    if zipped:
        if path.is_dir():
            raise UsageError(f"{path} is a folder: name a file that ends with .zip")
        archive.write_zip(path, {**contents, MANIFEST: text.encode()})
        return manifest

    def fill(folder: Path) -> None:
        for name, content in contents.items():
            if isinstance(content, Path):
                shutil.copyfile(content, folder / name)
            else:
                (folder / name).write_bytes(content)
        (folder / MANIFEST).write_text(text, encoding="utf-8")

    _check_replaceable(path)
    with locked(path):
        replace_folder(path, fill)
    return manifest


def zip_bundle(path: Path, target: Path) -> None:
    """Write the bundle in the folder ``path`` as one .zip; the same bundle gives the same bytes."""
    bundle = open_bundle(path, any_arch=True)
    names = (MANIFEST, *bundle.manifest.files)
    archive.write_zip(target, {name: bundle.folder / name for name in names})


def open_bundle(path: Path, *, any_arch: bool = False) -> Bundle:
    """Check a bundle and read its manifest and labels; every refusal is one line.

    ``any_arch`` also accepts one for another machine, which can be copied but not run here.
    """
    if path.is_file():
        return archive.open_zip(
            path, lambda folder, manifest: _open_folder(folder, path, any_arch, manifest)
        )
    end = time.monotonic() + _PATIENCE
    while True:
        folder = existing_folder(path)
        before = _identity(folder)
        if before is None:
            raise BundleError(f"{path} does not exist: name a bundle's folder or .zip")
        try:
            return _open_folder(folder, path, any_arch)
        except BundleError:
            # A build may have replaced the bundle while we read the old one. Retries are bounded:
            # whoever must read beside a busy writer takes the lock.
            if _identity(existing_folder(path)) == before or time.monotonic() > end:
                raise


def update_manifest_section(path: Path, name: str, value: Any) -> None:
    """Store one summary (``value``: plain JSON values) in the manifest, in one step."""
    update_bundle(path, sections={name: value})


def update_bundle(
    path: Path,
    *,
    sections: Mapping[str, Any] | None = None,
    reports: Mapping[str, bytes | None] | None = None,
) -> Manifest:
    """Add or replace summaries in the manifest, and report files (parity.json, report.html).

    A report that is None is removed. Nothing here touches what is executed: the model's files keep
    their checksums, and the bundle its identity. A kill leaves the old bundle or the new one.
    """
    return change_bundle(path, lambda _: (sections or {}, reports or {}))


def change_bundle(
    path: Path, change: Callable[[Bundle], tuple[Mapping[str, Any], Mapping[str, bytes | None]]]
) -> Manifest:
    """Like `update_bundle`, but ``change`` computes the sections and reports from the bundle.

    The bundle is locked meanwhile, so nobody else changes it in between.
    """
    if path.is_file():
        raise UsageError(f"{path} is a .zip: update the folder it was made from and zip it again")
    with locked(existing_folder(path)):
        bundle = open_bundle(path, any_arch=True)
        manifest = bundle.manifest
        sections, reports = change(bundle)
        for name in reports:
            taken = name == MANIFEST or manifest.is_essential(name) or _LIBRARY.fullmatch(name)
            if taken or not is_file_name(name):
                raise UsageError(f"{name!r} cannot be a report in {path}: choose another name")
        written = {name: content for name, content in reports.items() if content is not None}
        others = {name: entry for name, entry in manifest.files.items() if name not in reports}
        added = {name: _entry(content) for name, content in written.items()}
        manifest = dataclasses.replace(
            manifest,
            sections={**manifest.sections, **sections},
            files={**others, **added},
        )
        text = manifest.to_json()
        if not reports:
            write_text(bundle.folder / MANIFEST, text)
            return manifest

        def fill(folder: Path) -> None:
            for name in others:
                link(bundle.folder / name, folder / name)
            for name, content in written.items():
                (folder / name).write_bytes(content)
            (folder / MANIFEST).write_text(text, encoding="utf-8")

        replace_folder(path, fill)
        return manifest


def labels_text(labels: Sequence[str]) -> bytes:
    """The content of ``labels.txt``: one name per line, its white space collapsed."""
    if not labels:
        raise UsageError("a bundle needs at least one class name")
    names = [" ".join(label.split()) or f"class {index}" for index, label in enumerate(labels)]
    return ("\n".join(names) + "\n").encode("utf-8")


def elf_arch(data: bytes, name: str) -> str:
    """The architecture of a compiled library, from the first bytes of its file."""
    machine = int.from_bytes(data[18:20], "little")
    if data[:4] != b"\x7fELF" or machine not in _ELF_MACHINES:
        raise UsageError(f"{name} is not a Linux library for x86_64 or aarch64")
    return _ELF_MACHINES[machine]


def _open_folder(
    folder: Path, path: Path, any_arch: bool = False, expected: bytes | None = None
) -> Bundle:
    """Check the files in ``folder``; its manifest must equal ``expected``, if given."""
    manifest_path = folder / MANIFEST
    if not manifest_path.is_file() or manifest_path.is_symlink():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}")
    if manifest_path.stat().st_size > _MOST_MANIFEST_BYTES:
        raise BundleError(f"{path}: {MANIFEST} is damaged: copy the bundle again")
    try:
        data = manifest_path.read_bytes()
        if expected is not None and data != expected:
            raise BundleError(f"{path}: its unpacked copy was changed: open it again")
        manifest = parse_manifest(data, str(path))
        present = sorted(entry.name for entry in folder.iterdir())
        for name in present:
            if _LIBRARY.fullmatch(name) and name not in manifest.files:
                raise BundleError(
                    f"{path}: {name} is a library that its manifest does not list: "
                    "remove it, or copy the bundle again"
                )
        for name, entry in manifest.files.items():
            _check_file(folder / name, name, entry, path)
            if name.endswith(".onnx"):
                _check_weights(folder / name, path)
        labels = tuple((folder / LABELS).read_text(encoding="utf-8").split("\n")[:-1])
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: {LABELS} is not UTF-8 text") from error
    if len(labels) != manifest.classes:
        raise BundleError(
            f"{path}: {LABELS} has {len(labels)} names, the manifest says {manifest.classes}"
        )
    if not any_arch:
        _check_arch(manifest, path)
    return Bundle(path, folder, manifest, labels)


def _check_file(file: Path, name: str, entry: FileEntry, path: Path) -> None:
    try:
        status = file.lstat()
    except FileNotFoundError as error:
        raise BundleError(f"{path}: {name} is missing: copy the bundle again") from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path}: {name} is not a regular file (a link?): copy the bundle again")
    if status.st_size != entry.size or file_sha256(file) != entry.sha256:
        raise BundleError(f"{path}: {name} does not match its manifest: copy the bundle again")


def _check_weights(file: Path, path: Path) -> None:
    """A graph's weights must be inside it, where its checksum covers them."""
    try:
        outside = has_external_data(file)
    except ValueError as error:
        raise BundleError(
            f"{path}: {file.name} is not an ONNX file ({error}): build it again"
        ) from error
    if outside:
        raise BundleError(
            f"{path}: {file.name} keeps weights in other files, which nothing checks: build it "
            "again with all of them inside"
        )


def _check_arch(manifest: Manifest, path: Path) -> None:
    if manifest.plugins and manifest.arch != host_arch():
        raise BundleError(
            f"{path} was built for {manifest.arch}, this machine is {host_arch()}: "
            f"build it for a target of this machine ('edgekit targets')"
        )


def _check_plugins(manifest: Manifest, contents: Mapping[str, Path | bytes]) -> None:
    """Every library must be declared, and be for the declared architecture."""
    for name, content in contents.items():
        if _LIBRARY.fullmatch(name) and name not in manifest.plugins:
            raise UsageError(f"{name} is a library that the manifest does not list as a plugin")
        if name in manifest.plugins:
            start = content[:20] if isinstance(content, bytes) else _start(content)
            if elf_arch(start, name) != manifest.arch:
                raise UsageError(
                    f"{name} is built for {elf_arch(start, name)}, the bundle for {manifest.arch}"
                )


def _check_replaceable(path: Path) -> None:
    if not path.exists() or (path.is_dir() and (path / MANIFEST).is_file()):
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    raise UsageError(f"{path} exists and is not a bundle: choose another place, or remove it")


def _entry(content: Path | bytes) -> FileEntry:
    if isinstance(content, bytes):
        return FileEntry(hashlib.sha256(content).hexdigest(), len(content))
    try:
        return FileEntry(file_sha256(content), content.stat().st_size)
    except OSError as error:
        raise UsageError(f"cannot read {content}: {error.strerror}") from error


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(20)


def _identity(folder: Path) -> tuple[object, ...] | None:
    """Changes when another folder, or another manifest, replaces this one.

    Inode numbers alone do not tell: a new folder may get the number of one just removed.
    """
    try:
        status = folder.stat()
        manifest = folder / MANIFEST
        inner = manifest.stat() if manifest.exists() else None
    except OSError:
        return None
    identity = (status.st_dev, status.st_ino, status.st_ctime_ns)
    return (
        identity if inner is None else (*identity, inner.st_ino, inner.st_ctime_ns, inner.st_size)
    )

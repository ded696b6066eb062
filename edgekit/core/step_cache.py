"""The step cache: every step's output, keyed by everything it depends on.

An entry is a folder that appears in one rename, with a record of its inputs and of every file's
hash. A stale entry cannot be used, because its key differs; a damaged one is detected by its hashes
and built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from edgekit.core.cache_space import use_cache
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.core.files import file_sha256, write_text
from edgekit.core.folders import remove_folder, replace_folder
from edgekit.core.packages import install_command

_RECORD = "entry.json"

# Bump a step's number when its code changes what it writes.
STEP_VERSIONS = {"export": 5, "calibrate": 5, "scenes": 1, "views": 1, "foreign": 1}


def cache_root() -> Path:
    """$EDGEKIT_CACHE, or edgekit's folder in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    chosen = os.environ.get("EDGEKIT_CACHE") or os.path.join(base, "edgekit")  # noqa: PTH118
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:  # a container's user with neither a home nor a name
        raise UsageError(
            f"this user has no home folder for the cache {chosen}: set EDGEKIT_CACHE to a folder"
        ) from error


def versions_of(*packages: str) -> dict[str, str]:
    """The installed releases of the packages that a step computes with."""
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError as error:
            raise ToolchainMissing(
                f"{name} is not installed: run {install_command('build')}"
            ) from error
    return versions


def key_of(step: str, inputs: Mapping[str, object]) -> str:
    """The SHA-256 of a step's inputs (plain JSON values) and of its code's version."""
    document = {"step": step, "version": STEP_VERSIONS.get(step, 0), "inputs": inputs}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def find(root: Path, step: str, inputs: Mapping[str, object], console: Console) -> Path | None:
    """The folder of an intact cached result, or None; warns about and removes a damaged one."""
    entry = _entry(root, step, inputs)
    if not entry.exists():
        return None
    use_cache(root)
    if _intact(entry):
        with contextlib.suppress(OSError):  # a cache that cannot be written is not cleaned
            os.utime(entry)
        return entry
    console.warn(
        f"the cached result of step '{step}' is damaged and will be computed again: {entry}"
    )
    remove_folder(entry, lambda folder: not _intact(folder))  # another build may have replaced it
    return None


def cached(
    root: Path,
    step: str,
    inputs: Mapping[str, object],
    make: Callable[[Path], None],
    console: Console,
    *,
    force: bool = False,
) -> Path:
    """The folder that ``make`` filled for these inputs, now or in an earlier run."""
    if not force and (entry := find(root, step, inputs, console)) is not None:
        console.info(f"{step}: cached")
        return entry
    entry = _entry(root, step, inputs)

    def fill(folder: Path) -> None:
        make(folder)
        files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
        record = {"step": step, "inputs": inputs, "files": files}
        write_text(folder / _RECORD, json.dumps(record, indent=2, sort_keys=True))

    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgekitError(
            f"cannot write the cache {root} ({error.strerror}): set EDGEKIT_CACHE to another folder"
        ) from error
    use_cache(root)
    replace_folder(entry, fill)
    return entry


def _entry(root: Path, step: str, inputs: Mapping[str, object]) -> Path:
    return root / step / key_of(step, inputs)[:32]


def _intact(entry: Path) -> bool:
    try:
        record = json.loads((entry / _RECORD).read_text(encoding="utf-8"))
        return all(file_sha256(entry / name) == sha for name, sha in record["files"].items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return False

"""What a disturbed command must not leave: half a file, lost evidence, leftovers, a process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from edgekit.bundle.manifest import MANIFEST
from edgekit.bundle.store import open_bundle
from edgekit.core.errors import EdgekitError
from edgekit.core.typed_toml import read_toml
from edgekit.devices import registry
from edgekit.training.config import TrainConfig
from tests.hostile.campaign.commands import EVIDENCE, TARGET, Place


def damage(place: Place, before: Path) -> str:
    """What is half done under a final name, or gone that was evidence; "" for nothing."""
    places = (f"*/[!.]*/{MANIFEST}", f"nano/*/[!.]*/{MANIFEST}")
    for manifest in (path for pattern in places for path in place.folder.glob(pattern)):
        try:
            open_bundle(manifest.parent)
        except EdgekitError as error:
            return f"a bundle that is not whole: {error}"
    for zipped in place.folder.glob("out/[!.]*.zip"):
        try:
            open_bundle(zipped)
        except EdgekitError as error:
            return f"a bundle that is not whole: {error}"
    for was in before.glob("nano/*/[!.]*/"):
        there = place.folder / was.relative_to(before)
        if (was / MANIFEST).exists() and not _there(there):
            return f"a bundle on the device is gone: {was.relative_to(before)}"
    old = Place(before)
    if (old.bundle / MANIFEST).exists() and not place.bundle.exists():
        aside = place.bundle.with_name(f".{TARGET}.previous")  # what `open_bundle` finds
        if not aside.exists():
            return "the bundle that was there is gone"
        return ""
    for name in EVIDENCE:
        was = old.bundle / name
        if was.exists() and not _holds_evidence(place.bundle, name):
            return f"evidence is lost: {name}"
    for path in _visible(place.folder):
        if path.suffix in _READERS and not _reads(path):
            return f"half of a file under its final name: {path.relative_to(place.folder)}"
    return ""


def _there(bundle: Path) -> bool:
    """Whether `open_bundle` finds it; a rollback that has ended keeps nothing."""
    aside = bundle.with_name(f".{bundle.name}.previous")
    return bundle.exists() or aside.exists() or bundle.parent.name == "previous"


def _holds_evidence(bundle: Path, name: str) -> bool:
    """Whether the file is there; a bundle of another model owes none of it."""
    if (bundle / name).exists():
        return _reads(bundle / name)
    sections = json.loads((bundle / MANIFEST).read_bytes())["sections"]
    return name.removesuffix(".json") not in sections


def _visible(folder: Path) -> Iterable[Path]:
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)
        if path.is_file() and not hidden and parts[0] not in ("tmp", "home"):
            yield path


def _reads(path: Path) -> bool:
    try:
        _READERS[path.suffix](path)
    except Exception:  # noqa: BLE001 # whatever a reader thinks of half a file
        return False
    return True


def _read_onnx(path: Path) -> None:
    import onnx

    onnx.checker.check_model(onnx.load(path), full_check=False)


def _read_safetensors(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "numpy") as stream:
        for name in stream.keys():  # noqa: SIM118 # it is no dictionary
            stream.get_tensor(name)


def _read_state(path: Path) -> None:
    import torch

    torch.load(path, weights_only=True)


def _read_toml(path: Path) -> None:
    read_toml(path, registry._File if path.name == "devices.toml" else TrainConfig)


_READERS: Final[dict[str, Callable[[Path], object]]] = {
    ".json": lambda path: json.loads(path.read_bytes()),
    ".toml": _read_toml,
    ".onnx": _read_onnx,
    ".safetensors": _read_safetensors,
    ".pt": _read_state,
}


def leftovers(place: Place) -> list[str]:
    """What a command that ended well should have cleaned up behind one that did not."""
    names = []
    for path in place.folder.rglob(".*"):
        if place.folder / "tmp" not in path.parents and path.suffix in (".partial", ".tmp"):
            names.append(str(path.relative_to(place.folder)))
    return sorted(names)


def survivors(place: Place, seconds: float = 15) -> list[int]:
    """Processes that still work for a command that is dead; they have a moment to notice."""
    deadline = time.monotonic() + seconds
    while (found := _processes(place)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _processes(place: Place) -> list[int]:
    """Whoever was started with the case's cache in its environment, or works in its folder."""
    mark = f"EDGEKIT_CACHE={place.cache}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                continue
            works_here = place.folder in (cwd := (entry / "cwd").readlink(), *cwd.parents)
            if works_here or mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Names of what is not the same."""
    names = {*found, *expected}
    return sorted(name for name in names if found.get(name) != expected.get(name))

"""What a finished build depends on, and whether one exists already."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.bundle.build_record import build_record
from edgekit.bundle.manifest import BundleError, Manifest, tool_versions
from edgekit.bundle.store import open_bundle
from edgekit.core.documents import DocumentError, plain
from edgekit.core.errors import UsageError
from edgekit.core.files import file_sha256
from edgekit.parity.document import ParityDocument
from edgekit.quantize.recipes import read_recipe
from edgekit.steps.build_data import data_fingerprint
from edgekit.steps.config import BuildConfig
from edgekit.targets.descriptor import Descriptor

# Settings that do not change a bundle, and those whose content counts instead of their name.
_OUTSIDE_KEY = (
    *("out", "target", "zip", "require_engine"),
    *("checkpoint", "labels", "recipe", "plugin", "quantized"),
)


def made_by_build(section: object, config: BuildConfig) -> dict[str, Any] | None:
    """The part of a bundle's parity section that a build with ``config`` wrote, or None.

    It is beside the evidence once `edgekit parity` has found stronger evidence.
    """
    if section is None:
        return None
    try:
        evidence = ParityDocument.from_dict(section, "the section 'parity'")
    except DocumentError:  # from another edgekit: parity is measured again
        return None
    options = config.comparison()
    if (evidence.asked, evidence.device) == (options, None):
        return evidence.summary()
    own = [run for run in evidence.beside if (run.asked, run.device) == (options, None)]
    return {**plain(own[0]), "looks": evidence.looks} if own else None


@dataclass(frozen=True)
class Outcome:
    """One target's bundle and its measurements."""

    target: str
    path: Path
    up_to_date: bool
    bench: dict[str, Any] | None
    parity: dict[str, Any] | None

    @property
    def verdict(self) -> str:
        """Parity's verdict, or why there is none."""
        return str((self.parity or {}).get("verdict", "not measured"))


def finished(path: Path, key: str) -> Manifest | None:
    """The manifest of an earlier build with the same key, if its bundle is complete."""
    try:
        bundle = open_bundle(path, any_arch=True)  # it need not run here
    except BundleError:
        return None
    try:
        record = build_record(bundle.manifest, str(bundle.path))
    except DocumentError:  # from another edgekit: built again
        return None
    return bundle.manifest if record.key == key and record.complete else None


def build_key(config: BuildConfig, descriptor: Descriptor, checkpoint_sha256: str) -> str:
    """The SHA-256 of everything that a finished bundle depends on."""
    settings = asdict(config)
    for name in _OUTSIDE_KEY:
        del settings[name]
    document = {
        "settings": settings,
        "checkpoint": checkpoint_sha256,
        "labels": None if config.labels is None else _file_hash(config.labels),
        "plugin": None if config.plugin is None else _file_hash(config.plugin),
        "quantized": None if config.quantized is None else _file_hash(config.quantized),
        "recipe": asdict(read_recipe(config.recipe)),
        "data": data_fingerprint(config.data),
        "descriptor": asdict(descriptor),
        "tools": tool_versions(),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _file_hash(path: str) -> str:
    try:
        return file_sha256(Path(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error

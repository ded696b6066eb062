"""What a finished build depends on, and whether one exists already."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from edgekit.bench.document import BenchSummary
from edgekit.bundle.build_record import build_record
from edgekit.bundle.manifest import BundleError, Manifest, tool_versions
from edgekit.bundle.store import open_bundle
from edgekit.core.documents import SPARSE, DocumentError, plain
from edgekit.core.errors import ToolchainMissing, UsageError
from edgekit.core.files import file_sha256
from edgekit.core.json_schema import Describe, Schema, merged
from edgekit.model.backbones.import_path import code_key
from edgekit.native.openvino_extension import extension_for
from edgekit.parity.document import (
    DETAILS,
    ComparisonBeside,
    ParityDocument,
    ParityOutcome,
    Subject,
)
from edgekit.quantize.recipes import read_recipe
from edgekit.steps.build_data import data_fingerprint
from edgekit.steps.config import BuildConfig
from edgekit.targets.descriptor import Descriptor

# Settings that do not change a bundle, and those whose content counts instead of their name.
_OUTSIDE_KEY = (
    *("out", "target", "zip", "require_engine", "baseline", "budgets"),
    *("watch", "watch_images"),
    *("checkpoint", "labels", "recipe", "plugin", "quantized"),
)


@dataclass(frozen=True)
class BuildParity:
    """The comparison that a build asked for, and how often its bundle has been compared."""

    comparison: ParityDocument | ComparisonBeside
    looks: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        if isinstance(self.comparison, ComparisonBeside):
            return {**plain(self.comparison), "looks": self.looks}
        if all(getattr(self.comparison, name) is None for name in DETAILS):  # read from a summary
            return self.comparison.summary()
        return self.comparison.to_dict()

    @classmethod
    def json_schema(cls, describe: Describe) -> Schema:
        """Of `to_dict`."""
        looks = {"looks": {"type": "integer"}}
        beside = merged(describe(ComparisonBeside), {"properties": looks, "required": ["looks"]})
        return {"anyOf": [describe(ParityDocument), beside]}


def made_by_build(
    section: object, config: BuildConfig, judged: Subject = "model"
) -> BuildParity | None:
    """The part of a bundle's parity section that a build with ``config`` wrote, or None.

    It is beside the evidence once `edgekit parity` has found stronger evidence. ``judged`` is what
    the section is about: a comparison of anything else is not taken for it.
    """
    if section is None:
        return None
    try:
        evidence = ParityDocument.from_dict(section, "the section 'parity'")
    except DocumentError:  # from another edgekit: parity is measured again
        return None
    if evidence.judged != judged:
        return None
    options = config.comparison()
    if (evidence.asked, evidence.device) == (options, None):
        return BuildParity(evidence, evidence.looks)
    own = [run for run in evidence.beside if (run.asked, run.device) == (options, None)]
    return BuildParity(own[0], evidence.looks) if own else None


def bench_of_build(section: object) -> BenchSummary | None:
    """A bundle's bench section, or None."""
    try:
        return None if section is None else BenchSummary.from_dict(section, "the section 'bench'")
    except DocumentError:  # from another edgekit: measured again
        return None


@dataclass(frozen=True)
class Outcome:
    """One target's bundle and its measurements."""

    DERIVED: ClassVar = ("verdict",)

    target: str
    path: Path
    up_to_date: bool
    """Whether there was nothing to do."""
    bench: BenchSummary | None
    parity: BuildParity | None
    graph_parity: BuildParity | None = field(default=None, metadata=SPARSE)
    """Of the graph, while the engine is pending: ``verdict`` is not about it, the gate is."""

    @property
    def compared(self) -> BuildParity | None:
        """What the gate judges: the bundle's comparison, or else its graph's."""
        return self.parity or self.graph_parity

    @property
    def of_graph(self) -> bool:
        """Whether that is only the graph's."""
        return self.parity is None and self.graph_parity is not None

    @property
    def verdict(self) -> ParityOutcome | Literal["not measured"]:
        """Parity's verdict, or why there is none."""
        return "not measured" if self.parity is None else self.parity.comparison.verdict


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
    settings["tolerance"] = config.most_drop
    document = {
        "settings": settings,
        **code_key(config.backbone),
        "checkpoint": checkpoint_sha256,
        "labels": None if config.labels is None else _file_hash(config.labels),
        "plugin": None if config.plugin is None else _file_hash(config.plugin),
        "quantized": None if config.quantized is None else _file_hash(config.quantized),
        "recipe": asdict(read_recipe(config.recipe)),
        "data": data_fingerprint(config.data),
        "descriptor": asdict(descriptor),
        "extension": _extension_hash(descriptor),
        "tools": tool_versions(),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _extension_hash(descriptor: Descriptor) -> str | None:
    """Of the operators that a bundle for the target would take along."""
    if (descriptor.backend, descriptor.openvino_device) != ("openvino", "CPU"):
        return None
    try:
        return file_sha256(extension_for(descriptor.arch))
    except ToolchainMissing:
        return None


def _file_hash(path: str) -> str:
    try:
        return file_sha256(Path(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error

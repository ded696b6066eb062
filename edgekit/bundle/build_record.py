"""The manifest's section ``build``: which build made a bundle, from which images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from edgekit.bundle.manifest import Manifest
from edgekit.core.documents import Document, read

REMEDY: Final = "build the bundle again"


@dataclass(frozen=True)
class BuildRecord(Document):
    """What later commands need to know about the build."""

    SCHEMA: ClassVar = 1

    key: str = ""
    """Hash of everything that the bundle depends on."""
    complete: bool = False
    """Whether every step finished; a build that was killed leaves this false."""
    data: str | None = None
    """The images, as `--data` names them."""
    seed: int = 0
    """Seed of their split."""

    @staticmethod
    def from_dict(value: object, source: str) -> BuildRecord:
        """A section ``build``; earlier releases wrote no schema number."""
        if isinstance(value, Mapping):
            value = {"schema": BuildRecord.SCHEMA, **value}
        return read(BuildRecord, value, source, schema=BuildRecord.SCHEMA, remedy=REMEDY)


def build_record(manifest: Manifest, source: str) -> BuildRecord:
    """The build of a bundle; an empty record where it was packed some other way."""
    section = manifest.sections.get("build")
    if section is None:
        return BuildRecord()
    return BuildRecord.from_dict(section, f"{source}: its manifest's section 'build'")

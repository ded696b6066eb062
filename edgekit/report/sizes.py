"""How large a bundle is, and the float model that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgekit.bundle.manifest import Manifest
from edgekit.core.documents import part

SECTION: Final = "float"
"""The manifest's section with `FloatSize`."""


@dataclass(frozen=True)
class FloatSize:
    """The float ONNX file that a bundle was made from."""

    size_bytes: int


@dataclass(frozen=True)
class Sizes:
    """Bytes."""

    needed: int
    """Of the files that take part in running the model."""
    files: Mapping[str, int]
    """Every file of the bundle, without the page itself: it would have to know its own length."""
    reference: int | None
    """The float model's; None where it was not recorded."""

    @property
    def ratio(self) -> float | None:
        """Float over bundle."""
        return self.reference / self.needed if self.reference and self.needed else None


def sizes_of(manifest: Manifest, page: str, source: str) -> Sizes:
    """The sizes that a manifest records; ``source`` is what error messages call the bundle."""
    section = manifest.sections.get(SECTION)
    recorded = None
    if section is not None:
        recorded = part(FloatSize, section, f"{source}: its manifest's section '{SECTION}'")
    files = {name: entry.size for name, entry in manifest.files.items() if name != page}
    return Sizes(
        needed=sum(size for name, size in files.items() if manifest.is_essential(name)),
        files=files,
        reference=None if recorded is None else recorded.size_bytes,
    )


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"

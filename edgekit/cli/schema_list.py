"""What `edgekit schema` prints: the list, or one schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgekit.core.documents import Document


@dataclass(frozen=True)
class ListedSchema:
    """A document that has a schema."""

    name: str
    version: int
    """The number under the document's key ``schema`` (``format_version`` in a manifest)."""
    where: str
    """What prints or holds it."""


@dataclass(frozen=True)
class SchemaList(Document):
    """Every document that has a schema."""

    SCHEMA: ClassVar = 1

    schemas: tuple[ListedSchema, ...]


@dataclass(frozen=True)
class PrintedSchema(Document):
    """A JSON Schema: a document that the JSON Schema standard describes, not edgekit."""

    content: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The schema itself."""
        return dict(self.content)

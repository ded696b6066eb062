"""A manifest's description of its model, for people; running does not need it."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgekit.bundle.manifest import Manifest
from edgekit.core.documents import part
from edgekit.model.card import TrainingProtocol


@dataclass(frozen=True)
class HeadFacts:
    """The head's form; empty where the manifest does not record it."""

    output: str = ""
    quantize: str = ""
    codebook_size: int = 0

    @property
    def has_codebook(self) -> bool:
        """Whether it looks features up; if unknown, there are no codes to compare."""
        return self.output not in ("", "none")


@dataclass(frozen=True)
class ModelFacts:
    """Architecture and origin of a bundle's model."""

    backbone: str = "model"
    width: int | None = None
    origin: str = ""
    vqsa: HeadFacts = field(default_factory=HeadFacts)
    training: TrainingProtocol = field(default_factory=TrainingProtocol)


def model_facts(manifest: Manifest, source: str) -> ModelFacts:
    """The manifest's entry ``model``; ``source`` is what error messages call the bundle."""
    return part(ModelFacts, manifest.model, f"{source}: its manifest's 'model'")

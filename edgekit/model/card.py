"""The model card: everything that a checkpoint records besides its weights."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Final

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import from_dict
from edgekit.data.corruptions import BENCHMARK15
from edgekit.data.transforms import Preprocessing
from edgekit.model.config import VQSAConfig

FORMAT_VERSION = 1
TIMM_PREFIX: Final = "timm:"  # of the name of a backbone that is any timm model


@dataclass(frozen=True)
class TrainingProtocol:
    """How the weights were trained, which decides what robustness figures are comparable."""

    # Corruptions seen in training: None is unknown, () is clean images only.
    seen: tuple[str, ...] | None = None
    data: str | None = None  # the data set's name
    note: str | None = None

    def describe_seen(self) -> str:
        """The ``seen=`` text that every report repeats."""
        if self.seen is None:
            return "seen=unknown"
        if self.seen == BENCHMARK15:
            return "seen=benchmark15"
        return "seen=" + (",".join(self.seen) if self.seen else "none")


@dataclass(frozen=True)
class ModelCard:
    """Architecture, classes, preprocessing and training protocol of a checkpoint."""

    backbone: str
    width: int  # D, the feature the head works on
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    vqsa: VQSAConfig = field(default_factory=VQSAConfig)
    training: TrainingProtocol = field(default_factory=TrainingProtocol)
    origin: str = "edgekit"

    def to_json(self) -> str:
        """One line of JSON with the format version."""
        document = {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        return json.dumps(document, sort_keys=True, ensure_ascii=False)


def card_from_json(text: str, source: str) -> ModelCard:
    """Parse `ModelCard.to_json`; ``source`` is the file's name in error messages."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, numbers of 5,000 digits, depth
        raise UsageError(f"{source}: the model card is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise UsageError(f"{source}: the model card is not a JSON object")
    version = document.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise UsageError(
            f"{source}: checkpoint format {version}, this edgekit reads {FORMAT_VERSION}: "
            "use the edgekit that wrote it"
        )
    return from_dict(ModelCard, document, source)


def numbered_classes(count: int) -> tuple[str, ...]:
    """Placeholder names for a checkpoint that has none."""
    return tuple(f"class {index}" for index in range(count))

"""How an INT8 graph was fine-tuned, and for which targets it may be used.

The record is in the ONNX file's metadata, so the file alone is enough for a build.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgekit.core.documents import Document, parse_json, read
from edgekit.core.errors import UsageError
from edgekit.targets.dialects import Dialect, find_dialect

if TYPE_CHECKING:
    import onnx

KEY = "edgekit.finetuned"
REMEDY = "run 'edgekit finetune' again"


@dataclass(frozen=True)
class FinetuneRecord(Document):
    """How an INT8 graph was fine-tuned; also in the manifest of bundles built from it."""

    SCHEMA: ClassVar = 1

    checkpoint: str  # SHA-256 of the float original
    dialect: str  # whose form of the graph was fine-tuned
    recipe: str  # SHA-256 of the calibration recipe it started from
    recipe_name: str
    images: str  # SHA-256 of the list of calibration images
    data: str
    seen: tuple[str, ...]  # corruptions of the images it was fine-tuned on
    train_images: int
    epochs: int
    best_epoch: int  # 0: calibration alone was the best
    task_weight: float
    distill_weight: float
    code_weight: float
    feature_weight: float
    seed: int
    code_agreement: float | None  # on validation images, corrupted ones if there were any
    mean_corruption_error: float | None

    @staticmethod
    def from_dict(value: object, source: str) -> FinetuneRecord:
        """Read a record; those of earlier releases have no schema number."""
        if isinstance(value, Mapping):
            value = {"schema": FinetuneRecord.SCHEMA, **value}
        return read(FinetuneRecord, value, source, schema=FinetuneRecord.SCHEMA, remedy=REMEDY)


def write_record(graph: onnx.ModelProto, record: FinetuneRecord) -> None:
    """Put the record into the graph's metadata."""
    others = [entry for entry in graph.metadata_props if entry.key != KEY]
    del graph.metadata_props[:]
    graph.metadata_props.extend(others)
    graph.metadata_props.add(key=KEY, value=json.dumps(record.to_dict(), sort_keys=True))


def read_finetuned(path: Path) -> tuple[onnx.ModelProto, FinetuneRecord]:
    """The graph and its record; refuses files that `edgekit finetune` did not write."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except DecodeError as error:
        raise UsageError(f"{path} is not an ONNX file, or is damaged") from error
    for entry in graph.metadata_props:
        if entry.key == KEY:
            source = f"{path}: its record of the fine-tuning"
            return graph, FinetuneRecord.from_dict(parse_json(entry.value, source), source)
    raise UsageError(f"{path} was not written by 'edgekit finetune': give its model-int8.onnx")


def suits(record: FinetuneRecord, dialect: Dialect) -> bool:
    """Whether the graph is legal in a target's dialect as it is.

    The strictest form (TensorRT's) is legal everywhere except where products saturate.
    """
    made_for = find_dialect(record.dialect)
    return all(
        getattr(made_for, name) or not getattr(dialect, name)
        for name in (
            "saturates",
            "scalar_activations",
            "signed_only",
            "fuses_additions",
            "pools_in_int8",
        )
    )


def check_target(record: FinetuneRecord, dialect: Dialect, path: Path) -> None:
    """Refuse a target for which the graph cannot be made legal."""
    if dialect.saturates and not find_dialect(record.dialect).saturates:
        raise UsageError(
            f"{path} was fine-tuned for CPUs with VNNI: for one without, fine-tune with "
            f"--dialect {dialect.name}"
        )

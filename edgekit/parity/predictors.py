"""The two sides of a comparison: anything that maps uint8 images to logits and codes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.data.transforms import Preprocessing
from edgekit.errors import EdgekitError, UsageError
from edgekit.files import file_sha256


class Answers(NamedTuple):
    """What a model says about B images (in a block: B images of V variants each)."""

    logits: NDArray[np.float32]  # [B, classes]
    code: NDArray[np.int64] | None  # [B] or [B, P]; None without a codebook
    margin: NDArray[np.float32] | None  # shaped as code; None where it was left out


def join(parts: Sequence[Answers], *, stack: bool = False) -> Answers:
    """Several answers as one: after each other, or (``stack``) along a new first axis."""
    together = np.stack if stack else np.concatenate
    codes = [part.code for part in parts if part.code is not None]
    margins = [part.margin for part in parts if part.margin is not None]
    return Answers(
        together([part.logits for part in parts]),
        together(codes) if codes else None,
        together(margins) if margins else None,
    )


class Predictor(Protocol):
    """A model that is compared."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def key(self) -> str:
        """A hash of all that decides its answers; names its cached results."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What it does to images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Its class names."""

    @property
    def source(self) -> str:
        """SHA-256 of the checkpoint it was made from; "" if unknown."""

    @property
    def seen(self) -> str:
        """The ``seen=`` text of its training."""

    def run(self, images: NDArray[np.uint8]) -> Answers:
        """Images [B, height, width, 3] of the model's size."""


@dataclass(frozen=True)
class OnnxPredictor:
    """A float interchange graph (`edgekit export`) under ONNX Runtime."""

    name: str
    key: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    source: str
    seen: str
    session: Any
    chunk: int = 32  # images an inference; bounds the memory of activations

    def run(self, images: NDArray[np.uint8]) -> Answers:
        """Normalize on the host, as the graph expects."""
        names = [output.name for output in self.session.get_outputs()]
        parts = []
        for start in range(0, len(images), self.chunk):
            prepared = self.preprocessing.normalize(images[start : start + self.chunk])
            parts.append(self.session.run(names, {"images": prepared}))
        found = [dict(zip(names, values, strict=True)) for values in parts]
        return join([Answers(one["logits"], one.get("code"), one.get("margin")) for one in found])


@dataclass(frozen=True)
class BundlePredictor:
    """A bundle in its own runtime, as many inferences side by side as it offers."""

    name: str
    key: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    source: str
    seen: str
    model: Any
    parallel: int

    def run(self, images: NDArray[np.uint8]) -> Answers:
        """Share the images out to the runtime's streams."""
        parts = [part for part in np.array_split(images, self.parallel) if len(part)]
        if len(parts) == 1:
            return self._answer(images)
        with ThreadPoolExecutor(len(parts)) as threads:
            return join(list(threads.map(self._answer, parts)))

    def _answer(self, images: NDArray[np.uint8]) -> Answers:
        raw = self.model.run(images)
        return Answers(raw.logits, raw.code, raw.margin)


def open_onnx(path: Path, name: str = "float, ONNX Runtime") -> OnnxPredictor:
    """A float ONNX file that edgekit exported; its metadata say what it is."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        key = file_sha256(path)
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"ONNX Runtime cannot load the reference {path}: {reason}") from error
    metadata = session.get_modelmeta().custom_metadata_map
    if "edgekit.preprocessing" not in metadata or "edgekit.labels" not in metadata:
        raise UsageError(f"{path} was not written by 'edgekit export': export the checkpoint again")
    return OnnxPredictor(
        name=name,
        key=key,
        preprocessing=Preprocessing.from_dict(json.loads(metadata["edgekit.preprocessing"])),
        classes=tuple(json.loads(metadata["edgekit.labels"])),
        source=metadata.get("edgekit.source_sha256", ""),
        seen=metadata.get("edgekit.training", "seen=unknown"),
        session=session,
    )


def open_bundle_predictor(path: Path) -> BundlePredictor:
    """A bundle, loaded for throughput."""
    from edgekit.model.card import TrainingProtocol
    from edgekit.runtime import load
    from edgekit.settings import from_dict

    model = load(path, hint="throughput")
    manifest = model.manifest
    training = manifest.model.get("training", {})
    if not isinstance(training, dict):
        raise EdgekitError(f"{path}: the manifest's training protocol is damaged")
    described = model.describe()
    return BundlePredictor(
        name=f"{manifest.target.precision}, {described['runtime']}",
        key=f"{manifest.identity()} {described['runtime']} {described['inference_precision']}",
        preprocessing=manifest.preprocessing,
        classes=model.labels,
        source=manifest.source.checkpoint,
        seen=from_dict(TrainingProtocol, training, str(path)).describe_seen(),
        model=model,
        parallel=int(described["streams"]),
    )


def check_comparable(
    reference: Predictor, candidate: Predictor, *, allow_different_source: bool
) -> None:
    """Refuse two models whose difference would not mean what the report says."""
    if len(reference.classes) != len(candidate.classes):
        raise UsageError(
            f"the reference has {len(reference.classes)} classes, the candidate "
            f"{len(candidate.classes)}: they are not the same model"
        )
    if reference.preprocessing.size != candidate.preprocessing.size:
        raise UsageError(
            f"the reference takes images of {list(reference.preprocessing.size)}, the candidate of "
            f"{list(candidate.preprocessing.size)}: both must see the same pixels"
        )
    if reference.preprocessing != candidate.preprocessing:
        raise UsageError(
            "reference and candidate differ in their preprocessing: both must see the same pixels"
        )
    if reference.source != candidate.source and not allow_different_source:
        raise UsageError(
            f"the reference comes from checkpoint {reference.source[:12] or 'unknown'}, the "
            f"candidate from {candidate.source[:12] or 'unknown'}: name the bundle's own source, "
            "or insist with --allow-different-reference"
        )

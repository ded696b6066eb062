"""The two sides of a comparison: anything that maps uint8 images to logits and codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.engine import MODEL
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.store import open_bundle
from edgekit.core.errors import EdgekitError, UsageError, one_line
from edgekit.core.files import file_sha256
from edgekit.core.host import usable_threads
from edgekit.core.threads import in_order
from edgekit.data.transforms import Preprocessing
from edgekit.foreign.execution import Execution
from edgekit.model.card import numbered_classes
from edgekit.runtime.answers import Answers, join
from edgekit.runtime.openvino_devices import fell_back
from edgekit.targets.descriptor import Descriptor

_CHUNK = 8  # images per inference, if the model leaves the choice

Opener = Callable[[], "Predictor"]
"""How another process opens the same model; it can be pickled."""


def shares(count: int, chunk: int, parallel: int) -> int:
    """The number of pieces of at most ``chunk`` images to split into, ``parallel`` at a time.

    Every round has equally many, so none waits for the last one; each has at least one image.
    """
    rounds = -(-count // (chunk * parallel))
    return max(1, min(count, rounds * parallel))


class Predictor(Protocol):
    """A model to compare."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def key(self) -> str:
        """Identifies everything that decides its answers; the key of its cached results."""

    @property
    def preprocessing(self) -> Preprocessing:
        """Its preprocessing of images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Its class names."""

    @property
    def source(self) -> str:
        """SHA-256 of the checkpoint it was made from; "" if unknown."""

    @property
    def training(self) -> str:
        """Its training corruptions, as the text ``seen=...``."""

    def run(self, images: NDArray[np.uint8]) -> Answers:
        """Images [B, height, width, 3] of the model's size."""


@dataclass(frozen=True)
class OnnxPredictor:
    """An interchange graph (`edgekit export`), or a TensorRT bundle's, under ONNX Runtime.

    One thread per inference and several inferences at a time: that wastes less than many threads
    for one, and leaves no thread spinning while workers corrupt.
    """

    name: str
    key: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    source: str
    training: str
    session: Any
    parallel: int  # inferences at a time
    split: int  # inferences at a time that images are divided for; see `open_onnx`
    opener: Opener  # opens a copy of it
    chunk: int = _CHUNK  # images per inference, at most; bounds the memory of activations
    normalizes: bool = False  # the graph does so itself, and takes uint8 images

    @property
    def execution(self) -> Execution:
        """What really computes: its session has no other provider."""
        from edgekit.runtime.onnxruntime import runtime_version

        return Execution(f"ONNX Runtime {runtime_version()}", tuple(self.session.get_providers()))

    def run(self, images: NDArray[np.uint8]) -> Answers:
        """Normalize on the host, unless the graph does."""
        pieces = shares(len(images), self.chunk, self.split)
        return _side_by_side(self._answer, np.array_split(images, pieces), self)

    def _answer(self, images: NDArray[np.uint8]) -> Answers:
        from edgekit.runtime.onnxruntime import named_outputs

        pixels = images if self.normalizes else self.preprocessing.normalize(images)
        return Answers.of(named_outputs(self.session, pixels))


@dataclass(frozen=True)
class BundlePredictor:
    """A bundle in its own runtime, with as many parallel inferences as it offers."""

    name: str
    key: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    source: str
    training: str
    model: Any
    parallel: int  # inferences at a time
    chunk: int  # images per inference, at most
    fixed: bool  # the model accepts no other number
    execution: Execution  # what really computes
    split: int  # inferences at a time that images are divided for; see `open_onnx`

    @property
    def opener(self) -> Opener:
        """Opens a copy of it."""
        return partial(open_bundle_predictor, self.model.bundle.path.absolute(), split=self.split)

    def run(self, images: NDArray[np.uint8]) -> Answers:
        """Distribute the images over the runtime's streams."""
        split = 1 if self.fixed else self.split  # smaller pieces would be padded
        pieces = shares(len(images), self.chunk, split)
        return _side_by_side(self.model.run, np.array_split(images, pieces), self)


def _side_by_side(
    answer: Callable[[NDArray[np.uint8]], Answers],
    pieces: Sequence[NDArray[np.uint8]],
    model: OnnxPredictor | BundlePredictor,
) -> Answers:
    return join(list(in_order(answer, pieces, model.parallel, model.name)))


def open_onnx(path: Path, name: str = "float, ONNX Runtime", *, split: int = 0) -> OnnxPredictor:
    """A float ONNX file exported by edgekit; its metadata describe it.

    A copy in another process has to divide images as the first did, whose ``split`` it gets:
    how answers are rounded may depend on the number of images in an inference.
    """
    from edgekit.runtime.onnxruntime import FAILURES, open_session, runtime_version

    try:
        session = open_session(str(path), threads=1)
        key = f"{file_sha256(path)} onnxruntime {runtime_version()}"
    except (*FAILURES, OSError) as error:
        reason = one_line(error)
        raise UsageError(f"ONNX Runtime cannot load the reference {path}: {reason}") from error
    metadata = session.get_modelmeta().custom_metadata_map
    if "edgekit.preprocessing" not in metadata or "edgekit.labels" not in metadata:
        raise UsageError(f"{path} was not written by 'edgekit export': export the checkpoint again")
    split = split or usable_threads()
    return OnnxPredictor(
        name=name,
        key=key,
        preprocessing=Preprocessing.from_dict(json.loads(metadata["edgekit.preprocessing"])),
        classes=tuple(json.loads(metadata["edgekit.labels"])),
        source=metadata.get("edgekit.source_sha256", ""),
        training=metadata.get("edgekit.training", "seen=unknown"),
        session=session,
        parallel=usable_threads(),
        split=split,
        opener=partial(open_onnx, path.absolute(), name, split=split),
    )


def open_bundle_predictor(path: Path, *, split: int = 0) -> BundlePredictor:
    """A bundle, loaded for throughput; ``split`` is as in `open_onnx`."""
    from edgekit.runtime.model import load

    model = load(path, hint="throughput")
    manifest = model.manifest
    described = model.describe()
    streams, batch = int(described["streams"]), int(described["batch"])
    return BundlePredictor(
        name=f"{manifest.target.precision}, {described['runtime']}",
        key=f"{manifest.identity()} {described['runtime']} {described['inference_precision']}",
        preprocessing=manifest.preprocessing,
        classes=model.labels,
        source=manifest.source.checkpoint,
        training=_training(manifest, path),
        model=model,
        parallel=streams,
        chunk=batch or _CHUNK,
        fixed=batch > 0,
        execution=_execution(described, manifest.target),
        split=split or streams,
    )


def open_graph(path: Path, *, split: int = 0) -> OnnxPredictor:
    """The graph of a TensorRT bundle in ONNX Runtime: what an engine is built from, not the engine.

    The lookup runs as its body of standard operators, whichever form of it the bundle has.
    ``split`` is as in `open_onnx`.
    """
    import hashlib

    import onnx

    from edgekit.graph.variants import with_body
    from edgekit.graph.view import Graph
    from edgekit.runtime.onnxruntime import FAILURES, open_session, runtime_version

    bundle = open_bundle(path, any_arch=True)
    manifest = bundle.manifest
    graph = with_body(onnx.load(bundle.folder / MODEL))
    # Integer kernels take one scale per activation.
    integers = not Graph(graph).has_scales_by_channel
    data = graph.SerializeToString(deterministic=True)
    kind = "in integers" if integers else "in floats"
    try:
        session = open_session(data, threads=1, integers=integers)
    except FAILURES as error:
        reason = one_line(error)
        raise EdgekitError(f"ONNX Runtime cannot load the graph of {path}: {reason}") from error
    split = split or usable_threads()
    return OnnxPredictor(
        name=f"{manifest.target.precision} graph for TensorRT, onnxruntime {runtime_version()}",
        key=f"{hashlib.sha256(data).hexdigest()} onnxruntime {runtime_version()} {kind}",
        preprocessing=manifest.preprocessing,
        classes=bundle.labels,
        source=manifest.source.checkpoint,
        training=_training(manifest, path),
        session=session,
        parallel=usable_threads(),
        split=split,
        opener=partial(open_graph, path.absolute(), split=split),
        normalizes=True,
    )


def _training(manifest: Manifest, path: Path) -> str:
    """Which corruptions a bundle's model was trained with, as the text ``seen=...``."""
    from edgekit.core.typed_toml import from_dict
    from edgekit.model.card import TrainingProtocol

    training = manifest.model.get("training", {})
    if not isinstance(training, dict):
        raise EdgekitError(f"{path}: the manifest's training protocol is damaged")
    return from_dict(TrainingProtocol, training, str(path)).describe_seen()


def _execution(described: dict[str, str | int], target: Descriptor) -> Execution:
    """What a loaded bundle says of its runtime, and what its target asked for."""
    devices = tuple(str(described["device"]).split(" and "))
    asked = target.openvino_device
    return Execution(
        str(described["runtime"]),
        devices,
        str(described["inference_precision"]),
        asked=None if asked == "CPU" else f"openvino:{asked}",
        fell_back=target.backend == "openvino" and fell_back(asked, devices),
    )


def check_comparable(
    reference: Predictor, candidate: Predictor, *, allow_different_source: bool
) -> None:
    """Refuse two models whose difference would be meaningless."""
    check_classes(reference, candidate)
    if reference.preprocessing.size != candidate.preprocessing.size:
        raise UsageError(
            f"the reference takes images of {_size(reference)}, the candidate of "
            f"{_size(candidate)}: both must see the same pixels"
        )
    if reference.preprocessing != candidate.preprocessing:
        a, b = reference.preprocessing.to_dict(), candidate.preprocessing.to_dict()
        name = next(name for name in a if a[name] != b[name])
        raise UsageError(
            f"reference and candidate differ in their preprocessing ({name}: {a[name]} and "
            f"{b[name]}): both must see the same pixels"
        )
    if not allow_different_source:
        check_source(reference.source, candidate.source)


def check_classes(reference: Predictor, candidate: Predictor) -> None:
    """Refuse two models that do not tell the same classes apart."""
    ours, theirs = candidate.classes, reference.classes
    if len(theirs) != len(ours):
        raise UsageError(
            f"the reference has {len(theirs)} classes, the candidate {len(ours)}: they are not "
            f"the same model{_one_more(len(theirs), len(ours))}"
        )
    if theirs != ours and not _nameless(theirs) and not _nameless(ours):
        place = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
        raise UsageError(
            f"class {place} is '{theirs[place]}' in the reference and '{ours[place]}' in the "
            "candidate: they are not the same model, or were given different --labels"
        )


def named_classes(candidate: tuple[str, ...], reference: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of two comparable models, by the names of the one that has some."""
    return reference if _nameless(candidate) else candidate


def _one_more(theirs: int, ours: int) -> str:
    """A hint where one of two has a class more."""
    if abs(theirs - ours) != 1:
        return ""
    option = "--reference-background" if theirs > ours else "--background"
    return f", or the larger one's first class means 'none of these': say so with {option}"


def check_source(reference: str, candidate: str) -> None:
    """Refuse two models unless both are known to come from one checkpoint, by its SHA-256."""
    if not reference == candidate != "":
        raise UsageError(
            f"the reference comes from checkpoint {reference[:12] or '(unknown)'}, the candidate "
            f"from {candidate[:12] or '(unknown)'}: name the bundle's own source, or add "
            "--allow-different-reference"
        )


def same_source(reference: Predictor, candidate: Predictor) -> bool:
    """Whether both are known to come from one checkpoint."""
    return reference.source == candidate.source != ""


def _nameless(classes: tuple[str, ...]) -> bool:
    return classes == numbered_classes(len(classes))


def _size(model: Predictor) -> str:
    height, width = model.preprocessing.size
    return f"{height} x {width} px"

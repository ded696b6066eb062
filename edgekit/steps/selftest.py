"""Makes the self-test of a bundle: chooses its images, and asks for the answers to them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekit.bundle.selftest import SelfTest
from edgekit.core.errors import EdgekitError
from edgekit.data.splits import stratified_sample
from edgekit.data.synthetic import pictures
from edgekit.data.transforms import Preprocessing
from edgekit.graph.uint8_input import add_uint8_input
from edgekit.quantize.engine import compile_graph, run_compiled
from edgekit.runtime.answers import Answers, join
from edgekit.runtime.model import load
from edgekit.runtime.onnxruntime import named_outputs, open_session
from edgekit.runtime.selftest import (
    ask,
    judge,
    measured_noise,
    stored_part,
    where_it_runs,
)
from edgekit.steps.build_data import BuildData

IMAGES: Final = 40
_PHOTOS: Final = 28  # of them, where the build has photos: the others are made up and in color
_PHOTO_POOL, _PICTURE_POOL = 64, 48  # candidates
# Cells along the longer side. Coarse enough that what a photo's people and papers look like stays
# at home, fine enough that photos of different classes and codes remain so.
_CELLS: Final = 64
_MOST_COLUMNS, _MOST_POSITIONS = 1024, 64  # keep the file below `MOST_BYTES` with any model
_BRIGHTER: Final = 10  # gray levels
# How far apart two runtimes of one INT8 graph came where both had integer kernels: 0.14 to 0.25.
# Those of a device that is not here may be as far, however well the two of this machine agree.
_INT8_NOISE: Final = 0.15

_Answer = Callable[[NDArray[np.uint8]], Answers]


def make_self_test(
    graph: onnx.ModelProto, preprocessing: Preprocessing, data: BuildData | None, seed: int
) -> SelfTest:
    """The self-test of ``graph``, which is what the bundle's runtime is given.

    The images come from the validation part of ``data`` and from made-up pictures.
    """
    cell = -(-max(preprocessing.size) // _CELLS)
    pool, photos = _candidates(preprocessing, data, seed, cell)

    def large(part: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = preprocessing.size
        return part.repeat(cell, axis=1).repeat(cell, axis=2)[:, :height, :width]

    openvino = openvino_runner(graph, preprocessing)
    chosen = choose(openvino(large(pool)), photos)
    images = pool[chosen]
    pixels = large(images)
    reference = onnxruntime_answers(graph, preprocessing, pixels, optimized=False)
    columns = _columns(reference.logits)
    places = 1 if reference.code is None else reference.code.reshape(len(images), -1).shape[1]
    spaced = np.linspace(0, places - 1, min(places, _MOST_POSITIONS))
    positions = np.unique(spaced.astype(np.int64))
    stored = stored_part(reference, columns, positions)
    others = (openvino(pixels), onnxruntime_answers(graph, preprocessing, pixels, optimized=True))
    measured = max(
        measured_noise(stored, stored_part(other, columns, positions)) for other in others
    )
    noise, margin_noise = _expected_noise(measured) if _quantized(graph) else measured

    def logits(changed: NDArray[np.uint8]) -> NDArray[np.float32]:
        return openvino(changed).logits[:, columns].astype(np.float32)

    # From both sides, so that the rounding of the images as they are, which the bundle may share,
    # is in neither.
    high, low = (
        np.clip(pixels.astype(np.int64) + step, 0, 255).astype(np.uint8)
        for step in (_BRIGHTER, -_BRIGHTER)
    )
    return SelfTest(
        images=images,
        cell=cell,
        classes=reference.logits.shape[1],
        columns=columns,
        positions=positions,
        reference=stored,
        own=None,
        where="",
        noise=noise,
        margin_noise=margin_noise,
        brighter=((logits(high) - logits(low)) / 2).astype(np.float32),
        swapped=logits(np.ascontiguousarray(pixels[..., ::-1])) - stored.logits,
    )


def with_own_answers(path: Path, test: SelfTest) -> SelfTest:
    """``test`` with what the bundle at ``path`` says here, if that is what its graph says."""
    model = load(path)
    raw, where = ask(test, model.run, model.size), where_it_runs(model.describe())
    report = judge(dataclasses.replace(test, own=None), raw, where)
    if not report.passed:
        raise EdgekitError(f"{path} does not compute what its graph says: {report.describe()}")
    own = stored_part(raw, test.columns, test.positions)
    noise, margin_noise = max((test.noise, test.margin_noise), measured_noise(test.reference, own))
    return dataclasses.replace(test, own=own, where=where, noise=noise, margin_noise=margin_noise)


def _quantized(graph: onnx.ModelProto) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in graph.graph.node)


def _expected_noise(measured: tuple[float, float]) -> tuple[float, float]:
    """Of logits and margins, which grow with each other."""
    logits, margins = measured
    factor = max(1.0, _INT8_NOISE / max(logits, 1e-6))
    return logits * factor, margins * factor


def choose(answers: Answers, photos: int, count: int = IMAGES) -> NDArray[np.int64]:
    """Which ``count`` of the pool are stored; the first ``photos`` of it are photos.

    One after the other the image whose class and codes were met least so far; of equals that whose
    answer is clearest, since an answer that rounding turns around tests nothing.
    """
    total = len(answers.logits)
    top = np.sort(answers.logits, axis=1)
    lead = top[:, -1] - top[:, -min(2, top.shape[1])]
    clear = _rank(lead)
    codes: list[list[int]] = [[] for _ in range(total)]
    if answers.code is not None:
        codes = answers.code.reshape(total, -1).tolist()
        if answers.margin is not None:
            clear = clear + _rank(answers.margin.reshape(total, -1).min(axis=1))
    best = answers.logits.argmax(axis=1).tolist()
    use = Counter(code for row in codes for code in row)
    classes: Counter[int] = Counter()
    met: Counter[int] = Counter()

    def gain(place: int) -> float:
        own = set(codes[place])
        new = 1 / (1 + classes[best[place]])
        # What is used more is asked for more, and sooner a second time.
        new += sum((1 + use[code] / total) / (1 + met[code]) for code in own) / max(len(own), 1)
        return float(new * (1 + clear[place]))

    chosen: list[int] = []
    for first, last, wanted in (
        (0, photos, min(_PHOTOS, photos)),
        (photos, total, count),
    ):
        rest = list(range(first, last))
        while rest and len(chosen) < wanted:
            place = max(rest, key=gain)
            rest.remove(place)
            chosen.append(place)
            classes[best[place]] += 1
            met.update(set(codes[place]))
    return np.array(sorted(chosen), np.int64)


def _rank(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """0 for the least value, almost 1 for the greatest."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable") / len(values)


def _candidates(
    preprocessing: Preprocessing, data: BuildData | None, seed: int, cell: int
) -> tuple[NDArray[np.uint8], int]:
    """Photos and then pictures, a pixel a cell; how many are photos."""
    photos: list[NDArray[np.uint8]] = []
    if data is not None and len(data.splits.validation):
        part = data.splits.part("validation", data.dataset)
        rows = stratified_sample(part, _PHOTO_POOL, seed=seed)
        photos = [_coarse(preprocessing.fit(part.image(int(row))), cell) for row in rows]
    made_up = pictures(_PICTURE_POOL, preprocessing.size, seed, fine=False)
    return np.stack([*photos, *(_coarse(image, cell) for image in made_up)]), len(photos)


def _coarse(image: NDArray[np.uint8], cell: int) -> NDArray[np.uint8]:
    """The mean of every cell; those at the lower and right edge may be smaller."""
    if cell == 1:
        return image
    down, right = (np.arange(0, side, cell) for side in image.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.int64), down, axis=0), right, axis=1)
    high = np.diff([*down, image.shape[0]])[:, np.newaxis, np.newaxis]
    wide = np.diff([*right, image.shape[1]])[np.newaxis, :, np.newaxis]
    return np.asarray((sums + high * wide // 2) // (high * wide), np.uint8)


def _columns(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """The classes whose logits are stored: all, or those that were met and some others."""
    classes = logits.shape[1]
    if classes <= _MOST_COLUMNS:
        return np.arange(classes)
    met = np.unique(logits.argmax(axis=1))
    others = np.linspace(0, classes - 1, _MOST_COLUMNS - len(met)).astype(np.int64)
    return np.union1d(met, others).astype(np.int64)


def onnxruntime_answers(
    graph: onnx.ModelProto,
    preprocessing: Preprocessing,
    pixels: NDArray[np.uint8],
    *,
    optimized: bool,
) -> Answers:
    """What the graph says; ``optimized``: by the integer kernels that run it on a CPU.

    Those take the place of float arithmetic between dequantize and quantize nodes. Without them
    the answer is the graph's own, on any machine.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    add_uint8_input(model.graph, preprocessing)
    session = open_session(model.SerializeToString(), optimized=optimized)
    # One by one, so that a graph for one image runs as well.
    return join([Answers.of(named_outputs(session, image[np.newaxis])) for image in pixels])


def openvino_runner(graph: onnx.ModelProto, preprocessing: Preprocessing) -> _Answer:
    """A quick second opinion, by which images are chosen."""
    compiled = compile_graph(graph, "LATENCY")
    name = graph.graph.input[0].name

    def answer(pixels: NDArray[np.uint8]) -> Answers:
        batches: list[dict[str, NDArray[Any]]] = [
            {name: preprocessing.normalize(image[np.newaxis])} for image in pixels
        ]
        return join([Answers.of(found) for found in run_compiled(compiled, batches)])

    return answer

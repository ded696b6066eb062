"""The least that an INT8 graph must do: answer most images as the float model does.

Parity asks whether robustness survived, and needs labels, thousands of images and a user who does
not switch it off. This only asks whether the graph is garbage: a few dozen images, clean and
corrupted, that calibration did not use, are enough, and no labels are needed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekit.data.transforms import Preprocessing
from edgekit.graph.view import Graph
from edgekit.metrics.codes import code_agreement
from edgekit.quantize.results import Closeness
from edgekit.runtime.answers import Answers, join

VIEWS: Final = 64  # clean and corrupted
LEAST_VIEWS: Final = 32
_BATCH: Final = 8  # images per inference


def closeness(
    reference: Answers, candidate: Answers, *, clean: NDArray[np.bool_] | None = None
) -> Closeness:
    """Compare two models' answers to the same views, of which ``clean`` says which are clean."""
    finite = np.isfinite(candidate.logits).all(axis=1)
    same = (reference.logits.argmax(axis=1) == candidate.logits.argmax(axis=1)) & finite
    codes = None
    if reference.code is not None and candidate.code is not None:
        codes = float(code_agreement(reference.code, candidate.code).mean())
    return Closeness(
        len(same),
        logits_rms(reference.logits, candidate.logits),
        float(same.mean()),
        codes,
        None if clean is None else float(same[clean].mean()),
    )


def logits_rms(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    """The RMS of the difference, relative to the RMS of the reference."""
    exact = reference.astype(np.float64)
    off = np.square(candidate - exact).mean()
    return float(np.sqrt(off / max(np.square(exact).mean(), 1e-300)))


def onnxruntime_answers(
    graph: onnx.ModelProto,
    pixels: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    optimized: bool = True,
) -> Answers:
    """ONNX Runtime's answers with an interchange graph, for uint8 images [M, height, width, 3].

    Unless ``optimized``, it computes node by node what ONNX defines, without integer kernels.
    Those take one scale per activation, and fail where a depthwise convolution has one per channel.
    """
    from edgekit.runtime.onnxruntime import named_outputs, open_session

    integers = not Graph(graph).has_scales_by_channel
    session = open_session(graph.SerializeToString(), optimized=optimized, integers=integers)
    batches = (pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH))
    return join(
        [Answers.of(named_outputs(session, preprocessing.normalize(batch))) for batch in batches]
    )

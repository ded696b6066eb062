"""Proof that an exported file computes what the model computes: ONNX Runtime against torch."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError
from edgekit.data.synthetic import pictures
from edgekit.data.transforms import Preprocessing
from edgekit.export.report import Agreement, Batch
from edgekit.model.codebook import lookup_scores
from edgekit.model.vqsa import VQSA
from edgekit.runtime.onnxruntime import named_outputs, open_session

# Largest difference of logits over their largest magnitude. Two float32 implementations of a
# ResNet-50 differ by about 1e-6; a wrong graph by about 1.
TOLERANCE = 1e-4
# Attention over large logits, or features that nearly cancel, can amplify rounding far beyond
# that. Where the model's own float32 differs more from its float64, this many times that difference
# is allowed, but never more than the limit.
_ROUNDINGS = 20
_LIMIT = 1e-2
# Two implementations may choose different codewords that are equally good up to rounding, which
# means a margin smaller than this share of the best score. Margins may differ by as much. Where
# products of both signs cancel in the scores, their rounding may be more; it is then allowed as for
# logits, up to `_SCORE_LIMIT` of the lookup's largest score.
CODE_TOLERANCE = 1e-4
_SCORE_LIMIT = 5e-2
_MAX_BATCHES = 8


@dataclass(frozen=True)
class _Reference:
    logits: NDArray[Any]
    code: NDArray[np.int64] | None
    margin: NDArray[Any] | None
    best: NDArray[Any] | None  # the score of `code`
    scores: NDArray[Any] | None  # of every codeword


def check_agreement(
    data: bytes, model: VQSA, preprocessing: Preprocessing, batch: Batch, seed: int = 0
) -> Agreement:
    """Compare the serialized ONNX model, in plain ONNX Runtime, with ``model`` in torch.

    Raises `EdgekitError` if they differ by more than rounding.
    """
    session = open_session(data)
    sizes = (1, 3, 2) if batch == "dynamic" else (batch, batch)
    images = codes = excused = compared = 0
    worst, tolerance = 0.0, TOLERANCE
    for index in range(_MAX_BATCHES):
        if index >= len(sizes) and compared:
            break
        size = sizes[index % len(sizes)]
        pixels = preprocessing.normalize(pictures(size, preprocessing.size, seed + index))
        reference = _run_torch(model, pixels)
        outputs = named_outputs(session, pixels)
        exact = _Float64Answers(model, pixels)
        agrees = np.ones(size, bool)
        if reference.code is not None:
            different = outputs["code"] != reference.code
            allowed = _score_rounding(outputs, different, reference, exact)
            _check_margin(outputs, reference, allowed)
            excused += _count_ties(different, reference, allowed)
            codes += different.size
            agrees = ~different.reshape(size, -1).any(axis=1)
        images += size
        compared += int(agrees.sum())
        error = _relative(outputs["logits"][agrees], reference.logits[agrees])
        if error > TOLERANCE:
            tolerance = max(tolerance, _own_rounding(exact.answers(), reference))
        worst = max(worst, error)
    if not compared:
        raise EdgekitError(
            "the exported model cannot be checked: in every random image some codewords tie up to "
            "rounding, as in a codebook with duplicate rows (dead codes)"
        )
    if not worst <= tolerance:
        raise EdgekitError(
            f"the exported model's logits differ from torch's by {worst:.1e} (at most "
            f"{tolerance:.0e} is rounding): nothing was written; this is a bug, please report it"
        )
    return Agreement(images, worst, tolerance, codes, excused)


class _Float64Answers:
    """The model's answers in float64, computed only on demand because that is slow."""

    def __init__(self, model: VQSA, pixels: NDArray[np.float32]) -> None:
        self._model = model
        self._pixels = pixels
        self._answers: _Reference | None = None

    def answers(self) -> _Reference:
        if self._answers is None:
            double = copy.deepcopy(self._model).double()
            self._answers = _run_torch(double, self._pixels.astype(np.float64))
        return self._answers


def _own_rounding(exact: _Reference, reference: _Reference) -> float:
    """How far rounding may move the logits, estimated from the model's own float32 and float64."""
    return min(_ROUNDINGS * _relative(reference.logits, exact.logits), _LIMIT)


def _score_rounding(
    outputs: dict[str, NDArray[Any]],
    different: NDArray[np.bool_],
    reference: _Reference,
    exact: _Float64Answers,
) -> NDArray[Any]:
    """How far rounding may move the scores of each lookup.

    The usual share of the best score, unless that is not enough: the exact answer needs float64,
    which is slow.
    """
    assert reference.best is not None
    assert reference.margin is not None
    assert reference.scores is not None
    usual = CODE_TOLERANCE * np.abs(reference.best)
    doubtful = different & (reference.margin > usual)
    if not doubtful.any() and not (_margin_error(outputs, reference) > usual).any():
        return np.asarray(usual)
    scores = exact.answers().scores
    assert scores is not None
    own = np.abs(reference.scores - scores).max()
    most = _SCORE_LIMIT * np.abs(scores).max(axis=-1)
    return np.asarray(np.maximum(usual, np.minimum(_ROUNDINGS * own, most)))


def _run_torch(model: VQSA, pixels: NDArray[Any]) -> _Reference:
    """The model as trained, not folded: the fold is part of what is being verified."""
    with torch.no_grad():
        features = model.backbone.features(torch.from_numpy(pixels), model.config.quantize)
        output = model.head(features)
        if output.code is None or model.head.codebook is None:
            return _Reference(output.logits.numpy(), None, None, None, None)
        scores = lookup_scores(features, model.head.codebook.embeddings, model.config.distance)
        best = scores.gather(-1, output.code.unsqueeze(-1)).squeeze(-1)
    return _Reference(
        output.logits.numpy(),
        output.code.numpy(),
        output.margin.numpy(),
        best.numpy(),
        scores.numpy(),
    )


def _count_ties(different: NDArray[np.bool_], reference: _Reference, allowed: NDArray[Any]) -> int:
    """How many codes differ because of rounding; any other difference is an error."""
    assert reference.margin is not None
    wrong = different & (reference.margin > allowed)
    if wrong.any():
        raise EdgekitError(
            f"the exported model chose other codewords than torch in {int(wrong.sum())} of "
            f"{wrong.size} lookups: nothing was written; this is a bug, please report it"
        )
    return int(different.sum())


def _check_margin(
    outputs: dict[str, NDArray[Any]], reference: _Reference, allowed: NDArray[Any]
) -> None:
    error = _margin_error(outputs, reference)
    if not (error <= allowed).all():
        place = np.unravel_index(np.argmax(error - allowed), error.shape)
        raise EdgekitError(
            f"the exported model's margins differ from torch's by {error[place]:.1e} (at most "
            f"{allowed[place]:.0e} is rounding): nothing was written; this is a bug, please "
            "report it"
        )


def _margin_error(outputs: dict[str, NDArray[Any]], reference: _Reference) -> NDArray[Any]:
    """The error of each margin; infinite where only one of the two is finite."""
    assert reference.best is not None
    if "margin" not in outputs or reference.margin is None:
        return np.zeros_like(reference.best)
    ours, theirs = outputs["margin"], reference.margin
    finite = np.isfinite(theirs)  # with one codeword there is no second best
    error = np.where(np.isfinite(ours) == finite, 0.0, np.inf)
    error[finite] = np.abs(ours[finite] - theirs[finite])
    return np.nan_to_num(error, nan=np.inf, posinf=np.inf)


def _relative(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    if actual.size == 0:
        return 0.0
    if not np.isfinite(actual).all():
        return float("inf")
    scale = max(float(np.abs(expected).max()), 1e-30)
    return float(np.abs(actual - expected).max()) / scale


def check_structure(model: onnx.ModelProto | bytes) -> None:
    """Run ONNX's checker, with shape inference; a serialized model saves it a copy."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EdgekitError(f"the exported graph is not valid ONNX: {reason}") from error

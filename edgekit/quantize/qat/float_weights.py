"""Finds the float weights of 8-bit ones by shape and value, because calibration renames them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

_SAME_LAYER = 1.0  # levels: weights that are further off on average belong to another layer
_INSIDE = 0.49  # of a level: a value this far from its middle still rounds to it


def by_shape(graph: onnx.ModelProto | None) -> dict[tuple[int, ...], list[NDArray[np.float32]]]:
    """A float graph's weights, for `original_of`; empty for None."""
    weights: dict[tuple[int, ...], list[NDArray[np.float32]]] = {}
    for tensor in graph.graph.initializer if graph is not None else ():
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            weights.setdefault(tuple(tensor.dims), []).append(numpy_helper.to_array(tensor))
    return weights


def original_of(
    levels: NDArray[np.int8],
    scale: NDArray[np.float32],
    originals: Mapping[tuple[int, ...], list[NDArray[np.float32]]],
) -> NDArray[np.float32]:
    """The float weights that these levels stand for: the original's, if they round to them.

    If the calibration did not round to the nearest level, each weight is moved just far enough to
    round to its level. If it rescaled weights (SmoothQuant), there is no original, and the levels'
    own values are returned.
    """
    candidates = originals.get(levels.shape, [])
    offsets = [candidate / scale - levels for candidate in candidates]
    for candidate, offset in zip(candidates, offsets, strict=True):
        if np.array_equal(np.clip(np.round(offset + levels), -128, 127), levels):
            return candidate.astype(np.float32)
    nearest = min(offsets, key=lambda offset: float(np.abs(offset).mean()), default=None)
    if nearest is None or np.abs(nearest).mean() > _SAME_LAYER:
        return (levels * scale).astype(np.float32)
    inside: NDArray[np.float32] = (levels + np.clip(nearest, -_INSIDE, _INSIDE)) * scale
    return inside.astype(np.float32)

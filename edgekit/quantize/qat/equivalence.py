"""Proof that the written INT8 graph is the network that was trained.

Comparing logits end to end would prove little: two float32 implementations add in different
orders, now and then a value on the edge between two levels rounds the other way, and the layers
after it amplify that one level, through an attention that magnifies differences. So every Q/DQ
pair is compared on its own: both implementations get the same 8-bit inputs (ONNX Runtime's) and
must compute the same levels from them, except for values that lie on an edge, which are counted.
After the last pair, codes must be identical and logits equal.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.core.errors import EdgekitError
from edgekit.graph.view import with_outputs
from edgekit.quantize.qat.network import Network
from edgekit.quantize.qat.results import Proof
from edgekit.runtime.onnxruntime import named_outputs, open_session

LOGITS_TOLERANCE = 1e-3  # largest difference over the largest magnitude
_EDGE = 0.01  # levels from the midpoint of two, within which a value counts as on the edge
_TIE = 1e-6  # margin over best score below which rounding chooses between two codewords
_BATCH = 16


class _Follower:
    """Compares every pair's output with ONNX Runtime's and continues with the latter."""

    def __init__(self, reference: dict[str, NDArray[np.float32]]) -> None:
        self._theirs = reference
        self.values = self.edges = 0

    def __call__(self, name: str, level: Tensor, rounded: Tensor, scale: Tensor) -> Tensor:
        """See `Follow`."""
        reference = torch.from_numpy(self._theirs[name])
        their_levels = (reference / scale).round()
        different = their_levels != rounded
        self.values += rounded.numel()
        if bool(different.any()):
            off = (their_levels - rounded).abs()[different]
            from_edge = (level - (their_levels + rounded) / 2).abs()[different]
            if bool((off > 1).any()) or bool((from_edge > _EDGE).any()):
                raise EdgekitError(
                    f"the INT8 graph computes other values than the network that was trained, at "
                    f"{name}: nothing was written; this is a bug, please report it"
                )
            self.edges += int(different.sum())
        return reference


@torch.no_grad()
def prove(graph: onnx.ModelProto, network: Network, images: NDArray[np.float32]) -> Proof:
    """Compare ``graph`` in ONNX Runtime with ``network``; raise if they differ.

    ``images`` [M, 3, H, W] are normalized.
    """
    # The graph as ONNX defines it, with nothing fused, and every pair's output exposed.
    exposed = with_outputs(graph, network.pair_outputs).SerializeToString()
    session = open_session(exposed, optimized=False)
    values = edges = codes = different = 0
    error = 0.0
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        theirs = named_outputs(session, part)
        follower = _Follower(theirs)
        ours = network(torch.from_numpy(part), follow=follower)
        values, edges = values + follower.values, edges + follower.edges
        logits = ours.logits.numpy()
        scale = max(float(np.abs(logits).max()), 1e-30)
        error = max(error, float(np.abs(logits - theirs["logits"]).max()) / scale)
        if ours.code is not None and ours.scores is not None:
            different_rows = (ours.code.numpy() != theirs["code"]).reshape(-1)
            top = ours.scores.topk(min(2, ours.scores.shape[1]), dim=1).values.numpy()
            near = (top[:, 0] - top[:, -1]) <= _TIE * np.abs(top[:, 0])
            if bool((different_rows & ~near).any()):
                raise EdgekitError(
                    f"for {int(different_rows.sum())} of {different_rows.size} features, the INT8 "
                    "graph chooses other codewords than the network that was trained: nothing was "
                    "written; this is a bug, please report it"
                )
            codes, different = codes + different_rows.size, different + int(different_rows.sum())
    if not error <= LOGITS_TOLERANCE:
        raise EdgekitError(
            f"the INT8 graph's logits differ by {error:.0e} from those of the network that was "
            "trained: nothing was written; this is a bug, please report it"
        )
    return Proof(
        len(images), len(network.pair_outputs), values, edges, codes, different, error
    )  # fmt: skip

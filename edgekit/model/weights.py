"""Loading a file's weights into a model: every key, shape and value is checked first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import meant
from edgekit.model.foreign import Recognized, State
from edgekit.model.vqsa import VQSA


def rows_of(recognized: Recognized, key: str, source: str) -> int:
    """The rows of a matrix that has to be there."""
    if key not in recognized.state:
        raise UsageError(f"{source}: key '{recognized.theirs(key)}' is missing")
    tensor = recognized.state[key]
    if tensor.dim() != 2 or tensor.shape[0] < 1:
        raise UsageError(
            f"{source}: key '{recognized.theirs(key)}' has shape {shape_of(tensor)}, expected a "
            "matrix"
        )
    return int(tensor.shape[0])


def fill_model(
    model: VQSA,
    state: State,
    theirs: Callable[[str], str],
    source: str,
    untrained: set[str] | frozenset[str] = frozenset(),
) -> None:
    """Load ``state`` after checking every key; ``untrained`` ones may be missing.

    ``theirs`` translates our names into the file's.
    """
    _check(model.state_dict(), state, theirs, source, untrained)
    model.load_state_dict(state, strict=False)
    for key, tensor in model.state_dict().items():  # checked after the copy, which may overflow
        if key not in state or not tensor.is_floating_point():
            continue
        if not bool(torch.isfinite(tensor).all()):
            raise UsageError(
                f"{source}: key '{theirs(key)}' holds values beyond {tensor.dtype}: the training "
                "diverged, use an earlier checkpoint"
            )
        if key.endswith("running_var") and bool((tensor < 0).any()):
            raise UsageError(f"{source}: key '{theirs(key)}' holds negative variances")


def _check(
    expected: Mapping[str, Tensor],
    state: State,
    theirs: Callable[[str], str],
    source: str,
    untrained: set[str] | frozenset[str],
) -> None:
    """Refuse a ``state`` that does not fit the shapes and types of ``expected``."""
    for key in state:
        if key not in expected:
            their_keys = [theirs(name) for name in expected]
            raise UsageError(
                f"{source}: unknown key '{theirs(key)}'{meant(theirs(key), their_keys)}"
            )
    for key, tensor in expected.items():
        name = theirs(key)
        if key not in state:
            # A batch counter, which is not used with a fixed momentum, as all our layers have.
            if key in untrained or key.endswith("num_batches_tracked"):
                continue
            raise UsageError(f"{source}: key '{name}' is missing, expected {shape_of(tensor)}")
        given = state[key]
        if given.shape != tensor.shape:
            raise UsageError(
                f"{source}: key '{name}' has shape {shape_of(given)}, expected {shape_of(tensor)}"
            )
        if given.is_floating_point() != tensor.is_floating_point():
            raise UsageError(
                f"{source}: key '{name}' holds {given.dtype} values, expected {tensor.dtype}"
            )
        if given.is_floating_point() and not bool(torch.isfinite(given).all()):
            raise UsageError(
                f"{source}: key '{name}' holds NaN or infinite values: the training diverged, "
                "use an earlier checkpoint"
            )


def shape_of(tensor: Tensor) -> str:
    """A tensor's shape, in words."""
    return "x".join(map(str, tensor.shape)) or "a scalar"

"""The training methods that settings ask for, and the model without them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from edgekit.core.errors import UsageError
from edgekit.core.packages import require
from edgekit.model.vqsa import VQSA
from edgekit.training.config import TrainConfig
from edgekit.training.methods.denoise import Denoise
from edgekit.training.methods.method import Method
from edgekit.training.methods.paths import Paths
from edgekit.training.methods.preserve import Preserve
from edgekit.training.methods.prunable import prunable
from edgekit.training.methods.prune import Prune


def create_methods(
    config: TrainConfig,
    model: VQSA,
    size: tuple[int, int],
    *,
    is_trained: bool,
    has_head: bool,
    freezes: bool,
) -> tuple[Method, ...]:
    """The methods of a run that starts from ``model``, whose backbone ``is_trained`` or not.

    ``size`` is the height and width of its images. ``has_head``: so is its head; if not, one that
    ``freezes`` trains it before the backbone learns.
    """
    methods: list[Method] = []
    if config.remove_paths:
        if not (has_head or freezes):
            raise UsageError(
                "remove_paths goes by the errors of a trained model, and this one starts without "
                "a trained head: give --weights with these classes and this head, or train it "
                "first, with --freeze and --finetune-epochs"
            )
        methods.append(Paths(config.remove_paths, model))
    if config.preserve:
        if not is_trained:
            raise UsageError(
                "preserve keeps the features that a backbone starts with, and this one starts "
                "from random weights: give --weights, or leave --preserve out"
            )
        methods.append(Preserve(config.preserve, model))
    if config.denoise:
        methods.append(Denoise(config.denoise, model, pairs=config.pairing == "paired"))
    if config.prune:
        if not is_trained:
            raise UsageError(
                "prune removes the channels that a trained backbone needs least, and this one "
                "starts from random weights: give --weights, or leave --prune out"
            )
        require(("onnx", "onnxscript"), "--prune")
        methods.append(Prune(config.prune, prunable(model.backbone, size)))
    if methods and freezes and not config.finetune_epochs:
        raise UsageError(
            f"{methods[0].name} acts on a backbone that learns, but this one is frozen: add "
            "--finetune-epochs, or --no-freeze"
        )
    return tuple(methods)


def deployable(model: VQSA, methods: Sequence[Method]) -> VQSA:
    """The plain model that ``model`` becomes; ``model`` itself stays as it is."""
    if not methods:
        return model
    plain = copy.deepcopy(model)
    for method in reversed(methods):
        method.detach(plain)
    return plain

"""What a training method is, those that settings ask for, and the model without them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from edgekit.core.errors import UsageError
from edgekit.core.packages import require
from edgekit.model.vqsa import VQSA
from edgekit.training.config import TrainConfig
from edgekit.training.methods.denoise import Denoise
from edgekit.training.methods.preserve import Preserve
from edgekit.training.methods.prune import Prune, prunable


class Method(Protocol):
    """Acts while a backbone learns from images, and leaves a plain model behind.

    A method keeps nothing that changes: what learns is part of the model between `attach` and
    `detach`, and so it is optimized, averaged, saved and shared between processes as all weights
    are. What a method draws at random in a step must come from torch's generator.
    """

    name: str  # of its setting, and of its term of the loss in the log

    def attach(self, model: VQSA) -> None:
        """Add the method's modules, in the state in which training starts."""

    def advance(self, model: VQSA, share: float) -> None:
        """Prepare for a step, which has this share of the learning that is left of the phase."""

    def loss(self, images: Tensor, features: Tensor) -> Tensor:
        """Its weighted term, a mean over the images of which ``features`` were just computed."""

    def detach(self, model: VQSA) -> None:
        """Remove the modules from ``model``, or from a copy, which then answers as it did."""


def create_methods(
    config: TrainConfig, model: VQSA, size: tuple[int, int], *, is_trained: bool, freezes: bool
) -> tuple[Method, ...]:
    """The methods of a run that starts from ``model``, whose backbone ``is_trained`` or not.

    ``size`` is the height and width of its images.
    """
    methods: list[Method] = []
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

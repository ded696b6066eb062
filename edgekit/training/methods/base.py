"""What a training method is, those that settings ask for, and the model without them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.model.vqsa import VQSA
from edgekit.training.config import TrainConfig
from edgekit.training.methods.denoise import Denoise
from edgekit.training.methods.paths import Paths
from edgekit.training.methods.preserve import Preserve
from edgekit.training.results import Evaluation


class Method(Protocol):
    """Acts while a backbone learns from images, and leaves a plain model behind.

    A method keeps nothing that changes: what learns is part of the model between `attach` and
    `detach`, and so it is optimized, averaged, saved and shared between processes as all weights
    are. What a method draws at random in a step must come from torch's generator.
    """

    name: str  # of its setting, and of its term of the loss in the log

    def attach(self, model: VQSA) -> None:
        """Add the method's modules, in the state in which training starts."""

    def start(
        self,
        model: VQSA,
        evaluate: Callable[[Sequence[VQSA]], list[Evaluation]],
        console: Console,
    ) -> None:
        """Before the first step, once: decide what validation images have to tell."""

    def loss(self, images: Tensor, features: Tensor) -> Tensor:
        """Its weighted term, a mean over the images of which ``features`` were just computed."""

    def detach(self, model: VQSA) -> None:
        """Remove the modules from ``model``, or from a copy, which then answers as it did."""


def create_methods(
    config: TrainConfig, model: VQSA, *, is_trained: bool, has_head: bool, freezes: bool
) -> tuple[Method, ...]:
    """The methods of a run that starts from ``model``, whose backbone ``is_trained`` or not.

    ``has_head``: so is its head; if not, one that ``freezes`` trains it before the backbone learns.
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

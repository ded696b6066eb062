"""What a training method is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from edgekit.core.console import Console
from edgekit.model.vqsa import VQSA
from edgekit.training.results import Evaluation

Evaluate = Callable[[Sequence[VQSA]], list[Evaluation]]  # models on the validation images


class Method:
    """Acts while a backbone learns from images, and leaves a plain model behind.

    A method keeps nothing that changes: what learns is part of the model between `attach` and
    `detach`, and so it is optimized, averaged, saved and shared between processes as all weights
    are. What a method draws at random in a step must come from torch's generator.
    """

    name: str  # of its setting, and of its term of the loss in the log
    # Whether it makes the model smaller: then an earlier, larger one with lower errors is not what
    # was asked for, and cannot be the best.
    shrinks = False

    def attach(self, model: VQSA) -> None:
        """Add the method's modules, in the state in which training starts."""

    def start(self, model: VQSA, evaluate: Evaluate, console: Console) -> None:
        """Before the first step, once: decide what validation images have to tell."""

    def loss(self, images: Tensor, features: Tensor) -> Tensor:
        """Its weighted term, a mean over the images of which ``features`` were just computed."""
        return features.new_zeros(())

    def advance(self, model: VQSA, share: float) -> None:
        """Use a step's gradients, of the weights that the optimizer has not changed yet.

        The step has this share of the learning that is left of the phase.
        """

    def detach(self, model: VQSA) -> None:
        """Remove the modules from ``model``, or from a copy, which then answers as it did."""

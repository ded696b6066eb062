"""Corrections that let a calibrated graph err less, and never more, than plain rounding.

There are three, computed from images: the step of the pixels, the rounding of the weights, the
biases. Each keeps only what lowers the error of a layer, or of one of its channels, on held-out
images. Errors of single layers do not tell everything, so the whole graph's answers to those
images have the last word: where they are further from the float model's than plain rounding's are,
fewer corrections are applied, and in the end none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekit.core.console import Console
from edgekit.data.transforms import Preprocessing
from edgekit.graph.padding import with_explicit_pads
from edgekit.graph.variants import lookup_node
from edgekit.graph.view import copied
from edgekit.quantize.bias import CorrectedBiases, correct_biases
from edgekit.quantize.emulation import make_float
from edgekit.quantize.engine import outputs
from edgekit.quantize.layer_inputs import measure
from edgekit.quantize.layer_means import MeasuredMeans, graph_of_means
from edgekit.quantize.pixel_step import fit_pixels
from edgekit.quantize.recipes import Recipe
from edgekit.quantize.rounding import Rounded, round_weights
from edgekit.quantize.tables import leading_to

# Whose gain on other images does not grow with more of them (docs/performance.md); ranges, which
# are a matter of extremes, use all.
_IMAGES = 150
_UNROUNDED = Rounded(0, 0, 0, 0)
_UNCORRECTED = CorrectedBiases(0, 0, 0)


@dataclass(frozen=True)
class Corrections:
    """What was corrected, and what was tried and dropped."""

    pixels: bool = False
    rounded: Rounded = _UNROUNDED
    biases: CorrectedBiases = _UNCORRECTED
    dropped: tuple[str, ...] = ()  # corrections that made the answers worse as a whole
    harm_before: float = 0.0  # plain rounding's on the held-out images, see `HeldOut.harm`
    harm_after: float = 0.0

    def message(self) -> str:
        """Which of the recipe's corrections were not kept; "" if all were."""
        lines = []
        if self.rounded.refused:
            lines.append(
                f"{self.rounded.refused} of {self.rounded.channels} channels keep their nearest "
                "rounding"
            )
        spared = self.biases.channels - self.biases.changed
        if spared and self.biases.layers:
            lines.append(f"{spared} of {self.biases.channels} their biases")
        text = f"{', '.join(lines)}: they err less that way on held-out images" if lines else ""
        if self.dropped:
            gone = f"dropped {', '.join(self.dropped)}: answers to held-out images got worse"
            text = f"{text}; {gone}" if text else gone
        return text


# Returns a corrected copy of the graph.
Attempt = Callable[[], tuple[onnx.ModelProto, Corrections]]


class HeldOut:
    """Images that decide about corrections, with the float model's values for them."""

    def __init__(
        self, original: onnx.ModelProto, images: NDArray[np.uint8], preprocessing: Preprocessing
    ) -> None:
        self._images = images
        self._preprocessing = preprocessing
        lookup = lookup_node(original)
        # Where a codeword flips, the logits are another codeword's and say little about how large
        # the error is; the feature that is looked up says it in every image.
        self._value = original.graph.output[0].name if lookup is None else lookup.input[0]
        self._exact = self._values(original)
        size = np.square(self._exact).mean(axis=1)
        # An image whose features a corruption inflates must not count more than an ordinary one.
        self._weights = 1 / np.maximum(size, max(float(np.median(size)), 1e-30))
        self._size = float(self._weights @ size)

    def harm(self, graph: onnx.ModelProto) -> float:
        """How far an INT8 graph's features (without a codebook, its logits) are from float's.

        The RMS of the difference, relative to the RMS of float's.
        """
        off = np.square(self._values(graph) - self._exact).mean(axis=1)
        if not np.isfinite(off).all():
            return float("inf")
        return float(np.sqrt(self._weights @ off / max(self._size, 1e-300)))

    def _values(self, graph: onnx.ModelProto) -> NDArray[np.float64]:
        """The compared value for each image, flattened: [M, size]."""
        # With a large codebook, what follows the feature is half of the graph's bytes.
        upstream = leading_to(graph, [self._value])
        make_float(upstream)
        parts = [
            values[self._value] for values in outputs(upstream, self._images, self._preprocessing)
        ]
        return np.concatenate(parts).reshape(len(self._images), -1).astype(np.float64)


def correct(
    plain: onnx.ModelProto,
    original: onnx.ModelProto,
    images: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    preprocessing: Preprocessing,
    recipe: Recipe,
    console: Console,
) -> tuple[onnx.ModelProto, Corrections]:
    """``plain`` with the corrections that ``recipe`` asks for and that help.

    ``plain`` is NNCF's graph with every weight rounded to the nearest level, ``original`` the
    float graph; ``images`` and ``held_out`` are uint8 [M, height, width, 3].
    """
    original = with_explicit_pads(original, images.shape[1:3])
    images = some_of(images)
    rounds = recipe.rounding == "least-error"
    shifts = recipe.bias_correction == "full"

    def attempt(with_rounding: bool, with_biases: bool) -> tuple[onnx.ModelProto, Corrections]:
        graph = copied(plain)
        pixels = with_biases and fit_pixels(graph, images, held_out, preprocessing)
        rounded, biases = _UNROUNDED, _UNCORRECTED
        # What the biases ask of the images is measured in the pass that the rounding takes.
        means = graph_of_means(graph, original) if with_biases else None
        measured: MeasuredMeans | None = None
        if with_rounding:
            rounded, measured = round_weights(
                graph,
                original,
                images,
                held_out,
                preprocessing,
                console,
                biases_follow=with_biases,
                means=means,
            )
        elif means is not None and means.layers:
            measured = measure(means, original, images, held_out, preprocessing, console)
        if measured is not None:
            biases = correct_biases(graph, measured)
        return graph, Corrections(pixels, rounded, biases)

    attempts: dict[str, Attempt] = {
        _name(*choice): functools.partial(attempt, *choice)
        for choice in ((rounds, shifts), (False, shifts), (rounds, False))
        if any(choice)
    }
    if not attempts:
        return plain, Corrections()
    return first_no_worse(plain, attempts, HeldOut(original, held_out, preprocessing).harm)


def some_of(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As many images as corrections need, drawn from all, whose order may mean something."""
    if len(images) <= _IMAGES:
        return images
    return images[np.sort(np.random.default_rng(0).permutation(len(images))[:_IMAGES])]


def first_no_worse(
    plain: onnx.ModelProto,
    attempts: Mapping[str, Attempt],
    harm: Callable[[onnx.ModelProto], float],
) -> tuple[onnx.ModelProto, Corrections]:
    """The first of the ``attempts`` that does no more ``harm`` than ``plain``, else ``plain``."""
    before = harm(plain)
    dropped: list[str] = []
    for name, attempt in attempts.items():
        graph, corrections = attempt()
        after = harm(graph)
        if after <= before:
            return graph, replace(
                corrections, dropped=tuple(dropped), harm_before=before, harm_after=after
            )
        dropped.append(name)
    return plain, Corrections(dropped=tuple(dropped), harm_before=before, harm_after=before)


def _name(with_rounding: bool, with_biases: bool) -> str:
    if with_rounding and with_biases:
        return "rounding together with biases"
    return "rounding" if with_rounding else "biases"

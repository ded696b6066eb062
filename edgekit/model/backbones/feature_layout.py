"""What a network of unknown making returns, found out by running it: its layout and its width."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edgekit.core.errors import UsageError

_FORMS = "a float32 map [B, C, H, W], tokens [B, P, C] or a vector [B, C]"
# Of the largest value: other batches may round differently, but no more than this.
_ROUNDING = 1e-3
_SCORES = (nn.Linear, nn.Softmax, nn.LogSoftmax)  # what classifiers end in


@dataclass(frozen=True)
class Layout:
    """The form of a feature; ``prefix`` tokens come before the positions."""

    form: Literal["map", "tokens", "vector"]
    width: int
    prefix: int = 0


def find_layout(
    name: str, network: nn.Module, run: Callable[[Tensor], object], size: tuple[int, int]
) -> Layout:
    """The layout of what ``run`` returns for images of ``size``, by running it a few times.

    ``run`` is ``network`` or its ``forward_features``. What is ambiguous is refused: ``name`` and
    the shape are in the message, and what to change.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            return _Probe(name, network, run, size).layout()
    finally:
        network.train(was_training)


class _Probe:
    def __init__(
        self,
        name: str,
        network: nn.Module,
        run: Callable[[Tensor], object],
        size: tuple[int, int],
    ) -> None:
        self.network, self.run, self.size = network, run, size
        self.explicit = run is not network
        self.said = f"{name}: its {'forward_features' if self.explicit else 'forward'} returns"

    def layout(self) -> Layout:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(2, 3, *self.size, generator=generator)
        ends: list[tuple[str, Tensor]] = []
        feature = self._feature(images, ends)
        self._check_repeats(images, feature)
        if feature.dim() == 4:
            return self._map(feature)
        if feature.dim() == 3:
            return self._tokens(feature)
        self._check_no_scores(feature, ends)
        return Layout("vector", feature.shape[1])

    def _feature(self, images: Tensor, ends: list[tuple[str, Tensor]]) -> Tensor:
        """The output, if it has one of the forms; ``ends`` gets what classifiers' layers gave."""

        def note(layer_name: str) -> Callable[[nn.Module, object, Tensor], None]:
            return lambda _layer, _inputs, output: ends.append((layer_name, output))

        hooks = [
            layer.register_forward_hook(note(layer_name))
            for layer_name, layer in self.network.named_modules()
            if isinstance(layer, _SCORES)
        ]
        try:
            feature = self.run(images)
        finally:
            for hook in hooks:
                hook.remove()
        if not isinstance(feature, Tensor):
            raise UsageError(
                f"{self.said} a {type(feature).__name__}, not one tensor: {self._instead()}"
            )
        shape = list(feature.shape)
        fits = 2 <= len(shape) <= 4 and shape[0] == len(images) and feature.numel() > 0
        if not fits or feature.dtype != torch.float32:
            kind = str(feature.dtype).removeprefix("torch.")
            raise UsageError(
                f"{self.said} {kind} {shape} for images {list(images.shape)}: {self._instead()}"
            )
        if not bool(torch.isfinite(feature).all()):
            raise UsageError(
                f"{self.said} NaN or infinite values for images {list(images.shape)} of normally "
                "distributed values: repair the network, or give it trained weights"
            )
        return feature

    def _instead(self) -> str:
        if self.explicit:
            return f"return {_FORMS}"
        return f"return {_FORMS}, or give the network a method forward_features that does"

    def _check_repeats(self, images: Tensor, feature: Tensor) -> None:
        """The same again, and for an image alone."""
        if not _equal(feature, self.run(images)):
            raise UsageError(
                f"{self.said} other values each time in evaluation mode: let nothing be drawn at "
                "random there (dropout by nn.Dropout, or functional with training=self.training)"
            )
        if not _equal(feature[:1], self.run(images[:1])):
            raise UsageError(
                f"{self.said} other values for an image alone than in a batch of two: in "
                "evaluation mode, normalize by stored statistics and never across images"
            )

    def _map(self, feature: Tensor) -> Layout:
        _, channels, height, width = feature.shape
        varying = self._varying(feature)
        # Where only one size can be tried, or all give one shape: square images make square maps.
        square = self.size[0] == self.size[1] and channels == height != width
        if 1 in varying or (not varying and square):
            raise UsageError(
                f"{self.said} {list(feature.shape)} for images of {self._pixels()}, which looks "
                "like [B, H, W, C]: return [B, C, H, W], such as feature.permute(0, 3, 1, 2)"
            )
        return Layout("map", channels)

    def _tokens(self, feature: Tensor) -> Layout:
        _, tokens, width = feature.shape
        if 2 in self._varying(feature):
            raise UsageError(
                f"{self.said} {list(feature.shape)}, whose last dimension changes with the images' "
                "size: return tokens [B, P, C], such as feature.transpose(1, 2)"
            )
        prefix = getattr(self.network, "num_prefix_tokens", None)
        if prefix is None:
            is_square = math.isqrt(tokens) ** 2 == tokens
            if self.size[0] == self.size[1] and not is_square:
                raise UsageError(
                    f"{self.said} {list(feature.shape)} for square images, and {tokens} tokens are "
                    "no square of positions: return [B, P, C], and set the network's attribute "
                    "num_prefix_tokens to the number of class tokens in front (0: there are none)"
                )
            prefix = 0
        if type(prefix) is not int or not 0 <= prefix < tokens:
            raise UsageError(
                f"{self.said} {tokens} tokens, and num_prefix_tokens is {prefix!r}: make it an "
                f"integer from 0 to {tokens - 1}"
            )
        return Layout("tokens", width, prefix)

    def _varying(self, feature: Tensor) -> set[int]:
        """The dimensions that change with the images' size; none where no other size works."""
        larger = min(self.size) < 64
        height, width = (2 * side if larger else side // 2 for side in self.size)
        try:
            other = self.run(torch.zeros(2, 3, height, width))
        except Exception:  # noqa: BLE001 - a network made for one size may raise anything
            return set()
        if not isinstance(other, Tensor) or other.dim() != feature.dim():
            return set()
        return {d for d in range(1, feature.dim()) if other.shape[d] != feature.shape[d]}

    def _check_no_scores(self, feature: Tensor, ends: list[tuple[str, Tensor]]) -> None:
        """A vector may be the feature or the scores of classes; only forward_features is clear."""
        last = next((layer for layer, output in ends if output is feature), None)
        if self.explicit or last is None:
            return
        raise UsageError(
            f"{self.said} {list(feature.shape)} from its layer '{last}', which may be a "
            "classifier: replace it with torch.nn.Identity(), or give the network a method "
            "forward_features that returns what is to be classified"
        )

    def _pixels(self) -> str:
        return f"{self.size[0]} x {self.size[1]} pixels"


def _equal(one: Tensor, other: object) -> bool:
    if not isinstance(other, Tensor) or other.shape != one.shape:
        return False
    return bool((one - other).abs().max() <= _ROUNDING * one.abs().max())

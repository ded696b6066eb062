"""Anybody's torch module as a backbone, made by a function that is named by its import path.

Importing is running code: only a name that the user gave may come here, never one out of a file.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.core.errors import EdgekitError, TheirCodeError, UsageError, one_line
from edgekit.core.typed_toml import meant
from edgekit.data.transforms import IMAGENET
from edgekit.model.backbones.base import Backbone
from edgekit.model.backbones.feature_layout import Layout, find_layout
from edgekit.model.backbones.import_path import current_folder_first, source_digest
from edgekit.model.config import Quantize
from edgekit.model.untrusted import oddity


class ImportedBackbone(Backbone):
    """The network that ``module:function`` makes; its feature is what `feature_layout` finds.

    The feature is what the network's method ``forward_features`` returns, or else ``forward``: a
    map, whose average is the pooled feature; tokens, likewise, without ``num_prefix_tokens`` of
    them; or a vector, which has no positions. ``size`` is the images' height and width.
    """

    uses_all_parameters = False  # a classifier behind forward_features does not run
    prefix = "backbone.network."  # of the network's own names, in a checkpoint of ours
    classifiers: tuple[str, ...] = ()  # none that we know: it is behind forward_features

    def __init__(
        self, name: str, size: tuple[int, int] | None = None, layout: Layout | None = None
    ) -> None:
        super().__init__()
        self.name, self.size = name, size or IMAGENET.size
        self.source = source_digest(name)
        self.network = _make(name)
        if layout is None:
            height, width = self.size
            doing = f"running its network on images [2, 3, {height}, {width}]"
            with their_code(name, doing):
                run = getattr(self.network, "forward_features", self.network)
                layout = find_layout(name, self.network, run, self.size)
            _check_state(name, self.network)  # lazy layers have their weights by now
        self.layout = layout
        self.channels = layout.width

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> the feature in the network's own layout."""
        run = getattr(self.network, "forward_features", self.network)
        with their_code(self.name, f"running its network on images {list(images.shape)}"):
            feature: Tensor = run(images)
        return feature

    def pooled(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, D]."""
        return self(images) if self.layout.form == "vector" else self.vectors(images).mean(dim=1)

    def vectors(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, P, D]."""
        feature: Tensor = self(images)
        if self.layout.form == "map":
            return feature.flatten(2).transpose(1, 2)
        return feature[:, self.layout.prefix :]

    def width(self, quantize: Quantize) -> int:
        """D; a vector has no positions to look up."""
        if quantize == "spatial" and self.layout.form == "vector":
            raise UsageError(
                f"{self.name} returns a vector [B, {self.layout.width}], which has no positions: "
                "use --quantize pooled, or return a map [B, C, H, W]"
            )
        return self.layout.width

    def check_repeatable(self) -> None:
        """Refuse a network that its weights do not determine: a checkpoint could not hold it."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(1 + torch.initial_seed())
            images = torch.randn(1, 3, *self.size)
            twin = ImportedBackbone(self.name, self.size, self.layout)
            with their_code(self.name, "loading one network's weights into another"):
                twin.network.load_state_dict(self.network.state_dict())
            was_training = self.training
            self.eval()
            twin.eval()
            is_equal = torch.allclose(self(images), twin(images), rtol=1e-4, atol=1e-5)
            self.train(was_training)
        if not is_equal:
            raise UsageError(
                f"{self.name} makes another network each time, even with the same weights: draw "
                "what is random with a fixed seed, or keep it in a parameter or buffer "
                "(register_buffer)"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        # Made again in a worker process: what a network holds besides weights may not be picklable.
        weights = {key: value.cpu() for key, value in self.network.state_dict().items()}
        return _again, (self.name, self.size, self.layout, weights, self.training)

    def __deepcopy__(self, memo: dict[int, Any]) -> ImportedBackbone:
        twin = ImportedBackbone.__new__(ImportedBackbone)
        memo[id(self)] = twin
        with their_code(self.name, "copying its network"):
            twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin


def _again(
    name: str, size: tuple[int, int], layout: Layout, weights: dict[str, Tensor], training: bool
) -> ImportedBackbone:
    backbone = ImportedBackbone(name, size, layout)
    backbone.network.load_state_dict(weights)
    return backbone.train(training)


@contextmanager
def their_code(name: str, doing: str) -> Iterator[None]:
    """Report what the user's code raises in one line, and keep what it prints off stdout."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except EdgekitError:
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {one_line(error)}".removesuffix(": ")
        raise TheirCodeError(f"{name}: {doing} failed with {reason} (-v shows where)") from error


def _make(name: str) -> nn.Module:
    """Import the module, and call the function."""
    module_name, _, attribute = name.partition(":")
    with current_folder_first():
        module = _import(name, module_name)
        make = _attribute(name, module, attribute)
        _check_callable(name, make)
        with their_code(name, "making the network"):
            network = make()
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"{name} returned a {type(network).__name__}, not a torch.nn.Module: return the network"
        )
    if not callable(getattr(network, "forward_features", network)):
        raise UsageError(
            f"{name}: its forward_features is no method: make it one that returns the feature"
        )
    return network


def _import(name: str, module_name: str) -> ModuleType:
    try:
        with their_code(name, f"importing {module_name}"):
            return importlib.import_module(module_name)
    except TheirCodeError as error:
        missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if missing is None or not f"{module_name}.".startswith(f"{missing}."):
            raise
        raise UsageError(
            f"{name}: there is no module {missing}: run edgekit in the folder that holds it, or "
            "install it into edgekit's environment"
        ) from error


def _attribute(name: str, module: ModuleType, path: str) -> Any:
    place, where = module, f"module {module.__name__}"
    for part in path.split("."):
        if not hasattr(place, part):
            public = [known for known in vars(place) if not known.startswith("_")]
            origin = getattr(module, "__file__", None) or "without a file"
            raise UsageError(f"{name}: {where} ({origin}) has no '{part}'{meant(part, public)}")
        place, where = getattr(place, part), f"{where}'s {part}"
    return place


def _check_callable(name: str, make: Callable[..., object]) -> None:
    if isinstance(make, nn.Module):
        raise UsageError(
            f"{name} is a network itself, which two models would share: name a function or class "
            "that makes one"
        )
    if not callable(make):
        raise UsageError(
            f"{name} is a {type(make).__name__}: name a function without arguments, or a class, "
            "that makes a torch.nn.Module"
        )
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # written in C
        return
    try:
        signature.bind()
    except TypeError as error:
        raise UsageError(
            f"{name} needs arguments {signature}: name a function without, such as one that "
            "returns the network with the arguments that you mean"
        ) from error


def _check_state(name: str, network: nn.Module) -> None:
    """Refuse weights that a checkpoint cannot hold, before they are trained."""
    for key, value in network.state_dict().items():
        problem = oddity(value) if isinstance(value, Tensor) else f"a {type(value).__name__}"
        if problem is None and value.is_floating_point() and value.dtype != torch.float32:
            problem = f"{str(value.dtype).removeprefix('torch.')} values"
        if problem is None and value.device.type != "cpu":
            problem = f"values on {value.device}"
        if problem is not None:
            raise UsageError(
                f"{name}: its network's '{key}' holds {problem}: make it of dense float32 tensors "
                "on the CPU (--device moves them)"
            )

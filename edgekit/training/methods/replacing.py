"""Puts a module in the place of another."""

from torch import nn


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Make ``module`` what ``network`` calls ``name``."""
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)

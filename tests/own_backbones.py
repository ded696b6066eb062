"""Packages of networks that are not edgekit's, in a folder that commands run in."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NETWORK = """
import torch
from torch import nn

from .blocks import block


class Net(nn.Module):
    def __init__(self, width=24, classes=5):
        super().__init__()
        self.body = nn.Sequential(block(3, 16, 2), block(16, 16, 1), block(16, width, 2))
        self.act = lambda x: x.relu()  # which no pickle holds
        self.fc = nn.Linear(width, classes)  # which nothing calls

    def forward_features(self, images):
        return self.act(self.body(images))

    def forward(self, images):
        return self.fc(self.forward_features(images).mean((2, 3)))


def make():
    print("made by code that prints")
    return Net()
"""
BLOCKS = """
from torch import nn


def block(inputs, outputs, stride):
    norm = nn.BatchNorm2d(outputs)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), norm, nn.ReLU())
"""


def write_package(folder: Path, name: str) -> str:
    """A package of three files; returns the backbone's import path."""
    package = folder / name
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "blocks.py").write_text(BLOCKS)
    (package / "net.py").write_text(NETWORK)
    return f"{name}.net:make"


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """In that folder; what is imported from it is forgotten at the end."""
    modules, path = set(sys.modules), list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield
    for name in set(sys.modules) - modules:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    sys.path[:] = path

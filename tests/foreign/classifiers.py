"""A small classifier that edgekit did not make, in several formats, and images that it knows.

Random filters and a linear layer fitted to them: trained in a second, right on nine in ten images,
and as easily hurt by corruptions as any. The images are the built-in ones in colors that go with
their class, so that exchanged channels matter.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit.data.datasets import open_dataset

SIDE = 28
CLASSES = 10
MEAN, STD = 110.0, 70.0  # gray levels
PREPROCESSING = f"""
size = [{SIDE}, {SIDE}]
crop_ratio = 1.0
mean = [{MEAN}, {MEAN}, {MEAN}]
std = [{STD}, {STD}, {STD}]
"""
STRIDE = 3
_FILTERS, _KERNEL = 48, 7
_TRAIN, _TEST = 3000, 600
Float = NDArray[np.float32]


@functools.cache
def folder() -> Path:
    """A temporary folder that lives as long as the tests."""
    path = Path(tempfile.mkdtemp(prefix="edgekit-foreign-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@dataclass(frozen=True)
class Network:
    """conv -> relu -> linear."""

    filters: Float  # [F, 3, K, K]
    weights: Float  # [features, classes]
    bias: Float

    def features(self, normalized: Float) -> Float:
        """[B, features] of [B, 3, side, side]."""
        windows = np.lib.stride_tricks.sliding_window_view(
            normalized, (_KERNEL, _KERNEL), axis=(2, 3)
        )[:, :, ::STRIDE, ::STRIDE]
        maps = np.einsum("bcyxij,fcij->bfyx", windows, self.filters, optimize=True)
        return np.maximum(maps, 0).reshape(len(normalized), -1)

    def logits(self, images: NDArray[np.uint8]) -> Float:
        """Of uint8 RGB images."""
        return self.features(normalize(images)) @ self.weights + self.bias


def normalize(images: NDArray[np.uint8]) -> Float:
    return ((images.astype(np.float32) - MEAN) / STD).transpose(0, 3, 1, 2)


def tinted(images: NDArray[np.uint8], labels: NDArray[np.int64], seed: int) -> NDArray[np.uint8]:
    """Each image in a color that tells something of its class."""
    colors = np.random.default_rng(5).uniform(0.3, 1.0, (CLASSES, 3))
    random = np.random.default_rng(seed)
    tint = np.clip(colors[labels] + random.normal(0, 0.2, (len(labels), 3)), 0.1, 1.0)
    return (images * tint[:, None, None, :]).astype(np.uint8)


@functools.cache
def parts() -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    data = open_dataset("builtin:fashion-mnist")
    order = np.random.default_rng(3).permutation(len(data))[: _TRAIN + _TEST]
    labels = np.array([data.label(int(row)) for row in order])
    images = np.stack([data.image(int(row)) for row in order])
    images = tinted(images, labels, seed=4)
    return {
        "train": (images[:_TRAIN], labels[:_TRAIN]),
        "test": (images[_TRAIN:], labels[_TRAIN:]),
    }


@functools.cache
def data() -> Path:
    """The test images as a file."""
    images, labels = parts()["test"]
    path = folder() / "images.npz"
    names = np.array([str(number) for number in range(CLASSES)])
    np.savez(path, images=images, labels=labels, classes=names)
    return path


@functools.cache
def preprocessing() -> Path:
    path = folder() / "pixels.toml"
    path.write_text(PREPROCESSING)
    return path


@functools.cache
def network() -> Network:
    random = np.random.default_rng(0)
    filters = random.normal(0, 0.1, (_FILTERS, 3, _KERNEL, _KERNEL)).astype(np.float32)
    images, labels = parts()["train"]
    empty = Network(filters, np.zeros((0, 0), np.float32), np.zeros(CLASSES, np.float32))
    features = empty.features(normalize(images)).astype(np.float64)
    features = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    ridge = 30.0 * np.eye(features.shape[1])
    targets = np.eye(CLASSES)[labels] * 10
    fitted = np.linalg.solve(features.T @ features + ridge, features.T @ targets)
    return Network(filters, fitted[:-1].astype(np.float32), fitted[-1].astype(np.float32))


def graph(
    net: Network,
    *,
    batch: int | str = "batch",
    softmax: bool = False,
    background: bool = False,
    square: bool = False,
) -> onnx.ModelProto:
    """The network as another tool would write it, without a word on its pixels."""
    weights, bias = net.weights, net.bias
    if background:
        weights = np.concatenate([np.zeros_like(weights[:, :1]), weights], axis=1)
        bias = np.concatenate([[np.float32(-20)], bias])
    tensors = {"filters": net.filters, "weights": weights, "bias": bias.astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["input/pixels:0", "filters"], ["maps"], strides=[STRIDE, STRIDE]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("Flatten", ["active"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["scores"]),
    ]
    last = "scores"
    if softmax:
        nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=1))
        last = "probabilities"
    shape: list[int | str] = [batch, len(bias)]
    if square:
        tensors["shape"] = np.array([-1, 1, 1, len(bias)], np.int64)
        nodes.append(helper.make_node("Reshape", [last, "shape"], ["map"]))
        last, shape = "map", [batch, 1, 1, len(bias)]
    made = helper.make_graph(
        nodes,
        "foreign",
        [
            helper.make_tensor_value_info(
                "input/pixels:0", TensorProto.FLOAT, [batch, 3, SIDE, SIDE]
            )
        ],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(model: onnx.ModelProto, name: str) -> Path:
    path = folder() / name
    onnx.save(model, path)
    return path


@functools.cache
def float_onnx() -> Path:
    return saved(graph(network()), "float.onnx")


def program(source: str, name: str) -> str:
    """The candidate that a script is; its network lies beside it."""
    net = network()
    np.savez(folder() / "network.npz", filters=net.filters, weights=net.weights, bias=net.bias)
    path = folder() / name
    path.write_text(source)
    return f"command:{sys.executable} {path}"

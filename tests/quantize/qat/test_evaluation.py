"""The validation of a quantized network counts as one would by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit.data.arrays import NpzDataset
from edgekit.data.corruption_grid import rotated_severities
from edgekit.data.corruptions import corrupt
from edgekit.data.pool import Pool
from edgekit.graph.view import constants, copied
from edgekit.quantize.qat.evaluation import Validator
from edgekit.quantize.qat.network import Network
from edgekit.training.distributed import World
from edgekit.training.stop_signal import StopSignal
from edgekit.training.views import LoadedViews, Unreadable, View, ViewLoader
from tests import bundles

CORRUPTIONS = ("fog", "contrast")
COUNT = 13  # severities are not met equally often
CPU = torch.device("cpu")


def dataset(folder: Path) -> NpzDataset:
    labels = np.arange(COUNT) % len(bundles.CLASSES)
    arrays: dict[str, Any] = {"test_images": bundles.images(COUNT, seed=3), "test_labels": labels}
    np.savez(folder / "some.npz", classes=np.array(bundles.CLASSES), **arrays)
    return NpzDataset(folder / "some.npz", "some")


def another(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with one convolution's weights changed."""
    changed = copied(graph)
    tensor = constants(changed)["backbone.third.weight"]
    weights = numpy_helper.to_array(tensor)
    noise = np.random.default_rng(0).normal(0, weights.std(), weights.shape)
    tensor.CopyFrom(numpy_helper.from_array((weights + noise).astype(np.float32), tensor.name))
    return changed


def by_hand(network: Network, data: NpzDataset) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether each image is wrong, and its code: clean, then under each corruption."""
    preprocessing = bundles.made().card.preprocessing
    severities = rotated_severities(COUNT, len(CORRUPTIONS))
    wrong = np.empty((COUNT, 1 + len(CORRUPTIONS)), np.bool_)
    codes = np.empty_like(wrong, np.int64)
    for i in range(COUNT):
        clean = preprocessing.fit(data.image(i))
        views = [clean] + [
            corrupt(clean, name, int(severities[i, c]), image_id=data.key(i), seed=0)
            for c, name in enumerate(CORRUPTIONS)
        ]
        with torch.inference_mode():
            output = network(torch.from_numpy(preprocessing.normalize(np.stack(views))))
        assert output.code is not None
        wrong[i] = output.logits.argmax(dim=1).numpy() != data.label(i)
        codes[i] = output.code.numpy()
    return wrong, codes


def corruption_error(wrong: NDArray[np.bool_]) -> float:
    severities = rotated_severities(COUNT, len(CORRUPTIONS))
    return float(
        np.mean(
            [
                np.mean([wrong[severities[:, c] == s, 1 + c].mean() for s in range(1, 6)])
                for c in range(len(CORRUPTIONS))
            ]
        )
    )


def test_a_judgment_is_what_one_counts_by_hand(tmp_path: Path) -> None:
    data, graph = dataset(tmp_path), onnx.load(bundles.made().onnx)
    original, network = Network(graph), Network(another(graph))
    preprocessing = bundles.made().card.preprocessing
    pool: Pool[View, LoadedViews | Unreadable]
    with Pool(data, ViewLoader(preprocessing), 0) as pool, StopSignal() as stop:
        validator = Validator(
            np.arange(COUNT), CORRUPTIONS, preprocessing, pool, original, World(), CPU, stop
        )
        found = validator(network)
        assert validator(network) == found  # with the float model's choices kept
        itself = validator(original)
    (wrong, codes), (float_wrong, float_codes) = by_hand(network, data), by_hand(original, data)
    assert (codes != float_codes).any()
    assert found.images == COUNT
    assert found.clean_error == pytest.approx(wrong[:, 0].mean())
    assert found.float_clean_error == pytest.approx(float_wrong[:, 0].mean())
    assert found.mean_corruption_error == pytest.approx(corruption_error(wrong))
    assert found.float_mean_corruption_error == pytest.approx(corruption_error(float_wrong))
    same = codes == float_codes
    assert found.code_agreement_clean == pytest.approx(same[:, 0].mean())
    assert found.code_agreement_corrupted == pytest.approx(same[:, 1:].mean())
    assert (itself.top1_agreement, itself.code_agreement) == (1, 1)
    assert itself.criterion == (0, 0)

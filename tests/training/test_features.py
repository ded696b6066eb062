"""Cached features of a frozen backbone: whichever engine computes them, they are torch's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.core.console import Console
from edgekit.data.arrays import NpzDataset
from edgekit.data.transforms import Preprocessing
from edgekit.model.backbones.registry import create_backbone
from edgekit.training import feature_cache
from edgekit.training.corruption_schedule import CLEAN, Corruption
from edgekit.training.feature_cache import FeatureCache, FrozenNetwork
from edgekit.training.feature_engine import OpenvinoEngine, agree, translate
from edgekit.training.feature_store import ArrayStore
from edgekit.training.stop_signal import StopSignal
from edgekit.training.views import View
from tests.training.training_data import write_data

CPU = torch.device("cpu")
# Fog makes views differ; the last group is smaller than the others.
VIEWS = [View(row, (Corruption("fog", 3) if row % 2 else CLEAN,)) for row in range(20)]


@pytest.fixture(scope="module")
def network() -> FrozenNetwork:
    torch.manual_seed(0)
    backbone = create_backbone("resnet18").eval()
    return FrozenNetwork(backbone, Preprocessing(size=(32, 32), crop_ratio=1.0), "pooled", CPU)


def features(folder: Path, network: FrozenNetwork) -> ArrayStore:
    dataset = NpzDataset(write_data(folder, train=20), "levels")
    with StopSignal() as stop:
        cache = FeatureCache(folder / "features", dataset, network, workers=0)
        (store,) = cache.stores([VIEWS], "features", Console(verbosity=0), stop)
    return store


def test_openvino_computes_what_torch_would(
    tmp_path: Path, network: FrozenNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = np.arange(len(VIEWS))
    by_torch = features(tmp_path, network).rows(everything)
    monkeypatch.setattr(feature_cache, "_SMALL", len(VIEWS))
    assert isinstance(network.openvino, OpenvinoEngine)
    by_openvino = features(tmp_path, network).rows(everything)
    assert len(list((tmp_path / "features").iterdir())) == 2  # never under one name
    assert not np.array_equal(by_openvino, by_torch)  # it was not torch again
    assert agree(by_torch, by_openvino)
    assert not agree(by_torch, by_torch.astype(np.float16).astype(np.float32))


def test_openvino_that_errs_is_not_used(
    tmp_path: Path,
    network: FrozenNetwork,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    by_torch = features(tmp_path, network).rows(np.arange(len(VIEWS)))
    other = create_backbone("resnet18").eval()  # with other random weights
    wrong = FrozenNetwork(network.backbone, network.preprocessing, "pooled", CPU)
    engine = dataclasses.replace(network.torch, backbone=other)
    wrong.openvino = translate(engine, network.preprocessing.size)
    assert wrong.openvino is not None
    monkeypatch.setattr(feature_cache, "_SMALL", len(VIEWS))
    found = features(tmp_path, wrong).rows(np.arange(len(VIEWS)))
    np.testing.assert_array_equal(found, by_torch)
    assert "OpenVINO's features differ from torch's" in capsys.readouterr().err


def test_a_network_that_openvino_cannot_read(network: FrozenNetwork) -> None:
    class Odd(torch.nn.Module):
        def features(self, images: torch.Tensor, quantize: str) -> torch.Tensor:
            raise RuntimeError("no such operator")

    engine = dataclasses.replace(network.torch, backbone=Odd())  # type: ignore[arg-type]
    assert translate(engine, (32, 32)) is None

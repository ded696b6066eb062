"""A .tflite file says how its integers are meant; LiteRT runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.foreign.open import open_foreign
from tests.foreign import classifiers
from tests.foreign.test_open import options

pytest.importorskip("ai_edge_litert", reason="needs the extra [litert]")


@pytest.mark.parametrize("integers", [False, True])
def test_it_answers_as_the_network_that_it_holds(tmp_path: Path, integers: bool) -> None:
    from tests.foreign.tflite import save_tflite

    network = classifiers.network()
    path = save_tflite(network, tmp_path / "net.tflite", integers=integers)
    model = open_foreign(str(path), options())
    images, _ = classifiers.parts()["test"]
    found, expected = model.run(images[:60]).logits, network.logits(images[:60])
    assert "LiteRT" in model.describe()
    assert ("NHWC uint8, 0.02 x (q - 100)" in model.describe()) == integers
    if integers:
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.95
        assert np.abs(found - expected).mean() < 0.3
    else:
        assert np.allclose(found, expected, atol=1e-3)

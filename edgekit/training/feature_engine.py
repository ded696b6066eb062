"""What computes the features of a frozen backbone: torch, or OpenVINO where it agrees with torch.

On a CPU OpenVINO takes about half of torch's processor time for the same float32 network. torch is
trusted: it computes a share of all features as well, and all of them where the two differ by more
than rounding (`edgekit.training.feature_cache`).
"""

from __future__ import annotations

import importlib.util
import io
import tempfile
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgekit.training.feature_store import Floats

if TYPE_CHECKING:  # workers that run OpenVINO do without torch, which takes seconds to import
    import torch

    from edgekit.model.backbones.base import Backbone
    from edgekit.model.config import Quantize

AGREE = 1e-4
"""Largest difference that counts as rounding, relative to the largest value of the group.

Rounding makes it about 3e-6; features in half precision would differ by 1e-3.
"""


class FeatureEngine(Protocol):
    """Computes features; a worker process gets a pickled copy."""

    def __call__(self, images: Floats) -> Floats:
        """Normalized images [B, 3, H, W] to features [B, D] or [B, P, D]."""


@dataclass(frozen=True, eq=False)
class TorchEngine:
    """The backbone itself."""

    backbone: Backbone
    quantize: Quantize
    device: torch.device

    def __call__(self, images: Floats) -> Floats:
        """As `FeatureEngine`, on a CPU in one thread.

        Many processes of one thread scale better than many threads in one, which spin while they
        wait, and round the same for any number of either.
        """
        import torch

        threads = torch.get_num_threads()
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                pixels = torch.from_numpy(images).to(self.device)
                features = self.backbone.features(
                    pixels.contiguous(memory_format=torch.channels_last), self.quantize
                )
                array: Floats = features.float().cpu().numpy()
            return array
        finally:
            torch.set_num_threads(threads)


@dataclass(frozen=True, eq=False)
class OpenvinoEngine:
    """A backbone that `translate` made readable for OpenVINO."""

    topology: bytes
    weights: bytes

    def __call__(self, images: Floats) -> Floats:
        """As `FeatureEngine`, in one thread."""
        self._request.start_async({0: images})
        self._request.wait()  # with one thread, infer() loses errors
        return np.array(self._request.get_output_tensor(0).data)

    @cached_property
    def _request(self) -> Any:
        """Compiled at first use, which is in the process that computes."""
        from edgekit.runtime.openvino_core import shared_core

        core = shared_core()
        with tempfile.TemporaryDirectory(prefix="edgekit-features-") as folder:
            path = Path(folder) / "backbone.xml"
            path.write_bytes(self.topology)
            path.with_suffix(".bin").write_bytes(self.weights)
            model = core.read_model(path)
        settings = {
            "INFERENCE_NUM_THREADS": "1",
            "NUM_STREAMS": "1",
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": "NO",  # it would put all workers on the first core
        }
        return core.compile_model(model, "CPU", settings).create_infer_request()


def translate(engine: TorchEngine, size: tuple[int, int]) -> OpenvinoEngine | None:
    """The same network for OpenVINO; None without OpenVINO, or if it cannot read the network."""
    if importlib.util.find_spec("openvino") is None:
        return None
    import openvino as ov
    import torch

    class Features(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = engine.backbone

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.backbone.features(images, engine.quantize)

    shape = (-1, 3, *size)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.inference_mode():
            warnings.simplefilter("ignore")  # of tracing: it fixes paddings, as the size is
            model = ov.convert_model(
                Features().eval(), example_input=torch.zeros(2, *shape[1:]), input=[shape]
            )
        with tempfile.TemporaryDirectory(prefix="edgekit-features-") as folder:
            path = Path(folder) / "backbone.xml"
            ov.save_model(model, path, compress_to_fp16=False)
            return OpenvinoEngine(path.read_bytes(), path.with_suffix(".bin").read_bytes())
    except Exception:  # noqa: BLE001 - a network of somebody's own may raise anything
        return None


def agree(trusted: Floats, other: Floats) -> bool:
    """Whether two engines' features of a group differ by rounding alone."""
    if trusted.shape != other.shape or not np.isfinite(trusted).all():
        return False
    scale = float(np.abs(trusted).max(initial=0))
    return bool((np.abs(trusted - other) <= AGREE * scale).all())

"""Dialects: what a runtime's INT8 graph may contain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import nearest


@dataclass(frozen=True)
class Dialect:
    """What calibration and legalization need to know about a runtime."""

    name: str
    # CPUs without VNNI add pairs of u8 x s8 products in 16 bits, which saturate: weights may then
    # use only half their range.
    saturates: bool = False
    # OpenVINO can lose the scale of 8-bit weights whose convolution reads floats.
    drops_scales: bool = False
    # One scale per activation: NNCF gives the input of a depthwise convolution one per channel,
    # which TensorRT does not build and ONNX Runtime does not run.
    scalar_activations: bool = False
    # TensorRT: int8 with zero-point 0 only, no Q/DQ between a convolution and its addition, and
    # Q/DQ on both sides of a pooling.
    signed_only: bool = False
    fuses_additions: bool = False
    pools_in_int8: bool = False

    @property
    def rewrites(self) -> bool:
        """Whether a calibrated graph must be changed to be legal."""
        return (
            self.signed_only
            or self.scalar_activations
            or self.fuses_additions
            or self.pools_in_int8
        )


DIALECTS: dict[str, Dialect] = {
    "openvino": Dialect("openvino", drops_scales=True),
    "openvino-novnni": Dialect("openvino-novnni", saturates=True, drops_scales=True),
    "onnxruntime": Dialect("onnxruntime", scalar_activations=True),
    "tensorrt": Dialect(
        "tensorrt",
        signed_only=True,
        scalar_activations=True,
        fuses_additions=True,
        pools_in_int8=True,
    ),
}

DEFAULT_DIALECT: Final = "openvino"  # if a graph is requested without a target


def find_dialect(name: str) -> Dialect:
    """A dialect by name."""
    if name not in DIALECTS:
        raise UsageError(f"unknown dialect '{name}'{nearest(name, list(DIALECTS))}")
    return DIALECTS[name]

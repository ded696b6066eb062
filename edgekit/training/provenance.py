"""What a cached result depends on besides its inputs: our code, the libraries, the arithmetic."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.host import cpu_flags

if TYPE_CHECKING:  # a finished build must be recognized without torch, so nothing here imports it
    from torch import nn

_PACKAGE = Path(__file__).resolve().parents[1]
# Files whose code determines a feature, and those that determine the weights trained on them.
_FEATURE_CODE = (
    "data/*.py",
    "data/corruptions/*.py",
    "data/builtin/__init__.py",
    "model/backbones/*.py",
    "training/feature_cache.py",
    "training/feature_engine.py",
    "training/featurize.py",
    "training/views.py",
)
_TRAINING_CODE = (
    *_FEATURE_CODE,
    "core/progress.py",
    "model/config.py",
    "model/codebook.py",
    "model/vqsa.py",
    "training/*.py",
    "training/methods/*.py",
)
_LIBRARIES = ("torch", "numpy", "pillow", "opencv-python-headless", "scipy", "timm", "openvino")


def feature_provenance() -> dict[str, str]:
    """Everything that determines a cached feature besides image, corruption and weights."""
    # Other vector units round differently; these are the ones that torch dispatches on.
    cpu = " ".join(sorted(cpu_flags() & {"avx2", "fma", "avx512f", "asimd", "sve"}))
    return {"code": _code_hash(_FEATURE_CODE), **library_versions(), "cpu": cpu}


def training_provenance(threads: int) -> dict[str, str]:
    """Everything that determines trained weights besides settings and data.

    The number of threads matters: another number adds in another order.
    """
    code = {"code": _code_hash(_TRAINING_CODE)}
    return {**feature_provenance(), **code, "threads": str(threads)}


@functools.cache
def library_versions() -> dict[str, str]:
    """The installed versions of the libraries that compute pixels and weights."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "none"
    return versions


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all of a module's tensors and their names."""
    total = hashlib.sha256(type(module).__name__.encode())
    for name, tensor in module.state_dict().items():
        array = tensor.detach().cpu().contiguous().numpy()
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(array.data)
    return total.hexdigest()


def digest_of(values: Mapping[str, str]) -> str:
    """SHA-256 of names and values."""
    text = "\n".join(f"{name}={value}" for name, value in sorted(values.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _code_hash(patterns: tuple[str, ...]) -> str:
    files = sorted({path for pattern in patterns for path in _PACKAGE.glob(pattern)})
    total = hashlib.sha256()
    for path in files:
        total.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\n")
        total.update(path.read_bytes())
    return total.hexdigest()

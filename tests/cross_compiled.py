"""A checkout in which `make arm-plugin` ran, or never ran, whatever happened in this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.core.host import host_arch
from edgekit.native import openvino_extension
from edgekit.native.openvino_extension import extension_path

only_on_x86 = pytest.mark.skipif(host_arch() != "x86_64", reason="aarch64 is not another processor")
_MACHINE, _AARCH64 = 18, 0xB7  # in ELF's header


def compile_for_arm(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """An extension for aarch64: ours, by its header alone. `make test-arm` runs a real one."""
    content = bytearray(extension_path().read_bytes())
    content[_MACHINE] = _AARCH64
    path = folder / extension_path().name
    path.write_bytes(content)
    _patch(path, patch)
    return path


def compile_nothing(patch: pytest.MonkeyPatch) -> None:
    """No extension but this machine's."""
    _patch(None, patch)


def _patch(there: Path | None, patch: pytest.MonkeyPatch) -> None:
    here = extension_path()
    patch.setattr(openvino_extension, "checkout", lambda: None)
    patch.setattr(
        openvino_extension, "find_resource", lambda name: there if "aarch64" in name else here
    )

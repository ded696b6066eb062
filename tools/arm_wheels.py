"""Packages for 64-bit ARM in the releases that this machine has; OpenVINO's to compile against.

    python -m tools.arm_wheels FOLDER        unpacks it; then OpenVINO_DIR is FOLDER/openvino/cmake

Nothing of them runs here. A release of OpenVINO has one ABI per processor: headers and libraries
must be those of the device.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

# Up to the glibc of Debian 12 and Raspberry Pi OS, as pip's option wants them: each by its name.
_PLATFORMS: Final = (
    *("manylinux_2_35_aarch64", "manylinux_2_28_aarch64", "manylinux_2_27_aarch64"),
    *("manylinux_2_17_aarch64", "manylinux2014_aarch64"),
)


def pins(names: Sequence[str]) -> list[str]:
    """This machine's releases: what differs between the two is then the processor alone."""
    return [f"{name}=={metadata.version(name)}" for name in names]


def download(folder: Path, names: Sequence[str], *, requirements: bool = True) -> None:
    """Wheels for Python 3.11 on ARM into ``folder``, with all that they require or without."""
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    folder.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--only-binary=:all:", "--python-version", "3.11", *platforms, "--dest", folder),
        *(() if requirements else ("--no-deps",)),
        *pins(names),
    ]
    subprocess.run(command, check=True)


def unpack(folder: Path) -> None:
    """OpenVINO's wheel in ``folder``, unless this very release is there."""
    if (folder / f"openvino-{metadata.version('openvino')}.dist-info").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".openvino-") as scratch:
        download(Path(scratch), ["openvino"], requirements=False)
        (wheel,) = Path(scratch).glob("*.whl")
        whole = Path(scratch) / "whole"
        zipfile.ZipFile(wheel).extractall(whole)
        whole.rename(folder)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))

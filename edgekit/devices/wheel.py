"""edgekit's own Python files as a wheel, made from the installed package for a device.

Pure Python: a bundle carries the compiled code it needs, and this machine's would not run on
another architecture. The same sources give the same bytes; the version contains their hash, so
pip replaces a wheel of other sources.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import edgekit
from edgekit.core.errors import EdgekitError
from edgekit.core.resources import resource

_DESCRIPTORS: Final = "targets/devices"
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_ENTRY_POINTS: Final = "[console_scripts]\nedgekit = edgekit.cli.main:main\n"
_WHEEL: Final = "Wheel-Version: 1.0\nGenerator: edgekit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(frozen=True)
class Wheel:
    """A wheel in memory."""

    name: str
    data: bytes
    sha256: str


@functools.cache  # a running process keeps the sources it started with
def runtime_wheel() -> Wheel:
    """The installed edgekit without its compiled libraries and data sets."""
    contents = _contents()
    total = hashlib.sha256()
    for name, data in sorted(contents.items()):
        total.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
    total.update("\n".join(_requirements()).encode())
    version = f"{edgekit.__version__}+device.{total.hexdigest()[:12]}"
    info = f"edgekit-{version}.dist-info"
    contents[f"{info}/METADATA"] = _metadata(version)
    contents[f"{info}/WHEEL"] = _WHEEL.encode()
    contents[f"{info}/entry_points.txt"] = _ENTRY_POINTS.encode()
    record = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in contents.items()]
    record.append(f"{info}/RECORD,,")
    contents[f"{info}/RECORD"] = ("\n".join(record) + "\n").encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in contents.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            target.writestr(entry, data, zipfile.ZIP_DEFLATED)
    data = buffer.getvalue()
    return Wheel(f"edgekit-{version}-py3-none-any.whl", data, hashlib.sha256(data).hexdigest())


def _contents() -> dict[str, bytes]:
    package = Path(edgekit.__file__).parent
    files = {
        f"edgekit/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*.py"))
    }
    for path in sorted(resource(_DESCRIPTORS).glob("*.toml")):
        files[f"edgekit/{_DESCRIPTORS}/{path.name}"] = path.read_bytes()
    return files


def _requirements() -> list[str]:
    """Requirements of the base install, without extras."""
    try:
        requirements = metadata.requires("edgekit") or []
    except metadata.PackageNotFoundError as error:
        raise EdgekitError(
            "edgekit runs from its sources and is not installed: run 'pip install .' in its folder"
        ) from error
    return sorted(text for text in requirements if not re.search(r";.*\bextra\s*==", text))


def _metadata(version: str) -> bytes:
    lines = ["Metadata-Version: 2.1", "Name: edgekit", f"Version: {version}"]
    lines += ["Requires-Python: >=3.10", "License: Apache-2.0"]
    lines += [f"Requires-Dist: {requirement}" for requirement in _requirements()]
    return ("\n".join(lines) + "\n").encode()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()

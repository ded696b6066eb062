"""Our OpenVINO operators (`targets/openvino`): their file, the release they need, a check of them.

In plain OpenVINO:

    core = openvino.Core()
    core.add_extension(edgekit.extension_path())

An extension loads only into the OpenVINO release it was compiled for; every question here is
answered without importing OpenVINO.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from importlib import metadata
from pathlib import Path
from typing import Final

from edgekit.core.errors import EdgekitError, ToolchainMissing
from edgekit.core.host import host_arch
from edgekit.core.packages import checkout, install_command
from edgekit.core.resources import find_resource

_LIBRARY: Final = "libedgekit_openvino.so"
# What `make` calls the extension for a processor other than this machine's.
_CROSS_COMPILED: Final = {"aarch64": "make arm-plugin"}
# In the library, each is followed by its value and a semicolon.
_MARK: Final = b"EDGEKIT_EXTENSION_FOR_OPENVINO="
_OPERATORS_MARK: Final = b"EDGEKIT_EXTENSION_OPERATORS="


def extension_path() -> Path:
    """The path of the compiled extension; an error unless it fits the installed OpenVINO."""
    path = find_resource(f"_native/{_LIBRARY}")
    if path is None:
        raise ToolchainMissing(
            "this edgekit was built without its OpenVINO extension: run 'pip install "
            "--force-reinstall --no-deps .' in edgekit's folder (it needs g++ and fetches the "
            "openvino package to compile against)"
        )
    check_release(path)
    return path


def extension_for(arch: str) -> Path:
    """The extension for bundles of an architecture: `extension_path`, or a cross-compiled one."""
    if arch in ("any", "host", host_arch()):
        return extension_path()
    command = _CROSS_COMPILED.get(arch)
    if command is None:
        raise ToolchainMissing(
            f"edgekit's OpenVINO extension for {arch} is compiled there: build the bundle on such "
            "a machine"
        )
    name, folder = f"_native/{arch}/{_LIBRARY}", checkout()
    path = find_resource(name)
    if path is None and folder is not None and (folder / "edgekit" / name).exists():
        path = folder / "edgekit" / name  # installed from there before it was compiled
    if path is None:
        raise ToolchainMissing(
            f"edgekit's OpenVINO extension is not compiled for {arch}: run '{command}' in "
            f"{folder or 'the checkout that edgekit is installed from'}"
        )
    check_release(path, f"run '{command}' again")
    return path


def built_for(path: Path) -> str:
    """The OpenVINO release that the extension at ``path`` needs, such as ``"2026.4.1"``."""
    release = _text_after(path, _MARK)
    if release is None:
        raise EdgekitError(f"{path} is not edgekit's OpenVINO extension")
    return release


def operators(path: Path) -> tuple[str, ...]:
    """The operators in the extension at ``path``; empty if it is too old to list them."""
    listed = _text_after(path, _OPERATORS_MARK)
    return () if listed is None else tuple(listed.split(","))


def _text_after(path: Path, mark: bytes) -> str | None:
    """The text in the file between ``mark`` and the next semicolon."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EdgekitError(f"cannot read the extension {path}: {error.strerror}") from error
    start = data.find(mark) + len(mark)
    end = data.find(b";", start)
    if start < len(mark) or end < 0:
        return None
    return data[start:end].decode("ascii", errors="replace")


def check_release(path: Path, remedy: str = "") -> None:
    """Refuse an extension that was built for another OpenVINO than the installed package.

    Loading it would fail as well, but with a message about a missing library. An OpenVINO that is
    not a Python package is not checked here. ``remedy``: instead of installing what it needs.
    """
    installed = openvino_release()
    needed = built_for(path)
    if installed is not None and installed != needed:
        raise ToolchainMissing(
            f"{path.name} was built for OpenVINO {needed}, but {installed} is installed: "
            + (remedy or f"run 'pip install openvino=={needed}'")
        )


def openvino_release() -> str | None:
    """The installed package's release, without any pre-release suffix; None if there is none."""
    try:
        version = metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return None
    match = re.match(r"\d+\.\d+\.\d+", version)
    return match[0] if match else version


def check_extension() -> str:
    """Load the extension into OpenVINO, run one lookup on the CPU device, and describe the result.

    Loads OpenVINO's libraries but not its Python package, which alone takes longer than this.
    Raises `ToolchainMissing`, with what to do about it, if something is missing.
    """
    path = extension_path()
    folder = _openvino_libraries()
    try:
        # The extension expects OpenVINO in the process, as it is when OpenVINO loads it.
        for library in sorted(folder.glob("libopenvino.so.*")):
            ctypes.CDLL(str(library))
        extension = ctypes.CDLL(str(path))
    except OSError as error:
        raise ToolchainMissing(
            f"{path} does not load ({error}): run 'pip install --force-reinstall --no-deps .' in "
            "edgekit's folder"
        ) from error
    selftest = extension.edgekit_openvino_selftest
    selftest.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    selftest.restype = ctypes.c_int
    message = ctypes.create_string_buffer(1000)
    if not selftest(message, len(message)):
        reason = " ".join(message.value.decode(errors="replace").split())
        raise EdgekitError(f"the OpenVINO extension does not work: {reason}")
    return f"loaded into OpenVINO {built_for(path)}, lookup correct"


def _openvino_libraries() -> Path:
    spec = importlib.util.find_spec("openvino")
    if spec is None or not spec.submodule_search_locations:
        raise ToolchainMissing(f"OpenVINO is not installed: run {install_command('openvino')}")
    return Path(spec.submodule_search_locations[0]) / "libs"

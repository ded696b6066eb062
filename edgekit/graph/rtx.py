"""Checks whether TensorRT-RTX parses and builds an ONNX file, which takes no GPU.

TensorRT-RTX is TensorRT's sibling for desktop GPUs: its parser and builder are real evidence that
a graph and a plugin are well-formed, but say nothing about a Jetson.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.graph.findings import RtxReport

LABEL: Final = "TensorRT-RTX parser/builder check, not a Jetson measurement"
_INSTALL: Final = (
    "pip install --no-deps tensorrt-rtx-cu13-libs==1.7.1.116 tensorrt-rtx-cu13-bindings==1.7.1.116"
)
# Part of TensorRT's message -> what it means for one of our files.
_EXPLAINED: Final = (
    (
        "shiftIsAllZeros",
        "a Q/DQ node has a zero-point other than 0: 'edgekit check --dialect tensorrt' names it, "
        "and calibrating with preset = 'performance' avoids it",
    ),
    (
        "Plugin not found",
        "the lookup has no body and no plugin is loaded: give --plugin libedgekit_tensorrt.so, or "
        "export with '--vq function' or '--vq inline'",
    ),
    (
        "Could not create the plugin",
        "the plugin refuses the node's attributes: metric must be 'dot' or 'l2', margin 0 or 1; "
        "'edgekit export' writes a node that fits",
    ),
    (
        "the parsed type is int32 which does not match the ONNX specification type int64",
        "a plugin returns int32 where the file declares int64: load this edgekit's "
        "libedgekit_tensorrt.so, whose indices are int64",
    ),
)


def check_with_rtx(path: Path, plugin: Path | None = None, timeout: float = 600) -> RtxReport:
    """Parse and build ``path`` in a subprocess; ``timeout`` in seconds."""
    for file in (path, plugin):
        if file is not None and not file.is_file():
            raise UsageError(f"cannot read {file}: no such file")
    libraries = _libraries()
    command = [sys.executable, "-m", "edgekit.graph.rtx_probe", str(path.resolve())]
    command += [str(plugin.resolve())] if plugin is not None else []
    with tempfile.TemporaryDirectory(prefix="edgekit-rtx-") as folder:
        # The plugin registry opens the library by this name, which the wheel lacks, and ends the
        # process if it cannot.
        (Path(folder) / "libtensorrt_rtx.so").symlink_to(libraries / "libtensorrt_rtx.so.1")
        search_path = os.environ.get("LD_LIBRARY_PATH")
        search = folder if not search_path else f"{folder}:{search_path}"
        try:
            run = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=timeout,
                env={**os.environ, "LD_LIBRARY_PATH": search},
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise EdgekitError(
                f"TensorRT-RTX did not finish {path} in {timeout:g} s: try a smaller model"
            ) from error
    return _report(run, path)


def _libraries() -> Path:
    for package in ("tensorrt_rtx_libs", "tensorrt_rtx_bindings"):
        package_spec = importlib.util.find_spec(package)
        if package_spec is None or not package_spec.submodule_search_locations:
            raise ToolchainMissing(f"TensorRT-RTX is not installed: run {_INSTALL}")
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _report(run: subprocess.CompletedProcess[str], path: Path) -> RtxReport:
    lines = run.stdout.strip().splitlines()
    if run.returncode != 0 or not lines:
        last_line = (run.stderr.strip().splitlines() or ["no output"])[-1]
        raise EdgekitError(
            f"TensorRT-RTX ended abnormally on {path} ({run.returncode}): {last_line}"
        )
    result = json.loads(lines[-1])
    raw = result["errors"][0] if result["errors"] else ""
    built = bool(result.get("built"))
    return RtxReport(
        label=LABEL,
        version=f"TensorRT-RTX {result['version']}",
        parsed=result["parsed"],
        built=built,
        plugin_layers=result.get("plugin_layers", 0),
        engine_bytes=result.get("engine_bytes", 0),
        seconds=result.get("parse_seconds", 0.0) + result.get("build_seconds", 0.0),
        problem="" if built else _explain(result["errors"]),
        raw=raw,
    )


def _explain(errors: list[str]) -> str:
    text = " ".join(errors)
    for part, meaning in _EXPLAINED:
        if part in text:
            return meaning
    # TensorRT surrounds the reason with lines about its location.
    reasons = [error.split("ERROR:")[-1].strip() for error in errors if "ERROR:" in error]
    return (reasons or errors or ["no reason was given"])[0]

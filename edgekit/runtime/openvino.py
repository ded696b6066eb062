"""Runs bundles with OpenVINO: loads a bundle's IR and runs it, from any number of threads.

The precision of float operations is always set: by default, CPUs with bfloat16 compute in it, and
an imported blob falls back to that default whatever it was compiled with.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from edgekit.bundle.store import Bundle
from edgekit.core.errors import EdgekitError
from edgekit.core.files import write_bytes
from edgekit.core.host import cpu_flags, runtime_threads
from edgekit.runtime.answers import Answers, in_chunks
from edgekit.runtime.openvino_core import shared_core
from edgekit.runtime.openvino_devices import check_device, device_settings, execution_devices
from edgekit.runtime.openvino_requests import InferRequests, reason
from edgekit.runtime.runner import RunSettings

_DIGEST_BYTES: Final = 32
_MOST_BLOBS: Final = 8


def runtime_version() -> str:
    """The release, as in ``2026.4.1``."""
    version: str = ov.get_version()
    return version.split("-")[0]


def open_runner(bundle: Bundle, settings: RunSettings, cache: Path | None) -> OpenVinoRunner:
    """Compile the model for this machine, or take it from the ``cache`` folder."""
    device = bundle.manifest.target.openvino_device
    try:
        core = shared_core(bundle.plugins())
        check_device(core, device, str(bundle.path), allow_fallback=True)
        config = model_config(settings, device) | device_settings(core, device)
        compiled = None
        # Other devices' blobs depend on their drivers, which no key here knows.
        entry = (
            None
            if cache is None or device != "CPU"
            else cache / f"{_key(bundle, settings, config)}.blob"
        )
        if entry is not None:
            compiled = _import_blob(core, entry, config)
        if compiled is None:
            main = bundle.folder / bundle.manifest.main
            model = core.read_model(str(main))
            if settings.batch:
                size = bundle.manifest.input
                model.reshape({0: [settings.batch, size.height, size.width, 3]})
            compiled = core.compile_model(model, device, config)
            if entry is not None:
                _export_blob(compiled, entry)
        return OpenVinoRunner(core, compiled, settings.batch, config)
    except RuntimeError as error:
        raise EdgekitError(f"OpenVINO cannot load {bundle.path}: {reason(error)}") from error


class OpenVinoRunner:
    """A compiled model and its infer requests; a call takes one or waits for one."""

    def __init__(self, core: Any, compiled: Any, batch: int, config: Mapping[str, object]) -> None:
        self._core = core  # owns the plugin's library
        self._compiled = compiled
        self._batch = batch
        self._config = config
        self._requests = InferRequests(compiled)
        self.parallel = self._requests.parallel
        names = [output.get_any_name() for output in compiled.outputs]
        self._outputs = {
            name: names.index(name) for name in ("logits", "code", "margin") if name in names
        }

    def run(self, batch: NDArray[np.uint8]) -> Answers:
        """Images RGB, uint8 [B, height, width, 3], of the model's size; any B."""
        return in_chunks(self._infer, batch, self._batch)

    def describe(self) -> dict[str, str | int]:
        """What OpenVINO actually uses."""
        config = self._config
        return {
            "runtime": f"openvino {runtime_version()}",
            "device": " and ".join(execution_devices(self._compiled)),
            "inference_precision": self._property("INFERENCE_PRECISION_HINT", config),
            "hint": self._property("PERFORMANCE_HINT", config).rpartition(".")[2].lower(),
            "threads": int(self._property("INFERENCE_NUM_THREADS", config)),
            "streams": int(self._property("NUM_STREAMS", {"NUM_STREAMS": self.parallel})),
            "batch": self._batch,
        }

    def _property(self, name: str, otherwise: Mapping[str, object]) -> str:
        """What OpenVINO says; AUTO and devices that know no such property leave what was asked."""
        try:
            value = self._compiled.get_property(name)
        except RuntimeError:
            return str(otherwise.get(name, 0))
        return str(value.to_string() if hasattr(value, "to_string") else value)

    def _infer(self, images: NDArray[np.uint8]) -> Answers:
        """One inference of at most the compiled batch, padded with zeros."""
        count = len(images)
        if self._batch and count < self._batch:
            filler = np.zeros((self._batch - count, *images.shape[1:]), np.uint8)
            images = np.concatenate([images, filler])

        def read(request: Any) -> Answers:
            outputs = {
                name: request.get_output_tensor(index).data[:count].copy()
                for name, index in self._outputs.items()
            }
            return Answers.of(outputs, request.latency / 1e3)

        return self._requests.infer(images, read)


def model_config(settings: RunSettings, device: str = "CPU") -> dict[str, str | int]:
    """OpenVINO's configuration, for compiling and again for importing."""
    config: dict[str, str | int] = {
        "INFERENCE_PRECISION_HINT": settings.inference_precision,
        "PERFORMANCE_HINT": settings.hint.upper(),
    }
    if device != "CPU":  # threads and streams are the CPU's
        return config
    if threads := runtime_threads(settings.threads):
        config["INFERENCE_NUM_THREADS"] = threads
    if settings.streams:
        config["NUM_STREAMS"] = settings.streams
    return config


def _key(bundle: Bundle, settings: RunSettings, config: dict[str, str | int]) -> str:
    """A hash of everything that a blob depends on."""
    parts = [
        bundle.manifest.identity(),
        ov.get_version(),
        sorted(cpu_flags()),
        settings.batch,
        config,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def _import_blob(core: Any, entry: Path, config: dict[str, str | int]) -> Any | None:
    """The compiled model in ``entry``; None if it is missing or damaged."""
    try:
        data = entry.read_bytes()
    except OSError:
        return None
    blob = data[_DIGEST_BYTES:]
    if hashlib.sha256(blob).digest() != data[:_DIGEST_BYTES]:
        return None
    try:
        compiled = core.import_model(
            blob, "CPU", config
        )  # importing drops the precision, so it is given again
    except RuntimeError:
        return None
    with contextlib.suppress(OSError):
        entry.touch()
    return compiled


def _export_blob(compiled: Any, entry: Path) -> None:
    """Cache the compiled model; a cache that cannot be written only costs time."""
    stream = io.BytesIO()
    compiled.export_model(stream)
    blob = stream.getvalue()
    try:
        write_bytes(entry, hashlib.sha256(blob).digest() + blob)
    except EdgekitError:
        return
    with contextlib.suppress(OSError):  # another process may be cleaning up at the same time
        newest = sorted(entry.parent.glob("*.blob"), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in newest[_MOST_BLOBS:]:
            old.unlink()

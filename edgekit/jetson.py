"""What a TensorRT bundle carries so that its engine can be built on the device, and the rest of it.

An engine fits one GPU and one TensorRT release, so the host prepares everything else: the graph,
the plugin's source, a script that builds on the device, and a self-test with expected outputs.
Imports nothing heavy: `adopt_engine` and `self_test` run on the device.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import shlex
import tarfile
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import Bundle, elf_arch, open_bundle, write_bundle
from edgekit.descriptors import Descriptor, host_arch
from edgekit.errors import EdgekitError, UsageError
from edgekit.files import file_sha256, write_bytes, write_text
from edgekit.manifest import LABELS, Manifest, RuntimeNeed
from edgekit.resources import resource
from edgekit.tensorrt_facts import L4T, TensorRTFacts, version

MODEL: Final = "model.onnx"
ENGINE: Final = "engine.plan"
PLUGIN: Final = "libedgekit_tensorrt.so"
PLUGIN_SOURCE: Final = "plugin-source.tar.gz"
SCRIPT: Final = "build_on_device.sh"
SELFTEST: Final = "selftest.npz"
PENDING: Final = "pending: build on device"
"""The manifest's section ``engine`` until there is one."""

_PLUGIN_SYMBOLS: Final = (b"getCreators\0", b"edgekit_tensorrt_built_with\0")
_SOURCE_FOLDERS: Final = ("targets/tensorrt", "targets/codebook/cuda")
_SOURCE_SUFFIXES: Final = frozenset({".cpp", ".h", ".cu", ".txt", ".map", ".cmake"})
# Two implementations of the same INT8 graph round differently here and there; a wrong graph
# differs by about 1.
_LOGITS_TOLERANCE: Final = 0.1
_FREE_BATCH: Final = (1, 8, 32)  # least, typical and greatest batch where any is allowed


@dataclass(frozen=True)
class SelfTestReport:
    """How the device's answers compare with the host's."""

    images: int
    logits_error: float  # largest difference over the largest magnitude
    top1_equal: int
    codes: int
    codes_equal: int

    @property
    def passed(self) -> bool:
        """Whether engine and host compute the same up to the rounding of INT8."""
        return self.logits_error <= _LOGITS_TOLERANCE

    def describe(self) -> str:
        """One line for the user."""
        text = (
            f"self-test of {self.images} images: logits differ by {self.logits_error:.2%} of "
            f"their largest, top-1 equal in {self.top1_equal}"
        )
        return text + (f", {self.codes_equal} of {self.codes} codes equal" if self.codes else "")


def write_device_build(
    folder: Path, descriptor: Descriptor, *, size: tuple[int, int], plugin: bool
) -> tuple[Path, ...]:
    """Write what builds the engine of ``folder``'s model.onnx on the device; the files' paths.

    ``size`` is the (height, width) of the model's images; with ``plugin`` the graph's lookup needs
    our plugin, whose source is packed as well.
    """
    facts = _facts(descriptor)
    written = [folder / SCRIPT]
    write_text(folder / SCRIPT, build_script(folder / MODEL, descriptor, size=size, plugin=plugin))
    if plugin:
        if not facts.has_plugins:
            raise UsageError(
                f"target {descriptor.name} has TensorRT {facts.tensorrt}, plugins need 10.0: use "
                "lookup 'inline'"
            )
        write_bytes(folder / PLUGIN_SOURCE, plugin_source())
        written.append(folder / PLUGIN_SOURCE)
    return tuple(written)


def carry_plugin(
    folder: Path, library: Path, descriptor: Descriptor, *, size: tuple[int, int]
) -> Path:
    """Put a plugin that was compiled already into ``folder``, so that the device needs no compiler.

    ``folder`` is what `write_device_build` wrote to; its script is written anew.
    """
    try:
        data = library.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read plugin {library}: {error.strerror}") from error
    arch = elf_arch(data, str(library))
    if descriptor.arch not in ("any", arch):
        raise UsageError(
            f"plugin {library} is for {arch}, target {descriptor.name} is {descriptor.arch}"
        )
    if not all(name in data for name in _PLUGIN_SYMBOLS):
        raise UsageError(
            f"{library} is not edgekit's TensorRT plugin: build it from targets/tensorrt, or leave "
            "--plugin out"
        )
    if not (folder / PLUGIN_SOURCE).exists():
        raise UsageError(
            f"target {descriptor.name} needs no plugin for this model: leave --plugin out"
        )
    write_bytes(folder / PLUGIN, data)
    script = build_script(folder / MODEL, descriptor, size=size, plugin=True, compiled=data)
    write_text(folder / SCRIPT, script)
    return folder / PLUGIN


def build_script(
    model: Path,
    descriptor: Descriptor,
    *,
    size: tuple[int, int],
    plugin: bool,
    compiled: bytes = b"",
) -> str:
    """The text of ``build_on_device.sh``; ``compiled`` is the plugin where the bundle has it."""
    facts = _facts(descriptor)
    height, width = size
    batches = (descriptor.batch,) * 3 if descriptor.batch else _FREE_BATCH
    shapes = [f"{batch}x{height}x{width}x3" for batch in batches]
    template = Template(resource("targets/tensorrt/build_on_device.sh.in").read_text("utf-8"))
    release = L4T[version(facts.jetpack)[0]] if facts.jetpack else ""
    return template.substitute(
        target=descriptor.name,
        title=descriptor.title,
        arch=descriptor.arch,
        jetpack=shlex.quote(facts.jetpack),
        l4t=release,
        oldest=facts.tensorrt,
        before=facts.before,
        cuda_package=".".join(facts.cuda.split(".")[:2]).replace(".", "-"),
        architectures=";".join(map(str, facts.sm)),
        trtexec=facts.trtexec,
        model_sha256=file_sha256(model),
        plugin_source=PLUGIN_SOURCE if plugin else "",
        plugin_sha256=hashlib.sha256(compiled).hexdigest() if compiled else "",
        least=shapes[0],
        typical=shapes[1],
        greatest=shapes[2],
    )


def plugin_source() -> bytes:
    """The plugin's source tree as a .tar.gz; the same sources give the same bytes."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for folder in _SOURCE_FOLDERS:
            root = resource(folder)
            for path in sorted(root.rglob("*")):
                if path.suffix not in _SOURCE_SUFFIXES or not path.is_file():
                    continue
                info = tarfile.TarInfo(f"{folder}/{path.relative_to(root).as_posix()}")
                data = path.read_bytes()
                info.size, info.mode = len(data), 0o644
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_self_test(
    path: Path, images: NDArray[np.uint8], outputs: dict[str, NDArray[np.generic]]
) -> None:
    """Store ``images`` [M, height, width, 3] and the outputs that the device is to give."""
    write_bytes(path, self_test_file(images, outputs))


def self_test_file(images: NDArray[np.uint8], outputs: dict[str, NDArray[Any]]) -> bytes:
    """The content of ``selftest.npz``; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"images": images, **outputs}
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def adopt_engine(path: Path, engine: Path, tensorrt: str, plugin: Path | None = None) -> Manifest:
    """Put a finished engine into the bundle at ``path``, which then runs on this device."""
    bundle = open_bundle(path)
    manifest = bundle.manifest
    if manifest.target.backend != "tensorrt":
        raise UsageError(f"{path} is for {manifest.target.backend}, it takes no TensorRT engine")
    if path.is_file():
        raise UsageError(f"{path} is a .zip: unpack it, and build the engine in the folder")
    facts = _facts(manifest.target)
    if not facts.covers(tensorrt):
        raise UsageError(
            f"the engine was built with TensorRT {tensorrt}, target {manifest.target.name} is for "
            f"{facts.tensorrt} up to {facts.before}: build for another target"
        )
    files: dict[str, Path | bytes] = {
        name: bundle.folder / name for name in manifest.files if name != LABELS
    }
    files[ENGINE] = engine
    if plugin is not None:
        files[PLUGIN] = plugin
    changed = dataclasses.replace(
        manifest,
        main=ENGINE,
        plugins=(PLUGIN,) if plugin is not None else (),
        arch=host_arch() if plugin is not None else "any",
        runtime=RuntimeNeed("tensorrt", tensorrt, "exact"),
        sections={**manifest.sections, "engine": f"built on the device with TensorRT {tensorrt}"},
    )
    return write_bundle(path, changed, files, bundle.labels)


def self_test(bundle: Bundle) -> SelfTestReport:
    """Run the stored images on this device and compare with the stored answers."""
    from edgekit.backends import open_runner, run_settings

    if SELFTEST not in bundle.manifest.files:
        raise UsageError(f"{bundle.path} has no {SELFTEST}: build it again")
    with np.load(bundle.folder / SELFTEST, allow_pickle=False) as stored:
        expected = {name: stored[name] for name in stored.files}
    runner = open_runner(bundle, run_settings(bundle.manifest.target), None)
    raw = runner.run(expected.pop("images"))
    return compare(expected, raw.logits, raw.code)


def compare(
    expected: dict[str, NDArray[np.generic]],
    logits: NDArray[np.float32],
    code: NDArray[np.int64] | None,
) -> SelfTestReport:
    """The device's answers against the stored ones."""
    wanted = expected["logits"].astype(np.float64)
    if wanted.shape != logits.shape:
        raise EdgekitError(f"the engine gives logits {logits.shape}, expected {wanted.shape}")
    scale = max(float(np.abs(wanted).max()), 1e-30)
    difference = np.abs(logits - wanted)
    error = float(difference.max()) / scale if np.isfinite(difference).all() else float("inf")
    codes = expected.get("code")
    return SelfTestReport(
        images=len(wanted),
        logits_error=error,
        top1_equal=int((wanted.argmax(axis=1) == logits.argmax(axis=1)).sum()),
        codes=0 if codes is None else codes.size,
        codes_equal=0 if codes is None or code is None else int((codes == code).sum()),
    )


def _facts(descriptor: Descriptor) -> TensorRTFacts:
    if descriptor.tensorrt is None:
        raise UsageError(f"target {descriptor.name} is not a TensorRT device")
    return descriptor.tensorrt

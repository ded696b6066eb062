import dataclasses
import json
import re
from pathlib import Path

import pytest

from edgekit.core.errors import UsageError
from edgekit.core.host import host_arch
from edgekit.targets import descriptor as descriptors
from edgekit.targets import intel_devices
from edgekit.targets.descriptor import (
    Descriptor,
    descriptor_from_manifest,
    descriptor_names,
    host_isa,
    load_descriptor,
    missing_isa,
    why_not_here,
)
from edgekit.targets.intel_devices import why_no_device
from edgekit.targets.tensorrt_releases import TensorRTFacts

ROOT = Path(__file__).resolve().parents[2]

MINE = """
name = "mine"
title = "my device"
backend = "openvino"
dialect = "openvino"
arch = "x86_64"
batch = 4
"""


def test_every_descriptor_is_read_and_explains_itself() -> None:
    assert {
        "cpu",
        "openvino-cpu-vnni",
        "openvino-cpu-avx2",
        "openvino-arm",
        "onnxruntime-cpu",
    } <= set(descriptor_names())
    for name in descriptor_names():
        descriptor = load_descriptor(name)
        assert descriptor.name == name
        assert descriptor.title
        assert descriptor.arch != "host"
        assert descriptor.dialect != "auto"
        if descriptor.backend == "openvino":  # left alone, it would choose bf16 or f16
            npu = descriptor.openvino_device == "NPU"  # it has no f32
            assert descriptor.inference_precision == ("f16" if npu else "f32")


@pytest.mark.parametrize(
    ("device", "folder", "library"),
    [
        ("GPU", "class/drm/renderD128", "libOpenCL.so.1"),
        ("NPU", "class/accel/accel0", "libze_loader.so.1"),
    ],
)
def test_an_intel_device_is_there_if_linux_and_its_driver_say_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, folder: str, library: str
) -> None:
    monkeypatch.setattr(intel_devices, "host_arch", lambda: "x86_64")
    assert "Linux shows none" in str(why_no_device(device, tmp_path))
    entry = tmp_path / "sys" / folder / "device"
    entry.mkdir(parents=True)
    (entry / "vendor").write_text("0x10de\n")  # another maker's
    assert "Linux shows none" in str(why_no_device(device, tmp_path))
    (entry / "vendor").write_text("0x8086\n")
    monkeypatch.setattr(intel_devices, "_loads", lambda name: name != library)
    assert f"{library} is not" in str(why_no_device(device, tmp_path))
    monkeypatch.setattr(intel_devices, "_loads", lambda name: name == library)
    assert why_no_device(device, tmp_path) is None
    monkeypatch.setattr(intel_devices, "host_arch", lambda: "aarch64")
    assert "this machine is aarch64" in str(why_no_device(device, tmp_path))


def test_intel_devices_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("GPU", "NPU"):
        descriptor = load_descriptor(f"openvino-{device.lower()}")
        monkeypatch.setattr(descriptors, "why_no_device", lambda name: f"needs {name}")
        monkeypatch.setattr(descriptors, "host_arch", lambda: "x86_64")
        assert why_not_here(descriptor) == f"needs {device}"
    auto = load_descriptor("openvino-auto")
    assert why_not_here(auto) is None  # it may end on this CPU
    assert auto.isa == host_isa()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"backend": "onnxruntime", "dialect": "onnxruntime"}, "is for backend 'openvino'"),
        ({"openvino_device": "NPU"}, "computes in f16"),
        ({"openvino_device": "NPU", "inference_precision": "f16", "batch": 0}, "a fixed batch"),
    ],
)
def test_devices_that_openvino_has_not(changes: dict[str, object], problem: str) -> None:
    gpu = load_descriptor("openvino-gpu")
    with pytest.raises(UsageError, match=problem):
        dataclasses.replace(gpu, **changes)  # type: ignore[arg-type]


def test_cpu_is_this_machine() -> None:
    cpu = load_descriptor("cpu")
    assert cpu.arch == host_arch()
    assert cpu.isa == host_isa()
    assert why_not_here(cpu) is None
    assert cpu.dialect == ("openvino" if "vnni" in host_isa() else "openvino-novnni")


@pytest.mark.parametrize(
    ("flags", "isa", "dialect"),
    [
        ({"avx2", "avx512_vnni"}, ("avx2", "vnni"), "openvino"),
        ({"avx2", "avx_vnni"}, ("avx2", "vnni"), "openvino"),
        ({"avx2", "avx512f"}, ("avx2",), "openvino-novnni"),
        ({"sse4_2"}, (), "openvino-novnni"),
    ],
)
def test_the_dialect_follows_the_instruction_set(
    flags: set[str], isa: tuple[str, ...], dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    cpu = load_descriptor("cpu")
    assert (cpu.isa, cpu.dialect) == (isa, dialect)
    vnni = load_descriptor("openvino-cpu-vnni")
    assert (missing_isa(vnni) is None) == ("vnni" in isa)


def test_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "cpu_flags", lambda: frozenset({"asimd", "asimddp"}))
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    cpu = load_descriptor("cpu")
    assert (cpu.arch, cpu.isa, cpu.dialect) == ("aarch64", ("dotprod",), "openvino")
    assert why_not_here(load_descriptor("openvino-arm")) is None
    assert why_not_here(load_descriptor("openvino-cpu-avx2")) == (
        "needs x86_64, this machine is aarch64"
    )


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE)
    mine = load_descriptor(str(tmp_path / "mine.toml"))
    assert mine == Descriptor("mine", "my device", "openvino", "openvino", arch="x86_64", batch=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('prescision = "int8"', r"mine.toml:8: unknown key 'prescision' \(did you mean 'precision"),
        ('precision = "int4"', r"mine.toml:8: 'precision' must be one of 'int8', 'fp32'"),
        ("threads = -1", "threads must not be negative"),
        ('power_rails = "VDD_IN"', "'power_rails' must be a list"),
    ],
)
def test_mistakes_name_their_line(change: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE + change)
    with pytest.raises(UsageError, match=message):
        load_descriptor(str(tmp_path / "mine.toml"))


def test_impossible_combinations(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE.replace('dialect = "openvino"', 'dialect = "tensorrt"'))
    with pytest.raises(UsageError, match="'openvino' cannot run dialect 'tensorrt'"):
        load_descriptor(str(path))
    path.write_text(MINE.replace('"openvino"', '"onnxruntime"') + 'inference_precision = "bf16"')
    with pytest.raises(UsageError, match="computes in f32, not bf16"):
        load_descriptor(str(path))
    path.write_text(MINE.replace("mine", "yours"))
    with pytest.raises(UsageError, match="name is 'yours', it must be 'mine'"):
        load_descriptor(str(path))


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown target 'cpuu' \(did you mean 'cpu'\?\)"):
        load_descriptor("cpuu")
    with pytest.raises(UsageError, match="cannot read"):
        load_descriptor("absent.toml")


def test_what_older_bundles_say_of_their_target_is_still_read() -> None:
    """Keys that nothing read are gone from descriptors; a key nobody ever knew is an error."""
    now = load_descriptor("jetson-orin-nano")
    table = json.loads(json.dumps(dataclasses.asdict(now)))
    former = {**table, "memory_mib": 8192, "power": "ina3221"}
    former["tensorrt"] = {**table["tensorrt"], "int8_tops": 67, "dla": 0, "rails": ["VDD_IN"]}
    assert descriptor_from_manifest(former, "a bundle") == now
    with pytest.raises(UsageError, match="unknown key 'colour'"):
        descriptor_from_manifest({**former, "colour": "green"}, "a bundle")


def test_nothing_in_a_descriptor_goes_unread() -> None:
    """A field that only a table shows is a claim that nobody checks."""
    code = "".join(path.read_text() for path in (ROOT / "edgekit").rglob("*.py"))
    for kind in (Descriptor, TensorRTFacts):
        for field in dataclasses.fields(kind):
            if field.name not in FOR_PEOPLE:
                assert re.search(rf"\.{field.name}\b", code), f"nothing reads {field.name}"


FOR_PEOPLE = {"title", "note"}

"""Which device is fit for which bundle, by the facts that a device tells."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle.engine import engine_pending
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.store import open_bundle
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.core.host import host_arch
from edgekit.devices.check import checks
from edgekit.devices.compatibility import check_fit
from edgekit.devices.deployed import Place
from edgekit.devices.engine import build_engine
from edgekit.devices.facts import DeviceFacts
from edgekit.devices.install import Runtime
from edgekit.devices.registry import Device
from edgekit.devices.remote import facts as facts_source
from edgekit.devices.session import Session
from edgekit.targets.descriptor import load_descriptor
from edgekit.targets.tensorrt_releases import describe_l4t
from tests import bundles
from tests.devices.conftest import Server

DEVICE = Device("nano", "me@orin")


def jetson(**other: Any) -> DeviceFacts:
    """The facts of an Orin Nano as it comes, but for ``other``."""
    orin = {
        "machine": "aarch64",
        "system": "Ubuntu 22.04.5 LTS",
        "model": "NVIDIA Jetson Orin Nano Developer Kit",
        "l4t": "36.4.3",
        "jetpack": "6.2+b77",
        "cpu": "aarch64 part 0xd42",
        "flags": ["asimd", "asimddp"],
        "python": "3.10.12",
        "power_mode": "15W",
        "tensorrt": "10.3.0.30",
        "tensorrt_python": True,
        "trtexec": "/usr/src/tensorrt/bin/trtexec",
        "nvcc": "/usr/local/cuda/bin/nvcc",
        "runtimes": {},
        "packages": {"tensorrt": "10.3.0"},
        "bundles": [],
        "venv": True,
        "free_bytes": 20_000_000_000,
    }
    return DeviceFacts.from_dict({**facts_source.gather("/nowhere"), **orin, **other}, "facts")


def manifest(target: str) -> Manifest:
    """A bundle's manifest, as if it had been built for ``target``."""
    made = open_bundle(bundles.bundle("cpu")).manifest
    return dataclasses.replace(made, target=load_descriptor(target), arch="any")


def test_what_fits() -> None:
    check_fit(manifest("jetson-orin-nano"), DEVICE, jetson())
    registered = dataclasses.replace(DEVICE, descriptor="jetson-orin-nano")
    check_fit(manifest("jetson-orin-nano"), registered, jetson())


@pytest.mark.parametrize(
    ("target", "facts", "message"),
    [
        (
            "jetson-orin-nano",
            {"l4t": "35.6.0"},
            r"JetPack 5 \(Linux R35.6.0\), .* JetPack 6.2:",
        ),
        ("jetson-orin-nano", {"l4t": ""}, "jetson-orin-nano is for a Jetson, and nano"),
        (
            "jetson-orin-nano",
            {"tensorrt": "8.6.2"},
            r"8.6.2, with JetPack 6 .* 10.7 of JetPack 6.2",
        ),
        ("jetson-orin-nano", {"machine": "x86_64"}, "the bundle is for aarch64"),
        ("generic-cuda", {}, "the bundle is for x86_64"),
        ("jetson-orin-nano", {"tensorrt_python": False}, "apt-get install python3-libnvinfer"),
    ],
)
def test_what_does_not(target: str, facts: dict[str, Any], message: str) -> None:
    kind = ToolchainMissing if "tensorrt_python" in facts else UsageError
    with pytest.raises(kind, match=message) as raised:
        check_fit(manifest(target), DEVICE, jetson(**facts))
    assert "\n" not in str(raised.value)


def test_a_jetsons_linux_as_its_users_call_it() -> None:
    assert describe_l4t("36.4.3") == "JetPack 6 (Linux R36.4.3)"
    assert describe_l4t("99.1") == "Linux R99.1"  # of a JetPack that nobody knows yet
    unnamed = {check.name: check.found for check in checks(jetson(jetpack=""), None)}
    assert unnamed["JetPack"] == "JetPack 6 (Linux R36.4.3)"


def test_int8_for_a_better_cpu() -> None:
    target = dataclasses.replace(load_descriptor("cpu"), arch="any", isa=("vnni",))
    wants = dataclasses.replace(manifest("cpu"), target=target)
    facts = jetson(machine="x86_64", flags=["avx2"])
    with pytest.raises(UsageError, match="a CPU with vnni, which nano"):
        check_fit(wants, DEVICE, facts)
    check_fit(wants, DEVICE, jetson(flags=["avx_vnni"]))


def test_the_table_says_what_to_run() -> None:
    orin = load_descriptor("jetson-orin-nano")
    good = checks(jetson(), orin)
    assert [check.name for check in good if check.status == "missing"] == []
    found = {check.name: check.found for check in good}
    assert found["power mode"].startswith("15W")
    assert "JetPack 6.2" in found["JetPack"]
    assert "in its own Python: tensorrt 10.3.0" in found["runtimes"]
    bad = jetson(python="3.8.10", venv=False, trtexec="", nvcc="", tensorrt_python=False)
    missing = {check.name: check.fix for check in checks(bad, orin) if check.status == "missing"}
    assert set(missing) == {"Python", "venv", "TensorRT's Python", "trtexec", "nvcc"}
    assert missing["nvcc"] == "sudo apt-get install cuda-nvcc-12-6"
    assert missing["venv"] == "sudo apt-get install python3-venv"
    assert all(check.needed for check in checks(bad, orin) if check.status == "missing")


def test_no_target_needs_nothing_special() -> None:
    found = checks(jetson(tensorrt="", l4t="", trtexec="", nvcc="", flags=[]), None)
    assert [check.name for check in found if check.status == "missing"] == []
    assert {check.name: check.status for check in found}["ISA"] == "warning"


def test_the_engine_is_built_by_the_bundles_script(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """This machine has no trtexec, which the script says, and that is what the user is told."""
    place = Place(str(tmp_path), "cuda")
    shutil.copytree(bundles.bundle("generic-cuda", "auto"), place.bundle)
    wanted = open_bundle(Path(place.bundle))
    assert engine_pending(wanted.manifest)
    runtime = Runtime(str(tmp_path / "runtime"), "", installed=False)
    device = server.device(tmp_path)
    if shutil.which("trtexec") or host_arch() != "x86_64":
        pytest.skip("this machine would build an engine, or is none for this bundle")
    with (
        pytest.raises(EdgekitError, match=r"loop: no trtexec in .*libnvinfer-bin") as raised,
        Session(device) as session,
    ):
        build_engine(session, place, runtime, wanted, Console())
    assert raised.value.exit_code == ToolchainMissing.exit_code
    assert "engine: error: no trtexec" in capfd.readouterr().err

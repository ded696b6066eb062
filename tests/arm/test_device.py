"""The whole way to an aarch64 device and back, as a user goes it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.bundle.signature import sign
from edgekit.bundle.store import open_bundle, update_bundle
from edgekit.core.console import Console
from edgekit.devices.registry import Device
from edgekit.devices.remote_predictor import on_device
from edgekit.field.monitor import Monitor
from edgekit.runtime.model import load
from tests import bundles
from tests.arm.conftest import NAME, Likeness, Run, Table, darker, here_answers, int8, twin
from tests.arm.userland import Userland
from tests.devices.conftest import Server, cutting, wait_until
from tests.devices.test_deploy import labeled

TARGETS = ("onnxruntime-cpu", "openvino-arm")
both = pytest.mark.parametrize("target", TARGETS, scope="module")
pytestmark = pytest.mark.usefixtures("registered")


def on(device: Device, *words: object) -> subprocess.CompletedProcess[str]:
    """What a user types into a shell on the device."""
    command = ["ssh", *device.options, "-o", "BatchMode=yes", "-p", str(device.port), device.host]
    line = " ".join(str(word) for word in words)
    return subprocess.run([*command, line], capture_output=True, text=True, timeout=600)


def installed(home: Path, target: str) -> str:
    """The command that deploy installed there for a target's runtime."""
    (folder,) = home.glob(
        f"runtimes/{open_bundle(int8(target), any_arch=True).manifest.runtime.name}-*"
    )
    return f"~/.edgekit/runtimes/{folder.name}/bin/edgekit"


def test_check_sees_an_arm_cpu(run: Run, table: Table) -> None:
    code, out, err = run("device", "check", NAME, "--json")
    assert code == 0, err
    (checked,) = json.loads(out)["devices"]
    assert checked["ready"]
    rows = {row["name"]: row["found"] for row in checked["checks"]}
    assert rows["architecture"] == "aarch64"
    assert rows["ISA"] == "NEON dotprod"
    assert rows["JetPack"] == "not a Jetson"
    table.add("device check", f"{rows['architecture']}, {rows['ISA']}, Python {rows['Python']}")


@both
def test_deploy_and_selftest(target: str, userland: Userland, run: Run, table: Table) -> None:
    wheels = userland.wheels(load_runtime(target))
    code, out, err = run("deploy", int8(target), "--device", NAME, "--wheels", wheels, "--json")
    assert code == 0, err
    (entry,) = json.loads(out)["devices"]
    assert entry["selftest"].startswith("self-test: ")
    table.add(f"deploy {target}", entry["selftest"].removeprefix("self-test: "))
    code, out, _ = run("deploy", int8(target), "--device", NAME, "--wheels", wheels, "--json")
    (entry,) = json.loads(out)["devices"]
    assert (code, entry["files"], entry["up_to_date"]) == (0, 0, True)


def load_runtime(target: str) -> str:
    """The name of a target's runtime."""
    return open_bundle(int8(target), any_arch=True).manifest.runtime.name


@both
def test_answers_are_those_of_exact_sums(target: str, table: Table) -> None:
    pixels = bundles.images(48, seed=9)
    here = here_answers(target, pixels)
    with on_device(NAME, int8(target), Console(verbosity=-1)) as model:
        there = model.run(pixels)
    found = Likeness.of(here, there)
    table.add(f"answers {target}", found.text("in exact sums"))
    assert min(found.top, found.codes) >= 46
    assert found.off < 0.01  # OpenVINO computes one of the three convolutions in f16 there


@both
def test_predict_there(target: str, device: Device, home: Path, table: Table) -> None:
    pixels = bundles.images(3, seed=31)
    folder = home / "photos"
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index}.png")
    bundle = f"~/.edgekit/bundles/{int8(target).name}"
    done = on(device, installed(home, target), "predict", bundle, "~/.edgekit/photos", "--json")
    assert done.returncode == 0, done.stderr
    there = [(one["label"], one["code"]) for one in json.loads(done.stdout)["predictions"]]
    model = load(twin(target))
    here = [(one.label, one.code) for one in model.predict(pixels)]
    assert there == here
    table.add(f"predict {target}", f"{len(there)} of {len(here)} labels and codes as here")


@both
def test_bench_measures_there(target: str, run: Run, table: Table) -> None:
    """That it works; an emulator's times say nothing, and none is kept."""
    words = ("--scenario", "latency", "--seconds", "0.2", "--json")
    code, out, err = run("bench", int8(target), "--device", NAME, *words)
    assert code == 0, err
    (measured,) = json.loads(out)["bundles"]
    calls = measured["scenarios"]["latency"]["latencies"]["bundle"]["calls"]
    assert calls >= 5
    table.add(f"bench {target}", f"{calls} calls (emulated: no time is kept)")


@both
def test_parity_with_the_float_model(target: str, tmp_path: Path, run: Run, table: Table) -> None:
    data = labeled(tmp_path, 24)
    words = (
        *("--reference", bundles.made().onnx, "--allow-different-reference", "--data", data),
        *("--corruptions", "fog,contrast", "--severities", "1,3", "--full", "--tolerance", "90"),
    )
    code, out, err = run("parity", int8(target), "--device", NAME, *words, "--json")
    assert code == 0, err
    there = json.loads(out)
    assert there["candidate"].endswith(f"on {NAME}")
    code, out, err = run("parity", twin(target), *words, "--json")
    assert code == 0, err
    here = json.loads(out)
    agreement = [each["top1_agreement"]["corrupted"]["estimate"] for each in (there, here)]
    assert abs(agreement[0] - agreement[1]) < 0.05
    table.add(
        f"parity {target}",
        f"{24 * 5} cells, agreement with float {agreement[0]:.1%} ({agreement[1]:.1%} here)",
    )


def test_watch_there_and_ask_from_here(
    device: Device, home: Path, tmp_path: Path, run: Run, table: Table
) -> None:
    target = TARGETS[0]
    folder = home / "frames"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pixels = np.concatenate([bundles.images(40, seed=41), darker(bundles.images(60, seed=42))])
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index:03}.png")
    bundle, state = f"~/.edgekit/bundles/{int8(target).name}", f"watch/{int8(target).name}.json"
    (home / "watch").mkdir(exist_ok=True)
    words = ("~/.edgekit/frames", "--once", "--state", f"~/.edgekit/{state}")
    done = on(device, installed(home, target), "watch", bundle, *words)
    monitor = Monitor(int8(target), state=tmp_path / "state.json")
    monitor.update(load(twin(target)).predict(pixels))
    here = monitor.status()
    assert done.returncode == (3 if here.changed else 0), done.stderr
    code, out, err = run("watch", int8(target).name, "--device", NAME, "--once", "--json")
    assert code == done.returncode, err
    there = json.loads(out)
    assert (there["images"], there["changed"]) == (len(pixels), here.changed)
    table.add("watch", f"{there['images']} images, changed: {there['changed']}, as here")


def test_the_device_checks_signatures(
    home: Path, userland: Userland, tmp_path: Path, run: Run, table: Table
) -> None:
    bundle = Path(shutil.copytree(int8(TARGETS[0]), tmp_path / "signed"))
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f", "alice"]
    subprocess.run(command, cwd=tmp_path, check=True)
    signers = home / "allowed_signers"
    signers.write_text(f"alice {(tmp_path / 'alice.pub').read_text()}")
    words = ("deploy", bundle, "--device", NAME, "--wheels", userland.wheels("onnxruntime"))
    try:
        code, _, err = run(*words)
        assert code == 2
        assert "is not signed" in err
        sign(bundle, tmp_path / "alice")
        update_bundle(bundle, sections={"parity": {"verdict": "pass"}})
        code, _, err = run(*words)
        assert code == 2
        assert "changed after it was signed" in err
        sign(bundle, tmp_path / "alice")
        code, _, err = run(*words)
        assert code == 0, err
    finally:
        signers.unlink()
    table.add("signatures", "unsigned and changed bundles refused there, a signed one taken")


def test_a_copy_that_was_cut_goes_on(
    server: Server, home: Path, userland: Userland, tmp_path: Path, run: Run, table: Table
) -> None:
    bundle = Path(shutil.copytree(int8(TARGETS[0]), tmp_path / "large"))
    update_bundle(bundle, reports={"noise.bin": os.urandom(48 << 20)})

    def arrived() -> int:
        parts = home.glob("staging/*/*.part")
        return sum(path.stat().st_size for path in parts if path.exists())

    words = ("deploy", bundle, "--device", NAME, "--wheels", userland.wheels("onnxruntime"))
    with cutting(server, lambda: arrived() > 8 << 20):
        code, _, err = run(*words)
    assert code == 5, err
    assert "run the same command again" in err.splitlines()[-1]
    assert wait_until(lambda: not server.connections(), 20)
    before = arrived()
    assert 8 << 20 < before < 48 << 20
    time.sleep(1)
    assert arrived() == before  # nobody there works on
    code, _, err = run(*words)
    assert code == 0, err
    assert "copy: noise.bin resumes at" in err
    table.add("a cut copy", f"resumed after {before >> 20} of 48 MB, nothing left running")

"""The whole flow to another machine, which is this one behind sshd: deploy, bench, parity."""

import dataclasses
import functools
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgekit
from edgekit.bundle.store import open_bundle, update_bundle, zip_bundle
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.core.files import file_sha256
from edgekit.devices.install import run_pip
from edgekit.devices.registry import Device, add_device
from edgekit.devices.remote import files as remote_files
from edgekit.devices.remote_predictor import on_device
from edgekit.devices.session import Session
from edgekit.devices.wheel import runtime_wheel
from edgekit.parity.predictors import open_bundle_predictor
from edgekit.targets.descriptor import Arch, load_descriptor
from tests import bundles
from tests.devices.conftest import Run, Server, arrived, cutting, using, wait_until

HEAVY = ("torch", "nncf", "onnx", "onnxruntime", "scipy", "cv2", "timm", "safetensors")


def there(device: Device, bundle: Path) -> Path:
    """Where a bundle is on the device."""
    return Path(device.folder) / "bundles" / bundle.name


def labeled(folder: Path, count: int) -> Path:
    """Images with the labels that the model gives them, so that it has something to lose."""
    made = bundles.made()
    pixels = bundles.images(count, seed=5)
    best = made.expect(pixels).logits.numpy().argmax(axis=1)
    lines = ["path,label"]
    for index in range(count):
        Image.fromarray(pixels[index]).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{bundles.CLASSES[best[index]]}")
    path = folder / "images.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_bundle_that_nobody_signed_is_not_copied(
    device: Device, bundle: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "signers").write_text("")

    def manifests() -> dict[Path, int]:
        """Of what lies on the device, from other tests as well, with its time."""
        return {
            path: path.stat().st_mtime_ns for path in Path(device.folder).rglob("manifest.json")
        }

    before = manifests()
    code, _, err = run("deploy", bundle, "--device", "loop", "--signers", tmp_path / "signers")
    assert code == 2
    assert "is not signed" in err
    assert manifests() == before


def test_deploy_bench_parity(device: Device, bundle: Path, tmp_path: Path, run: Run) -> None:
    code, out, err = run("deploy", bundle, "--device", "loop", "--json")
    assert code == 0, err
    (entry,) = json.loads(out)["devices"]
    assert (entry["files"], entry["kept"], entry["installed"]) == (4, 0, False)
    assert entry["selftest"].startswith("self-test: 8 synthetic images, finite and repeatable")
    assert entry["bundle"] == str(there(device, bundle))
    assert open_bundle(there(device, bundle)).manifest == open_bundle(bundle).manifest
    assert list((Path(device.folder) / "staging").iterdir()) == []

    options = ("--scenario", "latency", "--seconds", "0.2")
    code, out, err = run("bench", bundle, "--device", "loop", *options, "--json")
    assert code == 0, err
    (measured,) = json.loads(out)["bundles"]
    assert measured["scenarios"]["latency"]["latencies"]["bundle"]["calls"] >= 5
    assert measured["bundle"]["path"] == str(bundle)
    assert measured["device"] == {"name": "loop", "host": device.host}
    assert measured["settings"]["seconds"] == 0.2
    assert json.loads((bundle / "bench.json").read_text()) == measured
    assert open_bundle(bundle).manifest.sections["bench"]["latencies"]["bundle"]["calls"] >= 5

    code, out, _ = run("deploy", bundle, "--device", "loop", "--json")  # now it has a report more
    (entry,) = json.loads(out)["devices"]
    assert (entry["files"], entry["bytes"], entry["up_to_date"]) == (0, 0, True)

    pixels = bundles.images(20)
    expected = open_bundle_predictor(bundle).run(pixels)
    with on_device("loop", bundle, Console(verbosity=-1)) as remote_model:
        came = remote_model.run(pixels).arrays()
    assert came.keys() == expected.arrays().keys()
    for name, values in expected.arrays().items():
        np.testing.assert_array_equal(came[name], values)

    data = labeled(tmp_path, 6)
    words: tuple[object, ...] = ("--reference", bundles.made().onnx)
    words = (*words, "--allow-different-reference", "--data", data)
    words = (*words, "--corruptions", "fog,contrast", "--severities", "1,3", "--full")
    words = (*words, "--tolerance", "90", "--json")
    code, out, err = run("parity", bundle, "--device", "loop", *words)
    assert code == 0, err
    remote = json.loads(out)
    assert remote["candidate"].endswith("on loop")
    assert remote["inferences"] == 2 * 6 * 5
    code, out, err = run("parity", bundle, *words)
    local = json.loads(out)
    assert local["inferences"] == 6 * 5  # answers of the device are not taken for this machine's
    same = ("verdict", "clean_error", "corruption_error", "per_corruption", "top1_agreement")
    assert [remote[name] for name in same] == [local[name] for name in same]


def test_only_what_changed_is_copied(device: Device, bundle: Path, run: Run) -> None:
    run("deploy", bundle, "--device", "loop")
    update_bundle(bundle, reports={"notes.txt": b"new"})
    code, out, err = run("deploy", bundle, "--device", "loop", "--json")
    assert code == 0, err
    (entry,) = json.loads(out)["devices"]
    assert (entry["files"], entry["kept"]) == (2, 3)  # the manifest and the notes
    assert (there(device, bundle) / "notes.txt").read_bytes() == b"new"
    (there(device, bundle) / "model.bin").write_bytes(b"rotten")
    code, out, _ = run("deploy", bundle, "--device", "loop", "--json")
    (entry,) = json.loads(out)["devices"]
    assert (entry["files"], entry["kept"]) == (1, 4)
    open_bundle(there(device, bundle))


def test_a_zip_is_deployed_under_its_name(device: Device, bundle: Path, run: Run) -> None:
    zip_bundle(bundle, bundle.with_suffix(".zip"))
    code, _, err = run("deploy", bundle.with_suffix(".zip"), "--device", "loop")
    assert code == 0, err
    assert open_bundle(there(device, bundle)).labels == bundles.CLASSES


def test_the_device_has_nothing_heavy(device: Device, home: Path) -> None:
    code = (
        "import sys, edgekit.devices.remote.serve, edgekit.devices.remote.place\n"
        "import edgekit.runtime.selftest, edgekit.cli.bench, edgekit.bench.run\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))\n"
        "from importlib import metadata\n"
        "print(sorted(d.name.lower() for d in metadata.distributions()))\n"
    )
    (python,) = home.glob("runtimes/*/bin/python")
    out = subprocess.check_output([str(python), "-c", code], text=True, cwd="/")
    loaded, installed = out.splitlines()
    assert loaded == "[]"
    assert not [name for name in HEAVY if f"'{name}'" in installed]


def test_the_wheel_is_pure_and_reproducible() -> None:
    wheel = runtime_wheel()
    assert wheel == runtime_wheel.__wrapped__()
    assert wheel.name.startswith(f"edgekit-{edgekit.__version__}+device.")
    names = zipfile.ZipFile(io.BytesIO(wheel.data)).namelist()
    assert {name.rpartition(".")[2] for name in names if "dist-info" not in name} == {"py", "toml"}
    assert "edgekit/targets/devices/cpu.toml" in names


def test_a_device_without_internet_needs_all_wheels(
    device: Device, home: Path, bundle: Path, tmp_path: Path, run: Run
) -> None:
    code, _, err = run("deploy", bundle, "--device", "loop", "--wheels", tmp_path)
    assert code == 2
    assert "holds no .whl files" in err
    (python,) = home.glob("runtimes/*/bin/python")
    command = [str(python), "-m", "pip", "install", "--no-index", "openvino==1.0"]
    said = r"loop: pip cannot install the runtime \(No matching .*\): .*'pip download'.* --wheels"
    with pytest.raises(EdgekitError, match=said), Session(device) as session:
        run_pip(session, command, Console(verbosity=-1))


def other_arch(path: Path) -> Path:
    """A bundle for the architecture that this machine has not."""
    mine = load_descriptor("cpu").arch
    arch: Arch = "x86_64" if mine == "aarch64" else "aarch64"
    descriptor = dataclasses.replace(
        load_descriptor("cpu"), arch=arch, isa=(), dialect="openvino", precision="fp32"
    )
    made = bundles.made()
    bundles.pack(made.onnx, made.card, descriptor, path, lookup="inline")
    return path


def test_another_architecture_is_refused_before_copying(
    server: Server, tmp_path: Path, run: Run
) -> None:
    add_device(server.device(tmp_path / "dev"))
    path = other_arch(tmp_path / "foreign")
    code, _, err = run("deploy", path, "--device", "loop")
    assert code == 2
    assert f"the bundle is for {open_bundle(path).manifest.target.arch} (cpu), loop is" in err
    assert not (tmp_path / "dev").exists()


def test_another_target_than_registered(server: Server, bundle: Path, run: Run) -> None:
    add_device(dataclasses.replace(server.device(bundle / "dev"), descriptor="jetson-orin-nano"))
    code, _, err = run("deploy", bundle, "--device", "loop")
    assert code == 2
    assert "loop is registered as jetson-orin-nano, the bundle is for cpu" in err


def test_one_device_that_fails_leaves_the_others(
    server: Server, device: Device, bundle: Path, tmp_path: Path, run: Run
) -> None:
    add_device(dataclasses.replace(device, name="far", port=1))
    add_device(dataclasses.replace(device, name="bare", python="/no/python3"))
    names = [word for name in ("far", "loop", "bare") for word in ("--device", name)]
    code, out, err = run("deploy", bundle, *names, "--json")
    assert code == 5
    far, loop, bare = json.loads(out)["devices"]
    assert (far["exit_code"], bare["exit_code"]) == (5, 4)
    assert loop["files"] == 4
    assert "loop: copy: 4 files" in err
    assert "2 devices failed: cannot reach far" in err.splitlines()[-1]


@pytest.mark.parametrize("command", ["bench", "parity"])
def test_what_is_not_deployed(command: str, device: Device, bundle: Path, run: Run) -> None:
    code, _, err = run(command, bundle, "--device", "loop")
    assert code == 2
    assert f"loop holds no such bundle ({bundle.name})" in err
    assert f"edgekit deploy {bundle} --device loop" in err


def test_two_at_once(device: Device, bundle: Path, run: Run) -> None:
    with Session(device) as session:
        session.lock(f"{device.folder}/lock")
        begin = time.monotonic()
        code, _, err = run("deploy", bundle, "--device", "loop")
        assert code == 1
        assert "loop is in use by another edgekit" in err
        assert time.monotonic() - begin < 15
    assert not there(device, bundle).exists()


def used_or_ended(device: Device, process: subprocess.Popen[str]) -> bool:
    return bool(using(Path(device.folder))) or process.poll() is not None


def test_ctrl_c_leaves_nothing_there(device: Device, bundle: Path, run: Run) -> None:
    edgekit_command = [sys.executable, "-m", "edgekit"]
    words = ["deploy", str(bundle), "--device", "loop"]
    subprocess.run([*edgekit_command, *words], check=True, capture_output=True)
    for how, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        words = ["bench", str(bundle), "--device", "loop", "--scenario", "latency"]
        process = subprocess.Popen(
            [*edgekit_command, *words, "--seconds", "100"],
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(functools.partial(used_or_ended, device, process))
        assert using(Path(device.folder)), process.communicate()
        time.sleep(0.5)
        process.send_signal(how)
        _, err = process.communicate(timeout=20)
        assert process.returncode == code
        if how == signal.SIGINT:
            assert err.splitlines()[-1].startswith("error: interrupted")
            assert "Traceback" not in err
            assert using(Path(device.folder)) == []
        assert wait_until(lambda: not using(Path(device.folder)), 10)
    assert run("deploy", bundle, "--device", "loop")[0] == 0  # the lock is free


def test_check(device: Device, run: Run) -> None:
    code, out, err = run("device", "check", "loop", "--json")
    assert code == 0, err
    (document,) = json.loads(out)["devices"]
    assert document["ready"]
    found = {row["name"]: row["found"] for row in document["checks"]}
    assert found["Python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert found["runtimes"].startswith("openvino-")
    assert document["facts"]["cores"] == len(os.sched_getaffinity(0))
    assert "architecture" in run("device", "check", "loop")[1]


def test_staging_forgets_what_is_no_longer_wanted(tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    remote_files.survey(str(tmp_path), str(staging), "", {})
    remote_files.put(str(staging), "ab" * 32, 0, b"old")
    assert [path.name for path in staging.iterdir()] == ["ab" * 32 + ".part"]
    found = remote_files.survey(str(tmp_path), str(staging), "", {"file": ["cd" * 32, 3]})
    assert found == {"file": {"whole": False, "bytes": 0, "sha256": ""}}
    assert list(staging.iterdir()) == []


def test_a_copy_that_was_cut_goes_on(server: Server, device: Device, large: Path, run: Run) -> None:
    with cutting(server, lambda: arrived(device) > 10 << 20):
        code, _, err = run("deploy", large, "--device", "loop")
    assert code == 5
    error = err.splitlines()[-1]
    assert error.startswith("error: the link to loop broke")
    assert "run the same command again" in error
    assert wait_until(lambda: not server.connections(), 10)
    there_already = arrived(device)
    assert 10 << 20 < there_already < 48 << 20
    assert not there(device, large).exists()
    visible = [path.name for path in (Path(device.folder) / "bundles").glob("[!.]*")]
    assert large.name not in visible
    code, out, err = run("deploy", large, "--device", "loop", "--json")
    assert code == 0, err
    assert "copy: noise.bin resumes at" in err
    (entry,) = json.loads(out)["devices"]
    total = sum(file.size for file in open_bundle(large).manifest.files.values())
    total += (large / "manifest.json").stat().st_size
    assert entry["bytes"] <= total - there_already + (1 << 20)
    assert file_sha256(there(device, large) / "noise.bin") == file_sha256(large / "noise.bin")
    open_bundle(there(device, large))


def test_a_part_with_a_wrong_byte_is_copied_anew(
    server: Server, device: Device, large: Path, run: Run
) -> None:
    with cutting(server, lambda: arrived(device) > 10 << 20):
        assert run("deploy", large, "--device", "loop")[0] == 5
    assert wait_until(lambda: not server.connections(), 10)
    (part,) = Path(device.folder).glob(f"staging/{large.name}/*.part")
    with part.open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"wrong")
    code, _, err = run("deploy", large, "--device", "loop")
    assert code == 0, err
    assert "resumes at" not in err
    open_bundle(there(device, large))


def test_parity_goes_on_after_a_cut(
    server: Server, device: Device, bundle: Path, tmp_path: Path, run: Run
) -> None:
    assert run("deploy", bundle, "--device", "loop")[0] == 0
    count = 40
    words: tuple[object, ...] = ("--reference", bundles.made().onnx)
    words = (*words, "--allow-different-reference", "--full")
    words = (*words, "--data", labeled(tmp_path, count), "--corruptions", "fog,motion_blur")
    command = ("parity", bundle, "--device", "loop", *words, "--tolerance", "90", "--json")
    with cutting(server, lambda: len(list((tmp_path / "cache/parity").rglob("*"))) > 20):
        code, out, err = run(*command)
    assert code == 5, err
    error = err.splitlines()[-1]
    assert error.startswith("error: the link to loop broke")
    assert json.loads(out)["exit_code"] == 5
    assert "Traceback" not in err
    assert wait_until(lambda: not using(Path(device.folder)), 10)
    assert not (bundle / "parity.json").exists()
    code, out, err = run(*command)
    assert code == 0, err
    document = json.loads(out)
    assert document["inferences_cached"] > 0
    assert document["inferences"] + document["inferences_cached"] == 2 * count * 11
    assert json.loads((bundle / "parity.json").read_text())["candidate"].endswith("on loop")


def test_a_device_against_a_file_and_across(
    device: Device, bundle: Path, tmp_path: Path, run: Run
) -> None:
    """The reference is somebody's ONNX file; the bundle answers on the device."""
    assert run("deploy", bundle, "--device", "loop")[0] == 0
    data = labeled(tmp_path, 6)
    floats = bundles.made().onnx
    words = (
        *("--data", data, "--corruptions", "fog,contrast", "--severities", "1,3"),
        *("--full", "--tolerance", "90", "--json"),
    )
    reference = f"{floats}@openvino:CPU"
    code, out, err = run("parity", bundle, "--device", "loop", "--reference", reference, *words)
    assert code == 0, err
    pair = json.loads(out)
    assert pair["device"] == "loop"
    assert "OpenVINO" in pair["sides"]["reference"]
    assert pair["candidate"].endswith("on loop")

    names = (floats, reference, bundle, "--device", f"loop:{bundle}")
    code, out, err = run("parity", "--across", *names, *words)
    assert code == 0, err
    document = json.loads(out)
    letters = {one["letter"]: one for one in document["artifacts"]}
    assert letters["D"]["name"] == f"loop:{bundle}"
    assert letters["D"]["executed"]["devices"] == ["CPU"]
    assert letters["D"]["executed"]["runtime"] == letters["C"]["executed"]["runtime"]
    equal = next(one for one in document["agreement"] if one["one"] + one["other"] == "CD")
    assert equal["clean"]["estimate"] == equal["corrupted"]["estimate"] == 1
    assert document["inferences"] == 6 * 5 * 2  # what the pair answered is cached
    assert pair["clean_error"]["candidate"] == letters["D"]["clean_error"]

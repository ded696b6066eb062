"""Signatures on their way to devices: what the host demands, and what the device itself does."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.bundle.signature import NAMESPACE, SIGNATURE, sign
from edgekit.bundle.store import open_bundle, update_bundle
from edgekit.devices.registry import Device
from tests.devices.conftest import Run
from tests.devices.test_deploy import there


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alice's key and lists of whom to trust."""
    folder = tmp_path_factory.mktemp("keys")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f", "alice"]
    subprocess.run(command, cwd=folder, check=True)
    command[-1] = "mallory"
    subprocess.run(command, cwd=folder, check=True)
    alice, mallory = ((folder / f"{name}.pub").read_text() for name in ("alice", "mallory"))
    (folder / "signers").write_text(f"alice {alice}")
    (folder / "expired").write_text(f'alice valid-before="20200101" {alice}')
    (folder / "git-only").write_text(f'alice namespaces="git" {alice}')
    (folder / "mallory-only").write_text(f"mallory {mallory}")
    (folder / "empty").write_text("")
    return folder


@pytest.fixture
def trusted(device: Device, keys: Path) -> Iterator[Path]:
    """The device's own list, which trusts Alice."""
    path = Path(device.folder) / "allowed_signers"
    shutil.copy(keys / "signers", path)
    yield path
    path.unlink(missing_ok=True)


def kept(device: Device, bundle: Path) -> list[Path]:
    """What a refused deploy left of the bundle."""
    staging = Path(device.folder) / "staging" / bundle.name
    state = there(device, bundle).with_name(f".{bundle.name}.json")
    return [path for path in (staging, state, there(device, bundle)) if path.exists()]


def refused(result: tuple[int, str, str], why: str) -> None:
    code, _, err = result
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2, err
    assert len(errors) == 1
    assert why in errors[0]
    assert "Traceback" not in err


def test_the_device_takes_what_its_own_list_allows(
    device: Device, bundle: Path, keys: Path, trusted: Path, run: Run
) -> None:
    refused(run("deploy", bundle, "--device", "loop"), "is not signed")
    assert kept(device, bundle) == []
    sign(bundle, keys / "alice")
    code, _, err = run("deploy", bundle, "--device", "loop")
    assert code == 0, err
    assert open_bundle(there(device, bundle)).manifest == open_bundle(bundle).manifest
    assert run("deploy", bundle, "--device", "loop")[0] == 0

    shutil.copy(keys / "expired", trusted)  # in its place already, and no longer trusted
    refused(run("deploy", bundle, "--device", "loop"), "not valid today")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("expired", "not valid today"),
        ("git-only", f"not for the namespace {NAMESPACE}"),
        ("mallory-only", "the key that signed it is not in"),
        ("empty", "the key that signed it is not in"),
    ],
)
def test_whom_the_device_does_not_trust(
    device: Device, bundle: Path, keys: Path, trusted: Path, run: Run, name: str, why: str
) -> None:
    shutil.copy(keys / name, trusted)
    sign(bundle, keys / "alice")
    refused(run("deploy", bundle, "--device", "loop"), why)
    assert kept(device, bundle) == []


def test_a_changed_bundle_and_a_list_that_leads_nowhere(
    device: Device, bundle: Path, keys: Path, trusted: Path, run: Run
) -> None:
    update_bundle(bundle, sections={"parity": {"verdict": "fail"}})
    sign(bundle, keys / "alice")
    update_bundle(bundle, sections={"parity": {"verdict": "pass"}})
    refused(run("deploy", bundle, "--device", "loop"), "changed after it was signed")
    sign(bundle, keys / "alice")
    trusted.unlink()
    trusted.symlink_to("nowhere")
    refused(run("deploy", bundle, "--device", "loop"), "does not exist")
    assert kept(device, bundle) == []


@pytest.mark.parametrize("whose", ["host", "device"])
def test_an_older_bundle_does_not_replace_a_newer_one(
    device: Device, bundle: Path, keys: Path, run: Run, whose: str, request: pytest.FixtureRequest
) -> None:
    words: tuple[object, ...] = ("deploy", bundle, "--device", "loop")
    if whose == "host":
        words = (*words, "--signers", keys / "signers")
    else:
        request.getfixturevalue("trusted")
    sign(bundle, keys / "alice", sequence=5)
    assert run(*words)[0] == 0
    newest = (there(device, bundle) / SIGNATURE).read_bytes()
    for sequence, why in ((4, "was signed as number 4"), (None, "without a sequence number")):
        sign(bundle, keys / "alice", sequence=sequence)
        refused(run(*words), why)
        assert (there(device, bundle) / SIGNATURE).read_bytes() == newest
        assert not (Path(device.folder) / "staging" / bundle.name).exists()
    sign(bundle, keys / "alice", sequence=6)
    assert run(*words)[0] == 0
    sign(bundle, keys / "alice", sequence=4)
    refused(run(*words), "was signed as number 4")
    code, _, err = run(*words, "--allow-rollback")
    assert code == 0, err

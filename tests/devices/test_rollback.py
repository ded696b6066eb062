"""What a deploy replaced is kept, and ``deploy --rollback`` puts it back."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from edgekit.bundle.manifest import LABELS, MANIFEST
from edgekit.bundle.selftest import SELFTEST
from edgekit.bundle.signature import SIGNATURE, sign
from edgekit.bundle.store import open_bundle, update_bundle, write_bundle
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.devices.registry import Device, add_device
from edgekit.devices.remote.place import RECORD, Keep, place
from edgekit.devices.remote.previous import main, roll_back
from tests import bundles
from tests.devices.conftest import Run
from tests.devices.test_deploy import there
from tests.devices.test_signed import keys, refused, trusted
from tests.hostile.devices import Network, network

__all__ = ["keys", "network", "trusted"]


@pytest.fixture(autouse=True)
def _nothing_kept(request: pytest.FixtureRequest) -> None:
    """The device is that of other modules' tests too, whose deploys it keeps."""
    if "device" in request.fixturenames:
        device: Device = request.getfixturevalue("device")
        shutil.rmtree(Path(device.folder) / "previous", ignore_errors=True)


def kept_of(device: Device, bundle: Path) -> Path:
    return Path(device.folder) / "previous" / bundle.name


def note(bundle: Path, text: bytes) -> bytes:
    """Make another version of it; the bytes of its manifest."""
    update_bundle(bundle, reports={"notes.txt": text})
    return (bundle / MANIFEST).read_bytes()


def test_there_and_back(device: Device, bundle: Path, run: Run) -> None:
    words: tuple[object, ...] = ("deploy", "--rollback", "--device", "loop")
    first = note(bundle, b"first")
    assert run("deploy", bundle, "--device", "loop")[0] == 0
    refused(run(*words), "loop has nothing to roll back to: ")
    note(bundle, b"second")
    assert run("deploy", bundle, "--device", "loop")[0] == 0
    assert (kept_of(device, bundle) / MANIFEST).read_bytes() == first

    code, out, err = run(*words, "--json")
    assert code == 0, err
    (entry,) = json.loads(out)["devices"]
    assert entry["bundle"] == str(there(device, bundle))
    assert entry["selftest"].startswith("self-test: 8 synthetic images")
    assert (there(device, bundle) / MANIFEST).read_bytes() == first
    assert not kept_of(device, bundle).exists()
    refused(run(*words, "--quiet"), "nothing to roll back to")

    note(bundle, b"first")  # what is there now is known
    code, out, _ = run("deploy", bundle, "--device", "loop", "--json")
    assert json.loads(out)["devices"][0]["up_to_date"]


def test_what_fails_its_test_can_be_undone(
    device: Device, bundle: Path, tmp_path: Path, run: Run
) -> None:
    good = note(bundle, b"good")
    assert run("deploy", bundle, "--device", "loop")[0] == 0
    other = tmp_path / "other" / bundle.name
    _with_a_test_that_fails(bundle, other)
    for _ in range(2):  # what never passed takes nothing's place among the kept
        code, _, err = run("deploy", other, "--device", "loop")
        assert code == 2
        last = err.splitlines()[-1]
        assert SELFTEST in last
        assert f"'edgekit deploy {bundle.name} --rollback --device loop' puts it back" in last
        assert (kept_of(device, bundle) / MANIFEST).read_bytes() == good
    code, _, err = run("deploy", bundle.name, "--rollback", "--device", "loop")
    assert code == 0, err
    assert (there(device, bundle) / MANIFEST).read_bytes() == good


def _with_a_test_that_fails(bundle: Path, path: Path) -> None:
    """A bundle that opens, and cannot pass its self-test."""
    opened = open_bundle(bundle)
    files: dict[str, Path | bytes] = {
        name: bundle / name for name in opened.manifest.files if name != LABELS
    }
    path.parent.mkdir()
    write_bundle(path, opened.manifest, {**files, SELFTEST: b"nonsense"}, opened.labels)


@pytest.mark.parametrize("whose", ["host", "device"])
def test_signatures_and_their_numbers_count(
    device: Device, bundle: Path, keys: Path, run: Run, whose: str, request: pytest.FixtureRequest
) -> None:
    words: tuple[object, ...] = ("--device", "loop")
    if whose == "host":
        words = (*words, "--signers", keys / "signers")
    else:
        request.getfixturevalue("trusted")
    sign(bundle, keys / "alice", sequence=5)
    assert run("deploy", bundle, *words)[0] == 0
    sign(bundle, keys / "alice", sequence=6)
    assert run("deploy", bundle, *words)[0] == 0
    newest = (there(device, bundle) / SIGNATURE).read_bytes()
    refused(run("deploy", "--rollback", *words), "was signed as number 5")
    if whose == "host":
        untrusted = ("--signers", keys / "mallory-only", "--allow-rollback")
        refused(run("deploy", "--rollback", "--device", "loop", *untrusted), "is not in")
    else:
        shutil.copy(keys / "mallory-only", Path(device.folder) / "allowed_signers")
        refused(run("deploy", "--rollback", *words, "--allow-rollback"), "is not in")
        shutil.copy(keys / "signers", Path(device.folder) / "allowed_signers")
    assert (there(device, bundle) / SIGNATURE).read_bytes() == newest
    code, _, err = run("deploy", "--rollback", *words, "--allow-rollback")
    assert code == 0, err
    assert (there(device, bundle) / SIGNATURE).read_bytes() != newest


def test_an_engine_that_was_built_there_is_not_what_was_signed(
    network: Network, run: Run, keys: Path
) -> None:
    device = network.good("nano")
    add_device(device)
    kept = Path(device.folder) / "previous" / "cpu"
    shutil.copytree(bundles.bundle("cpu"), kept)
    update_bundle(kept, sections={"engine": {"state": "built", "tensorrt": "10.3.0"}})
    words: tuple[object, ...] = ("deploy", "--rollback", "--device", "nano")
    why = "nano built an engine for the cpu that it keeps"
    refused(run(*words, "--signers", keys / "signers"), why)
    (Path(device.folder) / "allowed_signers").touch()
    refused(run(*words), why)
    shutil.copytree(kept, kept.with_name("gpu"))
    refused(run(*words), "nano can roll back several bundles (cpu, gpu): name one")
    refused(run("deploy", "tpu", *words[1:]), "nano has nothing to roll back to for tpu: ")
    refused(run("deploy", "--device", "nano"), "name the bundle to deploy")


class Shelf:
    """The device's side alone, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = Path(shutil.copytree(bundles.bundle("cpu"), folder / "source"))
        self.path, self.state = folder / "bundles" / "cpu", folder / "bundles" / ".cpu.json"
        self.previous = folder / "previous" / "cpu"

    def place(self, text: bytes, *, passed: bool) -> bytes:
        manifest = note(self.source, text)
        staging = self.folder / "staging"
        staging.mkdir(exist_ok=True)
        for file in self.source.iterdir():
            data = file.read_bytes()
            (staging / hashlib.sha256(data).hexdigest()).write_bytes(data)
        digest = hashlib.sha256(manifest).hexdigest()
        place(staging, digest, self.path, keep=Keep(self.state, self.previous))
        assert not self.state.exists()
        if passed:
            self.state.write_bytes(b"passed: " + text)
        return manifest

    def kept(self) -> bytes:
        return (self.previous / "notes.txt").read_bytes()

    def roll_back(self) -> str:
        digest = hashlib.sha256((self.previous / MANIFEST).read_bytes()).hexdigest()
        return roll_back(self.previous, digest, self.path, self.state)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_the_last_that_passed_is_kept(shelf: Shelf) -> None:
    shelf.place(b"1", passed=False)
    shelf.place(b"2", passed=True)
    assert not shelf.previous.exists()  # the first had not passed
    shelf.place(b"3", passed=False)
    assert shelf.kept() == b"2"
    assert (shelf.previous / RECORD).read_bytes() == b"passed: 2"
    shelf.place(b"4", passed=True)
    assert shelf.kept() == b"2"
    (shelf.path / "model.bin").unlink()  # passed, and damaged since
    shelf.place(b"5", passed=True)
    assert shelf.kept() == b"2"
    shelf.place(b"6", passed=True)
    assert shelf.kept() == b"5"


def test_it_comes_back_whole_or_not_at_all(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    first = shelf.place(b"1", passed=True)
    second = shelf.place(b"2", passed=True)
    weights = (shelf.previous / "model.bin").read_bytes()
    (shelf.previous / "model.bin").unlink()  # it shares its content with the other
    (shelf.previous / "model.bin").write_bytes(b"rotten")
    with pytest.raises(UsageError, match=r"model\.bin does not match its manifest"):
        shelf.roll_back()
    (shelf.previous / "model.bin").write_bytes(weights)
    with pytest.raises(UsageError, match="was changed meanwhile"):
        roll_back(shelf.previous, "0" * 64, shelf.path, shelf.state)
    assert (shelf.path / MANIFEST).read_bytes() == second
    assert shelf.state.read_bytes() == b"passed: 2"
    assert shelf.roll_back().startswith("self-test: 8 synthetic images")
    assert (shelf.path / MANIFEST).read_bytes() == first
    assert not (shelf.path / RECORD).exists()
    assert not shelf.state.exists()  # the host writes it
    assert main([str(shelf.previous)]) == 2
    assert main([str(shelf.folder / "none"), "0", str(shelf.path), str(shelf.state)]) == 2
    assert capsys.readouterr().err.count("error: ") == 2


def test_what_fails_its_test_does_not_come_back(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.place(b"1", passed=True)
    second = shelf.place(b"2", passed=True)

    def fails(*_: object) -> None:
        raise EdgekitError("fails its self-test")

    monkeypatch.setattr("edgekit.runtime.selftest.prove", fails)
    with pytest.raises(EdgekitError, match="fails its self-test"):
        shelf.roll_back()
    assert (shelf.path / MANIFEST).read_bytes() == second
    assert shelf.state.read_bytes() == b"passed: 2"

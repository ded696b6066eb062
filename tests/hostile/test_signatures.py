"""Signed bundles, and what somebody without the key may try with one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit import load
from edgekit.bundle.manifest import FIELD, BundleError
from edgekit.bundle.signature import NAMESPACE, SIGNATURE, sign, statement, verify
from edgekit.bundle.store import open_bundle, update_bundle, write_bundle, zip_bundle
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.devices.deploy import check_signature
from edgekit.devices.registry import Device
from tests import bundles

pytestmark = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="ssh-keygen is missing: openssh-client"
)
ALICE = "alice@factory"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two keys and several lists of whom to trust."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("alice", "mallory"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name]
        subprocess.run(command, cwd=folder, check=True)
    alice, mallory = (
        " ".join((folder / f"{name}.pub").read_text().split()[:2]) for name in ("alice", "mallory")
    )
    lists = {
        "signers": f"{ALICE} {alice}",
        "restricted": f'{ALICE} namespaces="{NAMESPACE}" {alice}',
        "expired": f'{ALICE} valid-before="20200101" {alice}',
        "future": f'{ALICE} valid-after="29990101" {alice}',
        "git-only": f'{ALICE} namespaces="git" {alice}',
        "mallory-only": f"mallory@nowhere {mallory}",
        "garbage": "garbage",
        "empty": "",
    }
    for name, line in lists.items():
        (folder / name).write_text(line + "\n")
    return folder


@pytest.fixture
def signed(tmp_path: Path, keys: Path) -> Path:
    path = Path(shutil.copytree(bundles.bundle("cpu", "inline"), tmp_path / "cpu"))
    update_bundle(path, sections={"parity": {"verdict": "pass", "images": 723}})
    sign(path, keys / "alice")
    return path


@pytest.mark.parametrize("name", ["signers", "restricted"])
def test_a_signed_bundle_is_trusted(signed: Path, keys: Path, name: str) -> None:
    signer = verify(open_bundle(signed), keys / name)
    assert signer.principal == ALICE
    assert signer.key.startswith("ED25519 key SHA256:")
    assert load(signed, cache=False, signers=keys / name).size == bundles.SIZE


def test_it_stays_signed_in_a_zip_and_after_a_benchmark(signed: Path, keys: Path) -> None:
    update_bundle(signed, sections={"bench": {"p50": 1.0}}, reports={"bench.json": b"{}"})
    zip_bundle(signed, signed.with_suffix(".zip"))
    for path in (signed, signed.with_suffix(".zip")):
        assert verify(open_bundle(path), keys / "signers").principal == ALICE


def test_a_changed_reference_of_the_field_breaks_it(signed: Path, keys: Path) -> None:
    """Whoever may say what normal is could hide that the images have changed."""
    update_bundle(signed, reports={FIELD: b"{}"})
    with pytest.raises(BundleError, match="changed after it was signed"):
        verify(open_bundle(signed), keys / "signers")
    sign(signed, keys / "alice")
    assert verify(open_bundle(signed), keys / "signers").principal == ALICE
    update_bundle(signed, reports={FIELD: b"{ }"})
    with pytest.raises(BundleError, match="changed after it was signed"):
        verify(open_bundle(signed), keys / "signers")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("expired", "not valid today"),
        ("future", "not valid today"),
        ("git-only", f"not for the namespace {NAMESPACE}"),
        ("mallory-only", "the key that signed it is not in"),
        ("garbage", "not in the format of allowed_signers"),
        ("empty", "not in the format of allowed_signers"),
        ("nowhere", "does not exist"),
    ],
)
def test_whom_the_list_does_not_allow_is_refused(
    signed: Path, keys: Path, name: str, why: str
) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        load(signed, signers=keys / name)
    assert len(str(refused.value).splitlines()) == 1
    assert refused.value.exit_code == 2


def test_an_unsigned_bundle_is_refused(keys: Path) -> None:
    with pytest.raises(BundleError, match="is not signed: run 'edgekit sign'"):
        load(bundles.bundle("cpu", "inline"), signers=keys / "signers")


def test_a_changed_verdict_breaks_it(signed: Path, keys: Path) -> None:
    update_bundle(signed, sections={"parity": {"verdict": "pass", "images": 20}})
    with pytest.raises(BundleError, match="changed after it was signed"):
        verify(open_bundle(signed), keys / "signers")


def renamed_label(path: Path) -> None:
    """The enemy writes a bundle of their own with the old signature beside it."""
    bundle = open_bundle(path)
    files: dict[str, Path | bytes] = {
        name: (path / name).read_bytes() for name in bundle.manifest.files if name != "labels.txt"
    }
    labels = ("all clear", *bundle.labels[1:])
    write_bundle(path, bundle.manifest, files, labels)


def moved_mean(path: Path) -> None:
    bundle = open_bundle(path)
    files: dict[str, Path | bytes] = {
        name: (path / name).read_bytes() for name in bundle.manifest.files if name != "labels.txt"
    }
    from dataclasses import replace

    mean = tuple(value + 50 for value in bundle.manifest.preprocessing.mean)
    changed = replace(bundle.manifest.preprocessing, mean=mean)
    write_bundle(path, replace(bundle.manifest, preprocessing=changed), files, bundle.labels)


@pytest.mark.parametrize("attack", [renamed_label, moved_mean])
def test_another_model_under_an_old_signature_is_refused(
    signed: Path, keys: Path, attack: Any
) -> None:
    attack(signed)
    load(signed, cache=False)  # whole in itself: only the signature tells
    with pytest.raises(BundleError, match="changed after it was signed"):
        load(signed, signers=keys / "signers")


@pytest.mark.parametrize("attack", [renamed_label, moved_mean])
def test_a_statement_that_was_rewritten_too_is_refused(
    signed: Path, keys: Path, attack: Any
) -> None:
    attack(signed)
    document = json.loads((signed / SIGNATURE).read_text())
    document["statement"] = statement(open_bundle(signed).manifest)
    update_bundle(signed, reports={SIGNATURE: json.dumps(document).encode()})
    with pytest.raises(BundleError, match="its signature belongs to another bundle"):
        load(signed, signers=keys / "signers")


def test_a_signature_by_somebody_else_is_refused(signed: Path, keys: Path) -> None:
    renamed_label(signed)
    sign(signed, keys / "mallory")
    assert verify(open_bundle(signed), keys / "mallory-only")
    with pytest.raises(BundleError, match="the key that signed it is not in"):
        load(signed, signers=keys / "signers")


def test_a_signature_for_another_purpose_is_refused(signed: Path, keys: Path) -> None:
    """Alice signs what an enemy gives her, as a git commit, say."""
    text = statement(open_bundle(signed).manifest)
    made = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", str(keys / "alice"), "-n", "git"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    document = {"schema": 1, "statement": text, "signature": made.stdout}
    update_bundle(signed, reports={SIGNATURE: json.dumps(document).encode()})
    with pytest.raises(BundleError, match="not made for an edgekit bundle"):
        verify(open_bundle(signed), keys / "signers")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b"[" * 40_000,
        b'{"schema": 2}',
        b'{"schema": 1}',
        b'{"schema": 1, "statement": 1, "signature": 2}',
        b'{"schema": 1, "statement": "", "signature": "", "more": 1}',
        b'{"schema": 1, "statement": "\\ud800", "signature": "\\u00e9"}',
        b"x" * 100_000,
    ],
)
def test_a_malformed_signature_gets_one_line(signed: Path, keys: Path, content: bytes) -> None:
    update_bundle(signed, reports={SIGNATURE: content})
    with pytest.raises(BundleError) as refused:
        verify(open_bundle(signed), keys / "signers")
    assert len(str(refused.value).splitlines()) == 1


def test_a_signature_that_is_no_signature_gets_one_line(signed: Path, keys: Path) -> None:
    text = statement(open_bundle(signed).manifest)
    document = {"schema": 1, "statement": text, "signature": "-----BEGIN SSH SIGNATURE-----\nxx"}
    update_bundle(signed, reports={SIGNATURE: json.dumps(document).encode()})
    with pytest.raises(BundleError, match="is not trusted") as refused:
        verify(open_bundle(signed), keys / "signers")
    assert len(str(refused.value).splitlines()) == 1


def test_what_is_no_key_does_not_sign(signed: Path, keys: Path, tmp_path: Path) -> None:
    before = (signed / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match="is not a file"):
        sign(signed, tmp_path / "missing")
    with pytest.raises(EdgekitError, match="was not signed: ssh-keygen cannot use"):
        sign(signed, keys / "signers")
    assert (signed / "manifest.json").read_bytes() == before


def test_a_smaller_number_is_refused(signed: Path, keys: Path) -> None:
    """An old bundle with its old signature, put where a newer one is expected."""
    sign(signed, keys / "alice", sequence=12)
    signers = keys / "signers"
    assert verify(open_bundle(signed), signers).sequence == 12
    assert load(signed, cache=False, signers=signers, at_least=12).size == bundles.SIZE
    with pytest.raises(BundleError, match="was signed as number 12, 13 is the least") as refused:
        load(signed, signers=signers, at_least=13)
    assert len(str(refused.value).splitlines()) == 1
    sign(signed, keys / "alice")
    assert verify(open_bundle(signed), signers).sequence is None
    with pytest.raises(BundleError, match="signed without a sequence number"):
        load(signed, signers=signers, at_least=0)
    with pytest.raises(UsageError, match="name the file of signers"):
        load(signed, at_least=1)


@pytest.mark.parametrize("number", ["13", "-1", "true", "1e99", "9" * 400, '"12"', "null", "[]"])
def test_a_number_that_nobody_signed_is_refused(signed: Path, keys: Path, number: str) -> None:
    sign(signed, keys / "alice", sequence=12)
    document = json.loads((signed / SIGNATURE).read_text())
    text = document["statement"].replace('"sequence":12', f'"sequence":{number}')
    assert text != document["statement"]
    document["statement"] = text
    update_bundle(signed, reports={SIGNATURE: json.dumps(document).encode()})
    with pytest.raises(BundleError, match=r"changed after it was signed|belongs to another"):
        verify(open_bundle(signed), keys / "signers")


def edgekit(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekit", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_commands(tmp_path: Path, keys: Path) -> None:
    path = Path(shutil.copytree(bundles.bundle("cpu", "inline"), tmp_path / "cpu"))
    refused = edgekit("verify", path, "--signers", keys / "signers", "--json")
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["exit_code"] == 2
    assert edgekit("sign", path, "--key", keys / "alice").returncode == 0
    trusted = edgekit("verify", path, "--signers", keys / "signers")
    assert trusted.returncode == 0
    assert f"signed by {ALICE}" in trusted.stdout
    assert edgekit("sign", path, "--key", keys / "alice", "--sequence", 7).returncode == 0
    trusted = edgekit("verify", path, "--signers", keys / "signers", "--at-least", 7)
    assert trusted.stdout.endswith(", as number 7\n")
    refused = edgekit("verify", path, "--signers", keys / "signers", "--at-least", 8)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    ("entry", "given", "why"),
    [
        ({"require_signature": True}, None, "accepts signed bundles only"),
        ({"require_signature": True}, "mallory-only", "is not in"),
        ({"signers": "mallory-only"}, None, "is not in"),
        ({"signers": "expired", "require_signature": True}, None, "not valid today"),
        ({"signers": "signers", "require_signature": True}, None, ""),
        ({"signers": "expired", "require_signature": True}, "signers", ""),
        ({}, None, ""),
    ],
)
def test_a_device_takes_what_its_entry_allows(
    signed: Path, keys: Path, entry: dict[str, Any], given: str | None, why: str
) -> None:
    signers = str(keys / entry["signers"]) if "signers" in entry else ""
    device = Device("nano", "nano@host", **{**entry, "signers": signers})
    trusted = None if given is None else keys / given
    if not why:
        check_signature(open_bundle(signed), device, trusted)
        return
    with pytest.raises(UsageError, match=why):
        check_signature(open_bundle(signed), device, trusted)

"""Signs a bundle with its owner's ssh key, and checks who signed a bundle.

OpenSSH does both (``ssh-keygen -Y``): hardware keys and agents work, and devices have it already.
The signature covers a statement about the bundle, not its files one by one: the identity of what is
executed (edgekit.bundle.manifest), parity's verdict, and what a monitor compares with. Later
benchmarks and reports do not invalidate it; another model, class name or verdict does. A signer may
number what they sign: who knows one number refuses what has a smaller one. Runs on devices.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from edgekit.bundle.manifest import FIELD, BundleError, Manifest
from edgekit.bundle.store import Bundle, open_bundle, update_bundle
from edgekit.core.documents import Document
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError

SIGNATURE: Final = "signature.json"
NAMESPACE: Final = "edgekit-bundle"
"""The namespace that a key's entry in allowed_signers may be restricted to."""

_MOST_BYTES: Final = 64 << 10  # an RSA signature of 16,384 bits takes 4 KiB
_SECONDS: Final = 30  # for a check, which needs no user input
_LARGEST: Final = 2**63 - 1


@dataclass(frozen=True)
class Signer:
    """Who vouches for a bundle."""

    principal: str  # the name beside the key in allowed_signers
    key: str  # kind and fingerprint
    sequence: int | None = None  # what the signer numbered the bundle; None: not at all


@dataclass(frozen=True)
class StoredSignature(Document):
    """The content of ``signature.json``."""

    SCHEMA: ClassVar = 1

    statement: str
    """What was signed: JSON as text, to the byte."""
    signature: str
    """OpenSSH's, armored."""

    def to_bytes(self) -> bytes:
        """The file's content."""
        return (json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n").encode()


def statement(manifest: Manifest, sequence: int | None = None) -> str:
    """The text that a signature covers; equal bundles give equal text."""
    parity = manifest.sections.get("parity")
    document: dict[str, Any] = {
        "schema": StoredSignature.SCHEMA,
        "purpose": NAMESPACE,
        "model": manifest.identity(),
        "parity": None if parity is None else _digest(parity),
        "verdict": parity.get("verdict") if isinstance(parity, dict) else None,
    }
    if sequence is not None:
        document["sequence"] = sequence
    if FIELD in manifest.files:
        document["field"] = manifest.files[FIELD].sha256
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Signed(Document):
    """A bundle that was signed."""

    SCHEMA: ClassVar = 1

    bundle: Path
    signed: str
    """The signed statement: JSON as text, to the byte."""


@dataclass(frozen=True)
class Verified(Document):
    """A bundle whose files and signature are right."""

    SCHEMA: ClassVar = 1

    bundle: Path
    signer: str
    """Their name in the file of signers."""
    key: str
    sequence: int | None
    """What the signer numbered it; null: not at all."""
    model: str
    """SHA-256 of everything that determines the bundle's results."""


def sign(path: Path, key: Path, sequence: int | None = None) -> str:
    """Sign the bundle in the folder ``path``; returns the signed statement.

    ``key`` is a private key, or the public half of one held by an agent or a hardware key.
    ``sequence`` is the signer's own number for it, larger for what replaces another.
    """
    if sequence is not None and not 0 <= sequence <= _LARGEST:
        raise UsageError(f"sequence {sequence} is out of range: use 0 to {_LARGEST}")
    if not key.is_file():
        raise UsageError(f"{key} is not a file: name a private ssh key, such as ~/.ssh/id_ed25519")
    bundle = open_bundle(path, any_arch=True)
    if bundle.path.is_file():
        raise UsageError(f"{path} is a .zip: sign the folder it was made from and zip it again")
    text = statement(bundle.manifest, sequence)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        message = Path(folder) / "statement"
        message.write_text(text, encoding="utf-8")
        # No time limit: it may ask for a passphrase, or a touch of a hardware key.
        signed = subprocess.run(
            [_ssh_keygen(), "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(message)],
            stdout=subprocess.DEVNULL,
            stderr=None if sys.stderr.isatty() else subprocess.PIPE,
            text=True,
        )
        if signed.returncode != 0:
            reason = _reason(signed.stderr or "", "see above")
            raise EdgekitError(f"{path} was not signed: ssh-keygen cannot use {key}: {reason}")
        signature = message.with_suffix(".sig").read_text(encoding="ascii")
    update_bundle(path, reports={SIGNATURE: StoredSignature(text, signature).to_bytes()})
    return text


def verify(bundle: Bundle, signers: Path, at_least: int | None = None) -> Signer:
    """Who signed the bundle; an error unless ``signers`` allows that key to sign it.

    ``signers`` has the format of OpenSSH's allowed_signers (``man ssh-keygen``). ``at_least`` is
    the smallest sequence number to accept.
    """
    if not signers.is_file():
        raise UsageError(f"{signers} does not exist: name a file in the format of allowed_signers")
    stored = _stored(bundle)
    sequence = sequence_of(stored.statement)
    if stored.statement != statement(bundle.manifest, sequence):
        raise BundleError(
            f"{bundle.path}: its model, labels or parity verdict were changed after it was signed: "
            "sign it again if you made the change"
        )
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        signature = Path(folder) / "signature"
        signature.write_text(stored.signature, encoding="ascii")
        principal = _principal(bundle, signature, signers)
        checked = _run(
            *("verify", "-f", str(signers), "-I", principal, "-n", NAMESPACE),
            *("-s", str(signature)),
            message=stored.statement,
        )
    if checked.returncode != 0:
        raise BundleError(_refusal(bundle, checked.stderr, signers))
    signer = Signer(principal, checked.stdout.strip().rpartition(" with ")[2], sequence)
    if at_least is not None:
        refuse_older(signer, at_least, str(bundle.path), f"{at_least} is the least to accept")
    return signer


def refuse_older(signer: Signer, than: int, name: str, why: str) -> None:
    """An error if what was signed has a smaller number than ``than``, or none."""
    if signer.sequence is None:
        raise BundleError(
            f"{name} was signed without a sequence number, {why}: sign it with --sequence"
        )
    if signer.sequence < than:
        raise BundleError(f"{name} was signed as number {signer.sequence}, {why}: use a newer one")


def sequence_of(text: str) -> int | None:
    """The number in a statement; None if it has none that `sign` would have written."""
    try:
        sequence = json.loads(text)["sequence"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return sequence if type(sequence) is int and 0 <= sequence <= _LARGEST else None


def standing_sequence(document: bytes | str) -> int | None:
    """The number in a ``signature.json`` that a device kept; None if it has none.

    The signature is not checked: a device that builds an engine has changed its bundle since.
    """
    try:
        return sequence_of(json.loads(document)["statement"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _principal(bundle: Bundle, signature: Path, signers: Path) -> str:
    result = _run("find-principals", "-s", str(signature), "-f", str(signers), message="")
    names = result.stdout.splitlines()
    if result.returncode != 0 or not names:
        raise BundleError(_refusal(bundle, result.stderr, signers))
    return names[0]


def _stored(bundle: Bundle) -> StoredSignature:
    path, entry = bundle.path, bundle.manifest.files.get(SIGNATURE)
    if entry is None:
        raise BundleError(f"{path} is not signed: run 'edgekit sign' where it was built")
    if entry.size > _MOST_BYTES:
        raise BundleError(f"{path}: {SIGNATURE} has {entry.size} bytes: sign the bundle again")
    try:
        document = json.loads((bundle.folder / SIGNATURE).read_bytes())
        schema = document.pop("schema")
        if schema != StoredSignature.SCHEMA:
            raise BundleError(
                f"{path}: {SIGNATURE} has schema {schema!r}, this edgekit reads "
                f"{StoredSignature.SCHEMA}: "
                "sign the bundle again"
            )
        stored = StoredSignature(**document)
        if not (isinstance(stored.statement, str) and stored.signature.isascii()):
            raise ValueError("not text")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path}: {SIGNATURE} is damaged: sign the bundle again") from error
    return stored


def _refusal(bundle: Bundle, stderr: str, signers: Path) -> str:
    """Why ssh-keygen rejects a signature, in our words where we know the case."""
    if "expired" in stderr or "not yet valid" in stderr:
        why = f"its signer's entry in {signers} is not valid today"
    elif "not permitted for use in signature namespace" in stderr:
        why = f"its signer's entry in {signers} is not for the namespace {NAMESPACE}"
    elif "namespace does not match" in stderr:
        why = "its signature was not made for an edgekit bundle"
    elif "incorrect signature" in stderr:
        why = "its signature belongs to another bundle"
    elif "parse signature" in stderr or "armor" in stderr or "incomplete message" in stderr:
        why = f"its {SIGNATURE} is damaged"
    elif "missing key" in stderr:
        why = f"{signers} is not in the format of allowed_signers"
    elif "No principal matched" in stderr:
        why = f"the key that signed it is not in {signers}"
    else:
        why = _reason(stderr, "ssh-keygen rejects its signature")
    return f"{bundle.path} is not trusted: {why}"


def _run(action: str, *words: str, message: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [_ssh_keygen(), "-Y", action, *words],
            input=message,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise EdgekitError(f"ssh-keygen -Y {action} gave no answer in {_SECONDS} s") from error


def _ssh_keygen() -> str:
    path = shutil.which("ssh-keygen")
    if path is None:
        raise ToolchainMissing("ssh-keygen is missing: run 'apt-get install openssh-client'")
    return path


def _reason(stderr: str, otherwise: str) -> str:
    return " ".join(stderr.split())[:200] or otherwise


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

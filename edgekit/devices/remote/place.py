"""``python -m edgekit.devices.remote.place STAGING MANIFEST_SHA256 BUNDLE``, on the device.

Assembles a bundle from staged files, which are named by their hashes. It appears in one step, and
only if it opens as a bundle: every checksum right, made for this architecture. ``--signers FILE``
demands a signature by somebody in that file, too, and a sequence number that is not smaller than
that of the bundle it replaces (unless ``--allow-rollback``). ``--keep STATE PREVIOUS`` keeps what
it replaces in the folder PREVIOUS, if the file STATE says that it passed its self-test there.
``--verify BUNDLE FILE`` checks one that is in its place already.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.bundle.manifest import MANIFEST, parse_manifest
from edgekit.bundle.signature import SIGNATURE, refuse_older, standing_sequence, verify
from edgekit.bundle.store import Bundle, open_bundle
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.files import link, sync_folder
from edgekit.core.folders import locked, replace_folder

RECORD: Final = "deployed.json"
"""Beside the files of a bundle that is kept: what STATE said of it."""
_USAGE: Final = (
    "usage: python -m edgekit.devices.remote.place STAGING SHA256 BUNDLE "
    "[--signers FILE] [--allow-rollback] [--keep STATE PREVIOUS]"
)


@dataclass(frozen=True)
class Keep:
    """Where to keep what is replaced."""

    state: Path  # what the last deploy recorded once the bundle had passed its self-test
    previous: Path


def place(
    staging: Path,
    manifest_sha256: str,
    path: Path,
    signers: Path | None = None,
    *,
    allow_rollback: bool = False,
    keep: Keep | None = None,
) -> None:
    """Make the bundle at ``path`` from the files in ``staging``; ``signers`` must vouch for it."""
    try:
        data = (staging / manifest_sha256).read_bytes()
    except OSError as error:
        raise UsageError(f"{staging} has no staged manifest: deploy again") from error
    manifest = parse_manifest(data, str(path))

    def fill(folder: Path) -> None:
        for name, entry in manifest.files.items():
            link(staging / entry.sha256, folder / name)
        link(staging / manifest_sha256, folder / MANIFEST)
        bundle = open_bundle(folder)  # if refused here, it never appears at its path
        vouch(bundle, path, signers, allow_rollback=allow_rollback)
        if keep is not None:
            _keep(path, keep)

    with locked(path):
        replace_folder(path, fill)


def vouch(bundle: Bundle, path: Path, signers: Path | None, *, allow_rollback: bool) -> None:
    """An error unless ``bundle`` may take the place at ``path``."""
    if signers is None:
        return
    signer = verify(dataclasses.replace(bundle, path=path), signers)
    standing = _standing(path)
    if standing is not None and not allow_rollback:
        refuse_older(signer, standing, str(path), f"number {standing} is in its place")


def forget_state(state: Path) -> None:
    """From here on, what is in its place has not passed its self-test."""
    state.unlink(missing_ok=True)
    sync_folder(state.parent)


def _keep(path: Path, keep: Keep) -> None:
    """Keep what is at ``path``, with its record. If it never passed, what was kept stays."""
    try:
        record = keep.state.read_bytes()
        bundle = open_bundle(path)
    except (OSError, EdgekitError):  # none there, or not whole
        pass
    else:

        def fill(folder: Path) -> None:
            for name in (MANIFEST, *bundle.manifest.files):
                link(bundle.folder / name, folder / name)
            (folder / RECORD).write_bytes(record)

        replace_folder(keep.previous, fill)
    forget_state(keep.state)


def _standing(path: Path) -> int | None:
    """The sequence number of what is there."""
    try:
        return standing_sequence((path / SIGNATURE).read_bytes())
    except OSError:
        return None


@dataclass
class Options:
    """What follows the paths on the command line."""

    signers: Path | None = None
    allow_rollback: bool = False
    keep: Keep | None = None

    @classmethod
    def of(cls, words: list[str]) -> Options:
        """Read them."""
        found = cls()
        while words:
            match words:
                case ["--signers", path, *words]:
                    found.signers = Path(path)
                case ["--allow-rollback", *words]:
                    found.allow_rollback = True
                case ["--keep", state, previous, *words]:
                    found.keep = Keep(Path(state), Path(previous))
                case _:
                    raise UsageError(_USAGE)
        return found


def main(arguments: list[str]) -> int:
    """Place one bundle; the exit code."""
    try:
        match arguments:
            case ["--verify", path, signers]:
                verify(open_bundle(Path(path)), Path(signers))
            case [staging, digest, path, *words]:
                place(Path(staging), digest, Path(path), **vars(Options.of(words)))
            case _:
                raise UsageError(_USAGE)
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

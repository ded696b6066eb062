"""``python -m edgekit.devices.remote.place STAGING MANIFEST_SHA256 BUNDLE``, on the device.

Assembles a bundle from staged files, which are named by their hashes. It appears in one step, and
only if it opens as a bundle: every checksum right, made for this architecture. ``--signers FILE``
demands a signature by somebody in that file, too, and a sequence number that is not smaller than
that of the bundle it replaces (unless ``--allow-rollback``). ``--verify BUNDLE FILE`` checks one
that is in its place already.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from edgekit.bundle.manifest import MANIFEST, parse_manifest
from edgekit.bundle.signature import SIGNATURE, refuse_older, standing_sequence, verify
from edgekit.bundle.store import open_bundle
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.files import link
from edgekit.core.folders import locked, replace_folder


def place(
    staging: Path,
    manifest_sha256: str,
    path: Path,
    signers: Path | None = None,
    *,
    allow_rollback: bool = False,
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
        if signers is None:
            return
        signer = verify(dataclasses.replace(bundle, path=path), signers)
        standing = _standing(path)
        if standing is not None and not allow_rollback:
            refuse_older(signer, standing, str(path), f"number {standing} is in its place")

    with locked(path):
        replace_folder(path, fill)


def _standing(path: Path) -> int | None:
    """The sequence number of what is there."""
    try:
        return standing_sequence((path / SIGNATURE).read_bytes())
    except OSError:
        return None


def main(arguments: list[str]) -> int:
    """Place one bundle; the exit code."""
    try:
        match arguments:
            case ["--verify", path, signers]:
                verify(open_bundle(Path(path)), Path(signers))
            case [staging, digest, path]:
                place(Path(staging), digest, Path(path))
            case [staging, digest, path, "--signers", signers]:
                place(Path(staging), digest, Path(path), Path(signers))
            case [staging, digest, path, "--signers", signers, "--allow-rollback"]:
                place(Path(staging), digest, Path(path), Path(signers), allow_rollback=True)
            case _:
                raise UsageError(
                    "usage: python -m edgekit.devices.remote.place STAGING SHA256 BUNDLE "
                    "[--signers FILE [--allow-rollback]]"
                )
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``python -m edgekit.devices.remote.place STAGING MANIFEST_SHA256 BUNDLE``, on the device.

Assembles a bundle from staged files, which are named by their hashes. It appears in one step, and
only if it opens as a bundle: every checksum right, made for this architecture.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgekit.bundle.manifest import MANIFEST, parse_manifest
from edgekit.bundle.store import open_bundle
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.files import link
from edgekit.core.folders import locked, replace_folder


def place(staging: Path, manifest_sha256: str, path: Path) -> None:
    """Make the bundle at ``path`` from the files in ``staging``."""
    try:
        data = (staging / manifest_sha256).read_bytes()
    except OSError as error:
        raise UsageError(f"{staging} has no staged manifest: deploy again") from error
    manifest = parse_manifest(data, str(path))

    def fill(folder: Path) -> None:
        for name, entry in manifest.files.items():
            link(staging / entry.sha256, folder / name)
        link(staging / manifest_sha256, folder / MANIFEST)
        open_bundle(folder)  # if refused here, it never appears at its path

    with locked(path):
        replace_folder(path, fill)


def main(arguments: list[str]) -> int:
    """Place one bundle; the exit code."""
    try:
        match arguments:
            case [staging, digest, path]:
                place(Path(staging), digest, Path(path))
            case _:
                raise UsageError(
                    "usage: python -m edgekit.devices.remote.place STAGING SHA256 BUNDLE"
                )
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``python -m edgekit.devices.remote.previous PREVIOUS SHA256 BUNDLE STATE``, on the device.

Puts the bundle in PREVIOUS, whose manifest has that hash, into its place again, in one step, and
only if it is whole, passes its self-test, and, with ``--signers FILE``, may be there
(`edgekit.devices.remote.place`). Prints the test's result.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from edgekit.bundle.manifest import MANIFEST
from edgekit.bundle.store import open_bundle
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.files import file_sha256, link
from edgekit.core.folders import locked, replace_folder
from edgekit.devices.remote.place import Options, forget_state, vouch

_USAGE: Final = (
    "usage: python -m edgekit.devices.remote.previous PREVIOUS SHA256 BUNDLE STATE "
    "[--signers FILE] [--allow-rollback]"
)


def roll_back(
    previous: Path,
    manifest_sha256: str,
    path: Path,
    state: Path,
    signers: Path | None = None,
    *,
    allow_rollback: bool = False,
) -> str:
    """Put ``previous`` at ``path``; the self-test's result. On an error nothing has changed."""
    from edgekit.runtime.model import load
    from edgekit.runtime.selftest import prove

    with locked(path):
        bundle = open_bundle(previous)
        if file_sha256(previous / MANIFEST) != manifest_sha256:
            raise UsageError(f"{previous} was changed meanwhile: run the command again")
        vouch(bundle, path, signers, allow_rollback=allow_rollback)
        tested = prove(load(previous), bundle).describe()

        def fill(folder: Path) -> None:
            for name in (MANIFEST, *bundle.manifest.files):
                link(previous / name, folder / name)
            forget_state(state)

        replace_folder(path, fill)
    return tested


def main(arguments: list[str]) -> int:
    """Roll one bundle back; the exit code."""
    try:
        match arguments:
            case [previous, digest, path, state, *words]:
                options = Options.of(words)
                tested = roll_back(
                    Path(previous),
                    digest,
                    Path(path),
                    Path(state),
                    options.signers,
                    allow_rollback=options.allow_rollback,
                )
            case _:
                raise UsageError(_USAGE)
        print(tested)
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

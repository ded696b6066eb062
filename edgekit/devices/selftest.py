"""``python -m edgekit.devices.selftest BUNDLE``, on the device: does the bundle work here?"""

from __future__ import annotations

import sys
from pathlib import Path

from edgekit.bundle import open_bundle
from edgekit.errors import EdgekitError, UsageError


def main(arguments: list[str]) -> int:
    """Test one bundle and print one line; the exit code."""
    from edgekit.runtime import load
    from edgekit.selftest import prove

    try:
        if len(arguments) != 1:
            raise UsageError("usage: python -m edgekit.devices.selftest BUNDLE")
        path = Path(arguments[0])
        print(prove(load(path), open_bundle(path)).describe())
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

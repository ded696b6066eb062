"""``python -m edgekit.devices.remote.watch BUNDLE STATE [--follow]``, on the device.

Prints what a monitor that runs there has to say, from its state file: one line of JSON, or with
``--follow`` one every few seconds, until stdin ends. Changes nothing.
"""

from __future__ import annotations

import json
import select
import sys
from pathlib import Path
from typing import Final

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.files import read_regular
from edgekit.field.monitor import Monitor, Status, reference_of
from edgekit.field.reference import FieldReference
from edgekit.field.state import stored_threshold

SECONDS: Final = 10.0
"""Between two lines: as often as a monitor saves its state."""


def status_of(reference: FieldReference, state: Path) -> Status:
    """What the monitor with this state would say."""
    try:
        data = read_regular(state)
    except OSError as error:
        raise UsageError(
            f"no monitor keeps its state at {state} ({error.strerror}): start one there with "
            "'edgekit watch ... --state'"
        ) from error
    images = stored_threshold(data, state)
    return Monitor(reference, state=state, images_a_false_alarm=images).status()


def main(arguments: list[str]) -> int:
    """Print the state of one monitor; the exit code."""
    try:
        match arguments:
            case [bundle, state, *words] if words in ([], ["--follow"]):
                pass
            case _:
                raise UsageError(
                    "usage: python -m edgekit.devices.remote.watch BUNDLE STATE [--follow]"
                )
        reference, path = reference_of(bundle), Path(state).expanduser()
        while True:
            document = status_of(reference, path).to_dict()
            print(json.dumps(document, separators=(",", ":")), flush=True)
            if not words or select.select([0], [], [], SECONDS)[0]:
                return 0
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

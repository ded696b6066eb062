"""The last steps of ``build_on_device.sh``.

``python3 -m edgekit.runtime.finish_engine STEP BUNDLE ...``, where STEP is one of

adopt BUNDLE ENGINE TENSORRT [PLUGIN]   add a finished engine to the bundle
selftest BUNDLE                         compare the engine's answers with the stored ones
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgekit.bundle.engine import adopt_engine
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError


def main(arguments: list[str]) -> int:
    """Run one step; the exit code."""
    from edgekit.bundle.store import open_bundle
    from edgekit.runtime.model import load
    from edgekit.runtime.selftest import prove

    console = Console()
    try:
        match arguments:
            case ["adopt", bundle, engine, tensorrt, *plugin] if len(plugin) < 2:
                adopt_engine(
                    Path(bundle), Path(engine), tensorrt, Path(plugin[0]) if plugin else None
                )
                console.text(f"{bundle} now holds its engine")
            case ["selftest", bundle]:
                proof = prove(load(bundle, cache=False), open_bundle(Path(bundle)))
                console.text(proof.describe())
            case _:
                raise UsageError(
                    "usage: python3 -m edgekit.runtime.finish_engine adopt|selftest BUNDLE"
                )
    except EdgekitError as error:
        console.error(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Signals arrive however many models were loaded and dropped, in whatever order."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from tests import bundles

PROGRAM = textwrap.dedent(
    """
    import gc, signal, sys
    import edgekit
    models = [edgekit.load(path) for path in sys.argv[1:]]
    while models:
        del models[0]  # the one that came first goes first
        gc.collect()
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        print("alive")
    """
)


def test_ctrl_c_after_models_are_gone(tmp_path: Path) -> None:
    paths = [shutil.copytree(bundles.bundle("cpu"), tmp_path / name) for name in ("a", "b")]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "alive"

"""Runs Python with little memory, so that what asks for gigabytes fails instead of getting them."""

import os
import subprocess
import sys

MIB = 1 << 20

_START = """
import resource
resource.setrlimit(resource.RLIMIT_AS, ({size}, {size}))
from edgekit.core.errors import EdgekitError
try:
    exec({code!r})
except EdgekitError as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""


def run_with(memory: int, code: str, *arguments: str, imports: str = "") -> str:
    """What ``code`` prints, with an EdgekitError as its line; it must end within a minute.

    ``imports`` come first: libraries reserve address space that they never use.
    """
    done = subprocess.run(
        [sys.executable, "-c", imports + _START.format(size=memory, code=code), *arguments],
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()

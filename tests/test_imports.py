"""What a device runs must not drag in what only a workstation has."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "nncf", "onnx", "onnxruntime", "openvino", "scipy", "cv2", "timm", "safetensors")

LIGHT = [
    "import edgekit",
    "import edgekit.cli, edgekit.config, edgekit.settings, edgekit.files",
    "import edgekit.native; edgekit.native.load_library()",
    "from edgekit.cli import main; main(['--help'])",
    "from edgekit.cli import main; main(['inspect', '--help'])",
    "from edgekit.cli import main; main(['doctor'])",
]


@pytest.mark.parametrize("statement", LIGHT)
def test_imports_nothing_heavy(statement: str) -> None:
    code = (
        "import sys\n"
        f"try:\n    {statement}\n"
        "except SystemExit as stop:\n    assert stop.code in (0, 4), stop.code\n"
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

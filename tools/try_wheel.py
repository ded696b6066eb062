"""Installs the wheel in a clean virtual environment, and tries it there.

    python -m tools.try_wheel dist             # 20 seconds, without the network
    python -m tools.try_wheel dist --index     # minutes: its requirements come from the index

Without --index the environment has the wheel, and takes the packages that it requires from the
environment that runs this. So versions and names of requirements are not checked, all else is: the
tag against the libraries inside, that nothing of the package is missing, and that what is installed
works away from the checkout. Both ways check that the sdist has every file of the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("codebook",) if os.environ.get("EDGEKIT_NO_OPENVINO") else ("codebook", "openvino")
# Kept out of the sdist by pyproject.toml.
_NOT_IN_SDIST = (".ci/",)
TRIAL = """\
import json, sys
from pathlib import Path
import numpy as np
import edgekit
from edgekit.core.resources import resource
from edgekit.data.builtin import open_fashion_mnist
from edgekit.native.codebook import Codebook, lookup_reference
from edgekit.quantize.recipes import RECIPES, read_recipe
from edgekit.targets.descriptor import descriptor_names

def inside(path):
    assert Path(path).resolve().is_relative_to(Path(sys.prefix).resolve()), path

inside(edgekit.__file__)
for name in sys.argv[1:]:
    inside(resource(f"_native/libedgekit_{name}.so"))
random = np.random.default_rng(0)
rows = random.normal(size=(64, 48)).astype(np.float32)
x = random.normal(size=(200, 48)).astype(np.float32)
with Codebook(rows) as book:
    assert (book.lookup(x).indices == lookup_reference(rows, x).indices).all()
assert len(open_fashion_mnist().classes) == 10
for name in RECIPES:
    read_recipe(name)
print(json.dumps({"version": edgekit.__version__, "targets": sorted(descriptor_names())}))
"""


def main() -> None:
    """Check all that the folder holds; an AssertionError says what is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", action="store_true")
    options = parser.parse_args()
    wheel = one(options.folder, f"edgekit-*_{platform.machine()}.whl")
    sdist = one(options.folder, "edgekit-*.tar.gz")
    check_files(wheel, sdist)
    check_tag(wheel)
    with tempfile.TemporaryDirectory(prefix="edgekit-wheel-") as work:
        try_in(Path(work), wheel, from_index=options.index)
    print(f"{wheel.name} works in a clean environment; {sdist.name} is complete")


def one(folder: Path, pattern: str) -> Path:
    """The only file of that name."""
    found = sorted(folder.glob(pattern))
    assert len(found) == 1, f"{folder} has {len(found)} files {pattern}, not one: run make wheel"
    return found[0].resolve()


def check_files(wheel: Path, sdist: Path) -> None:
    """The package in the wheel, the whole checkout in the sdist, and nothing else."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    inside = {name for name in packed if not name.split("/")[0].endswith(".dist-info")}
    native = {f"edgekit/_native/libedgekit_{name}.so" for name in LIBRARIES}
    package = native | {name for name in tracked if name.startswith("edgekit/")}
    package |= {
        f"edgekit/{name}" for name in tracked if name.startswith(("calib/", "targets/devices/"))
    }
    assert package <= inside, f"missing in the wheel: {sorted(package - inside)}"
    # What compiles TensorRT's plugin on a device is installed as well.
    sources = {f"edgekit/{name}" for name in tracked if name.startswith("targets/")}
    assert inside <= package | sources, f"not for the wheel: {sorted(inside - package - sources)}"
    with tarfile.open(sdist) as archive:
        names = {member.name.split("/", 1)[-1] for member in archive if not member.isdir()}
    expected = {name for name in tracked if not name.startswith(_NOT_IN_SDIST)}
    assert names - {"PKG-INFO"} == expected, f"the sdist differs: {names ^ expected}"


def check_tag(wheel: Path) -> None:
    """The tag promises no older glibc than its libraries need; auditwheel knows."""
    tag = f"_{platform.machine()}.whl"
    assert "-py3-none-manylinux_2_" in wheel.name, wheel.name
    assert wheel.name.endswith(tag), wheel.name
    told = run("auditwheel", "show", wheel)
    promised = wheel.name.split("-")[-1].removesuffix(".whl")
    assert promised in " ".join(told.split()), told


def try_in(work: Path, wheel: Path, *, from_index: bool) -> None:
    """Install the wheel in an environment in ``work``, and use it from there."""
    environment = work / "venv"
    python = environment / "bin/python"
    if from_index:
        run(sys.executable, "-m", "venv", environment)
        run(python, "-m", "pip", "install", "--quiet", f"{wheel}[openvino]")
    else:
        run(sys.executable, "-m", "venv", "--without-pip", environment)
        pip = (sys.executable, "-m", "pip", "--python", python, "--quiet")
        run(*pip, "install", "--no-index", "--no-deps", wheel)
        # Of this environment only its packages: pip ignores .pth files beyond a .pth file.
        site = Path(
            run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        )
        (site / "others.pth").write_text(f"{Path(click.__file__).parents[1]}\n", encoding="utf-8")
    tried = json.loads(run(python, "-c", TRIAL, *LIBRARIES, cwd=work))
    own = sorted(path.stem for path in (ROOT / "targets/devices").glob("*.toml"))
    assert set(own) <= set(tried["targets"]), tried
    edgekit = environment / "bin/edgekit"
    version = run(edgekit, "--version", cwd=work).strip()
    assert version == f"edgekit, version {tried['version']}", version
    # Its exit code says whether torch and NNCF are there; they are not with --index.
    checks = json.loads(run(edgekit, "doctor", "--json", cwd=work, codes=(0, 4)))["checks"]
    states = {one["name"]: one for one in checks}
    for what in ("native library", "OpenVINO operator")[: len(LIBRARIES)]:
        assert states[what]["status"] == "ok", states[what]


def run(*words: str | Path, cwd: Path | None = None, codes: tuple[int, ...] = (0,)) -> str:
    """What a command prints; not in the checkout, and without its packages."""
    others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=others,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in codes, (
        f"{words[0]}: exit {done.returncode}: {done.stderr or done.stdout}"
    )
    return done.stdout


if __name__ == "__main__":
    main()

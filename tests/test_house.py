"""The house keeps its order: who imports whom, and what a device never loads.

Every import in edgekit/ is read, also those inside functions: one that is run late still ties its
module to the other. Imports under TYPE_CHECKING count too, for whoever reads the code follows them.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the top of the house to its ground: a package imports only packages further down.
ORDER = (
    "cli",
    "workflows",
    "steps",
    "report",
    "devices",
    "bench",
    "export",
    "parity",
    "foreign",
    "quantize",
    "compilers",
    "training",
    "field",
    "runtime",
    "model",
    "graph",
    "bundle",
    "metrics",
    "data",
    "native",
    "targets",
    "core",
)
# Kept for bundles that were built before `edgekit.runtime.finish_engine` had its name.
FORMER = {"jetson_device"}

# What runs on a device. `edgekit.cli.bench` and `edgekit.cli.predict` are its commands there.
ON_DEVICE = (
    "edgekit.field",
    "edgekit.runtime",
    "edgekit.bundle",
    "edgekit.bench",
    "edgekit.devices.remote",
    "edgekit.metrics",
    "edgekit.data.decode",
    "edgekit.data.transforms",
    "edgekit.targets",
    "edgekit.core",
    "edgekit.native",
    "edgekit.jetson_device",
    "edgekit.cli.bench",
    "edgekit.cli.predict",
    "edgekit.cli.watch",
)
HEAVY = (
    "torch",
    "nncf",
    "onnx",
    "onnxruntime",
    "openvino",
    "scipy",
    "cv2",
    "timm",
    "safetensors",
    "ray",
)
# The modules that execute a bundle import the runtime that it needs, and only when they are opened.
BACKENDS = {
    "edgekit.runtime.openvino": {"openvino"},
    "edgekit.runtime.openvino_core": {"openvino"},
    "edgekit.runtime.openvino_requests": {"openvino"},
    "edgekit.runtime.onnxruntime": {"onnxruntime"},
    "edgekit.bench.baseline": {"openvino", "onnx"},  # the float model, beside
    "edgekit.bench.layers.openvino": {"openvino"},
    "edgekit.field.sources": {"cv2"},  # videos and cameras, where it is installed
    "edgekit.bench.layers.profile": {"onnx"},  # names of layers, where the package is there
}


class Import(NamedTuple):
    line: int
    module: str
    late: bool
    """Inside a function, or for the type checker alone: importing the module does not run it."""


@cache
def modules() -> dict[str, Path]:
    """Every module of edgekit by name."""
    found = {}
    for path in sorted((ROOT / "edgekit").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(name: str) -> tuple[Import, ...]:
    """What a module imports; a name out of a package is the submodule where there is one."""
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    found = []
    for node, late in walk(tree, late=False):
        if isinstance(node, ast.Import):
            found += [Import(node.lineno, alias.name, late) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: a relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                module = inner if inner in modules() else node.module
                found.append(Import(node.lineno, module, late))
    return tuple(found)


def walk(node: ast.AST, *, late: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Every node, and whether it is in a function or under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        inside = late or function or checking
        yield child, inside
        yield from walk(child, late=inside)


def ours(name: str) -> list[Import]:
    return [found for found in imports(name) if found.module in modules()]


def package(module: str) -> str:
    return [*module.split("."), ""][1]


def test_the_root_holds_two_modules() -> None:
    loose = {path.name for path in (ROOT / "edgekit").glob("*.py")}
    assert loose == {"__init__.py", "__main__.py"}
    assert {package(name) for name in modules()} - {"", "__main__"} <= {*ORDER, *FORMER}


def test_packages_import_downwards() -> None:
    upward = []
    for name in modules():
        above = package(name)
        if above not in ORDER:
            continue  # the root and former names may import anything
        for found in ours(name):
            below = package(found.module)
            if below in ORDER and ORDER.index(below) < ORDER.index(above):
                upward.append(f"{name}:{found.line} imports {found.module}")
            if below in FORMER or found.module == "edgekit.__main__":
                upward.append(f"{name}:{found.line} imports {found.module}")
    assert not upward, "\n".join(upward)


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups that reach each other (Tarjan)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in sorted(edges.get(name, ())):
            if other not in number:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], number[other])
        if low[name] == number[name]:
            at = stack.index(name)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                groups.append(sorted(group))

    for name in sorted(edges):
        if name not in number:
            visit(name)
    return groups


def test_no_module_is_in_a_circle() -> None:
    edges = {name: {found.module for found in ours(name)} - {name} for name in modules()}
    edges["edgekit"] = set()  # its __getattr__ hands out what lies in packages, by name
    assert circles(edges) == []


def test_the_check_of_circles_finds_one() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def runs_on_device(name: str) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in ON_DEVICE)


@pytest.mark.parametrize("name", sorted(filter(runs_on_device, modules())))
def test_what_a_device_runs_needs_no_heavy_package(name: str) -> None:
    """Neither the module, nor what it imports, nor what its functions import from edgekit."""
    wrong = []
    for module, way in reached(name).items():
        allowed = BACKENDS.get(module, set())
        for found in imports(module):
            heavy = found.module.split(".")[0]
            if heavy in HEAVY and heavy not in allowed and (not found.late or module == name):
                wrong.append(f"{' -> '.join(way)} imports {heavy} in line {found.line}")
    assert not wrong, "\n".join(wrong)


def reached(name: str) -> dict[str, tuple[str, ...]]:
    """All modules that importing one runs, its packages too, and the way to each."""
    ways: dict[str, tuple[str, ...]] = {name: (name,)}
    waiting = [name]
    while waiting:
        at = waiting.pop()
        parents = [at.rsplit(".", n)[0] for n in range(1, at.count(".") + 1)]
        nexts = [found.module for found in ours(at) if not found.late]
        for module in [*parents, *nexts]:
            if module not in ways and module in modules():
                ways[module] = (*ways[at], module)
                waiting.append(module)
    return ways


def test_the_map_is_that_of_the_house() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)
    there = {package(name) for name in modules()}
    assert listed == [name for name in ORDER if name in there]
    paths = re.findall(r"`((?:edgekit|targets|tests|docs)/[\w./-]+)`", text)
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing, missing


LIGHT = [
    "import edgekit",
    "import edgekit.cli.main, edgekit.steps.config, edgekit.core.typed_toml, edgekit.core.files",
    "import edgekit.native.codebook; edgekit.native.codebook.load_library()",
    "import edgekit.runtime.model, edgekit.bench.run, edgekit.runtime.selftest",
    "import edgekit.devices.remote.serve, edgekit.devices.remote.place",
    "from edgekit.cli.main import main; main(['--help'])",
    "from edgekit.cli.main import main; main(['inspect', '--help'])",
    "from edgekit.cli.main import main; main(['doctor'])",
    "from edgekit.cli.main import main; main(['schema', 'finetune'])",
    "import edgekit.report.page, edgekit.report.several, edgekit.report.pair_page",
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


def test_the_command_line_waits_for_no_arrays() -> None:
    """NumPy and Pillow would take as long as all that `edgekit --help` needs."""
    code = "import sys, edgekit.cli.main; sys.exit(str({'numpy', 'PIL'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


def test_older_bundles_find_what_their_script_runs() -> None:
    command = [sys.executable, "-m", "edgekit.jetson_device"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "adopt|selftest BUNDLE" in done.stderr
    assert "Traceback" not in done.stderr

"""Every name after ``except`` is an exception: with the releases that are pinned, not from memory.

A name that a package does not have is found out only when something goes wrong, and then by an
AttributeError in the place of what went wrong. Each is looked up here.
"""

import ast
import builtins
import importlib
import importlib.util
from collections.abc import Iterator

import pytest

from tests.test_house import modules

# Packages of devices and of other Pythons: what is not here cannot be asked.
ELSEWHERE = {"tensorrt", "tensorrt_rtx", "tomli"}


def caught(tree: ast.AST) -> Iterator[ast.expr]:
    """What stands after ``except`` and in ``contextlib.suppress``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            yield from flat(node.type)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            for argument in node.args:
                yield from flat(argument)


def flat(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Tuple):
        for item in node.elts:
            yield from flat(item)
    elif isinstance(node, ast.Starred):
        yield from flat(node.value)
    else:
        yield node


def imported(tree: ast.AST) -> dict[str, tuple[str, str | None]]:
    """Names that any scope of a module imports: from which module, and which of its names."""
    found: dict[str, tuple[str, str | None]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.split(".")[0]
                found[alias.asname or name] = (name, None)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.asname or alias.name] = (node.module, alias.name)
    return found


def value_of(node: ast.expr, module: str, known: dict[str, tuple[str, str | None]]) -> object:
    if isinstance(node, ast.Attribute):
        owner = value_of(node.value, module, known)
        return getattr(owner, node.attr)
    if isinstance(node, ast.Call):  # a function that imports the package first
        function = value_of(node.func, module, known)
        assert callable(function)
        assert not node.args
        return function()
    assert isinstance(node, ast.Name), ast.unparse(node)
    if node.id not in known:
        own = vars(importlib.import_module(module))
        return own[node.id] if node.id in own else getattr(builtins, node.id)
    source, name = known[node.id]
    owner = importlib.import_module(source)
    return owner if name is None else getattr(owner, name)


def are_exceptions(value: object) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(map(are_exceptions, value))
    return isinstance(value, type) and issubclass(value, BaseException)


def wrong_names(text: str, module: str) -> list[str]:
    tree = ast.parse(text)
    known = imported(tree)
    wrong = []
    for node in caught(tree):
        root = ast.unparse(node).split(".")[0]
        package = known.get(root, ("", None))[0].split(".")[0]
        if package in ELSEWHERE and importlib.util.find_spec(package) is None:
            continue
        try:
            value = value_of(node, module, known)
        except AttributeError as error:
            wrong.append(f"{module}:{node.lineno}: {ast.unparse(node)}: {error}")
        else:
            if not are_exceptions(value):
                wrong.append(f"{module}:{node.lineno}: {ast.unparse(node)} is {value!r}")
    return wrong


@pytest.mark.filterwarnings("ignore")
def test_every_name_after_except_is_an_exception() -> None:
    wrong = []
    for name, path in modules().items():
        if name.endswith(".tensorrt") and importlib.util.find_spec("tensorrt") is None:
            continue
        wrong += wrong_names(path.read_text(encoding="utf-8"), name)
    assert not wrong, "\n".join(wrong)


def test_the_check_finds_what_nncf_does_not_have() -> None:
    text = """
def calibrate():
    import nncf
    try:
        pass
    except (ValueError, nncf.NNCFError):
        pass
"""
    (wrong,) = wrong_names(text, "edgekit.core.errors")
    assert "nncf.NNCFError" in wrong

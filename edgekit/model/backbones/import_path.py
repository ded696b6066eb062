"""Backbones named by an import path, ``package.module:function``: the name, and whose code it is.

Nothing here imports that code.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgekit.model.card import TIMM_PREFIX

_NAME: Final = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
# ASCII letters and no others: messages show the name as something to paste into a shell.
_IMPORT_PATH: Final = re.compile(f"{_NAME}:{_NAME}", re.ASCII)
_EXTENSIONS: Final = tuple(importlib.machinery.EXTENSION_SUFFIXES)


def is_import_path(name: str) -> bool:
    """Whether ``name`` is a backbone of somebody's own, as ``package.module:function``."""
    return not name.startswith(TIMM_PREFIX) and _IMPORT_PATH.fullmatch(name) is not None


@contextmanager
def current_folder_first() -> Iterator[None]:
    """Import from the current directory before all other places, as ``python -m`` does.

    A console script would not look there at all. Afterwards it is the last place to look: what
    the code imports later is still found, and a file that happens to be called like a library
    does not replace it. Python's own -P and PYTHONSAFEPATH keep the directory out.
    """
    here = str(Path.cwd())
    if getattr(sys.flags, "safe_path", False):  # Python 3.11
        yield
        return
    is_listed = here in sys.path
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)
        if not is_listed:
            sys.path.append(here)


def code_key(backbone: str | None) -> dict[str, str]:
    """What a cached result depends on besides the weights; nothing for edgekit's own backbones."""
    if backbone is None or not is_import_path(backbone):
        return {}
    return {"backbone code": source_digest(backbone)}


def source_digest(name: str) -> str:
    """SHA-256 of the code behind ``name``: its module, and what that imports from beside it.

    It is read, not run. Of an installed package only its own modules count. What is imported under
    names that are computed at run time cannot be seen.
    """
    module = name.partition(":")[0]
    total = hashlib.sha256(name.encode())
    for part, path in sorted(_sources(module).items()):
        total.update(f"{part}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def _sources(module: str) -> dict[str, Path]:
    """The files of a module, of its packages and of what they import."""
    top = module.partition(".")[0]
    root = _root(top)
    sources: dict[str, Path] = {}
    if root is None:
        return sources
    is_installed = root.name in ("site-packages", "dist-packages")
    due, seen = [module], {""}
    while due:
        parts = due.pop().split(".")
        if is_installed and parts[0] != top:
            continue
        for name in (".".join(parts[: count + 1]) for count in range(len(parts))):
            if name in seen:
                continue
            seen.add(name)
            path = _file_of(root, name)
            if path is not None:
                sources[name] = path
                due += _imports(path, name)
    return sources


def _root(top: str) -> Path | None:
    """The folder that a top-level module or package lies in."""
    with current_folder_first():
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):  # a module without a spec, such as __main__
            return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).parent
    return Path(spec.origin).parent if spec.has_location and spec.origin else None


def _file_of(root: Path, name: str) -> Path | None:
    place = root.joinpath(*name.split("."))
    endings = ("/__init__.py", ".py", *_EXTENSIONS)
    return next((path for end in endings if (path := Path(f"{place}{end}")).is_file()), None)


def _imports(path: Path, name: str) -> list[str]:
    """The absolute names that a file may import, submodules or not."""
    if path.suffix != ".py":
        return []
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # importing it will say so
        return []
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
    return names

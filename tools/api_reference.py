"""Write docs/api.md, the reference of the Python API, from its docstrings.

    python -m tools.api_reference

A test fails if the page and the docstrings differ.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import edgekit
from edgekit.core.json_schema import field_descriptions
from edgekit.field.mixture import Mixture
from edgekit.field.monitor import Status
from edgekit.field.outlook import ErrorEstimate, Outlook
from edgekit.runtime.answers import Answers
from edgekit.runtime.model import Model, Prediction, Predictions

PAGE = Path(__file__).parents[1] / "docs/api.md"
_HEAD = """\
# Python API

<!-- Written by `make docs`; change the docstrings, not this page. -->

What `import edgekit` offers, and the types that it hands out. It needs the base install and the
bundle's own runtime.
[Run a bundle](predict.md) and [Watching the field](watch.md) show it in use.

Every failure is an `edgekit.core.errors.EdgekitError` whose text is one line. Its subclass says
what kind it is: `UsageError`, `GateFailed`, `ToolchainMissing`, `DeviceUnreachable` or
`Interrupted`.
"""
# What the exported names return, in the order in which a program meets them.
_RETURNED = (Model, Predictions, Prediction, Answers, Status, Outlook, ErrorEstimate, Mixture)


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for name in sorted(set(edgekit.__all__) - {"__version__"}, key=str.swapcase):
        parts += _section(f"edgekit.{name}", getattr(edgekit, name))
    for kind in _RETURNED:
        parts += _section(kind.__name__, kind)
    return "\n".join(parts).rstrip() + "\n"


def _section(name: str, thing: Any) -> Iterator[str]:
    """A function's or class's section."""
    yield f"## {name}\n"
    if thing not in _RETURNED:  # those are made by edgekit, not by its users
        yield f"```python\n{name}{_signature(thing)}\n```\n"
    yield _text(thing)
    if not isinstance(thing, type):
        return
    rows = _fields(thing)
    for member, value in vars(thing).items():
        if not member.startswith("_") and isinstance(value, property):
            rows.append(f"- `{member}`: {_line(value)}")
    if rows:
        yield "\n".join(rows) + "\n"
    for member, value in vars(thing).items():
        if not member.startswith("_") and inspect.isfunction(value):
            yield f"### {thing.__name__}.{member}\n"
            yield f"```python\n{member}{_signature(value)}\n```\n"
            yield _text(value)


def _fields(cls: Any) -> list[str]:
    """A line for each field of a dataclass or named tuple."""
    if not dataclasses.is_dataclass(cls) and not hasattr(cls, "_fields"):
        return []
    described = field_descriptions(cls)
    names = getattr(cls, "_fields", None) or [field.name for field in dataclasses.fields(cls)]
    rows = []
    for name in names:
        text = described.get(name, "")
        kind = inspect.get_annotations(cls)[name]
        kind = getattr(kind, "__forward_arg__", kind)  # a named tuple's
        rows.append(f"- `{name}` (`{kind}`)" + (f": {_plain(text)}" if text else ""))
    return rows


def _signature(thing: Any) -> str:
    """As written, without quotes around its types and one parameter a line if it is long."""
    text = str(inspect.signature(thing)).replace("'", "").replace("(self, ", "(")
    text = text.replace("(self)", "()")
    if isinstance(thing, type):
        text = text.removesuffix(" -> None")
    if len(text) < 80:
        return text
    head, tail = text[1:].rsplit(")", 1)
    parameters = re.split(r", (?![^\[]*\])", head)
    return "(\n" + "".join(f"    {one},\n" for one in parameters) + ")" + tail


def _text(thing: Any) -> str:
    paragraphs = (inspect.getdoc(thing) or "").split("\n\n")
    return "".join(_plain(paragraph) + "\n\n" for paragraph in paragraphs).rstrip() + "\n"


def _line(thing: Any) -> str:
    return _text(thing).strip()


def _plain(text: str) -> str:
    """A docstring's text as Markdown, where a name is in single backticks."""
    return " ".join(text.replace("``", "`").split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

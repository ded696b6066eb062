"""JSON Schemas (draft 2020-12) of documents, derived from the dataclasses that they are written by.

A dataclass's docstring describes its object; the text or the comment behind a field describes its
key. Whoever reads a document must accept keys that its schema does not name: a later edgekit may
add some without a new number. Schemas therefore never forbid them.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import io
import re
import sys
import tokenize
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final, Protocol, runtime_checkable

from edgekit.core.documents import Document, derived, hints_of, key_of

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]
Describe = Callable[[Any], Schema]
"""The schema of a type, as part of the one that is being made."""

_SIMPLE: Final[dict[Any, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
}


@runtime_checkable
class Described(Protocol):
    """A class whose JSON is not just its fields, and which says what it is."""

    @classmethod
    def json_schema(cls, describe: Describe) -> Schema:
        """The schema of its `to_dict`."""


def document_schema(cls: type[Document], name: str, title: str) -> Schema:
    """The schema of a whole document; ``title`` says what prints or holds it."""
    parts = _Parts()
    body = parts.body(cls)
    return {
        "$schema": DRAFT,
        "$id": f"urn:edgekit:{name}:{cls.SCHEMA}",
        "title": title,
        **body,
        **({"$defs": dict(sorted(parts.definitions.items()))} if parts.definitions else {}),
    }


def merged(*objects: Schema) -> Schema:
    """An object with the keys of several; what describes it is the first one's."""
    whole: Schema = {**objects[0], "properties": {}, "required": []}
    for one in objects:
        whole["properties"] |= one["properties"]
        whole["required"] += one["required"]
    return whole


@dataclass
class _Parts:
    """The classes that a schema consists of, each described once."""

    definitions: dict[str, Schema] = field(default_factory=dict)
    _names: dict[type[Any], str] = field(default_factory=dict)

    def of(self, hint: Any) -> Schema:
        """The schema of a field's type."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if hint in _SIMPLE:
            return {"type": _SIMPLE[hint]}
        if hint is Any or hint is object:
            return {}
        if origin in (typing.Union, types.UnionType):
            return _either([self.of(one) for one in arguments])
        if origin is typing.Literal:
            return {"enum": list(arguments)}
        if origin is tuple and arguments[-1] is not Ellipsis:
            places = [self.of(one) for one in arguments]
            count = len(places)
            return {"type": "array", "prefixItems": places, "minItems": count, "maxItems": count}
        if origin in (tuple, list, frozenset, Sequence):
            return {"type": "array", "items": self.of(arguments[0])}
        if origin in (dict, Mapping):
            return self._mapping(*arguments)
        if isinstance(hint, type) and issubclass(hint, PurePath):
            return {"type": "string"}
        if dataclasses.is_dataclass(hint):
            return {"$ref": f"#/$defs/{self._define(typing.cast('type[Any]', hint))}"}
        raise TypeError(f"no JSON is defined for {hint!r}")

    def body(self, cls: type[Any]) -> Schema:
        """The schema of a class, in full."""
        if isinstance(cls, Described):
            return cls.json_schema(self._inner)
        return self._inner(cls)

    def _inner(self, cls: Any) -> Schema:
        """Of a class by its fields, and of any other type."""
        kind: type[Any] = cls
        if not dataclasses.is_dataclass(kind):
            return self.of(cls)
        properties: dict[str, Schema] = {}
        required: list[str] = []
        if issubclass(kind, Document):
            properties["schema"] = {
                "const": kind.SCHEMA,
                "description": "The number of this document's schema.",
            }
            required.append("schema")
        hints, texts = hints_of(cls), field_descriptions(kind)
        for one in dataclasses.fields(kind):
            if one.metadata.get("inline"):
                inner = self._inner(hints[one.name])
                inner["properties"].pop("schema", None)  # the outer document has its own
                properties |= inner["properties"]
                required += [name for name in inner["required"] if name != "schema"]
                continue
            schema = self.of(hints[one.name])
            if one.metadata.get("nullable"):
                schema = _either([schema, {"type": "null"}])
            properties[key_of(one)] = _with_text(schema, texts.get(one.name))
            if not (one.metadata.get("sparse") or one.metadata.get("detail")):
                required.append(key_of(one))
        for name in derived(kind):
            getter = inspect.getattr_static(kind, name).fget
            schema = self.of(typing.get_type_hints(getter)["return"])
            properties[name] = _with_text(schema, inspect.getdoc(getter))
            required.append(name)
        return {
            "description": _for_json(inspect.getdoc(kind) or ""),
            "type": "object",
            "properties": properties,
            "required": list(dict.fromkeys(required)),  # an inlined document's number is its own
        }

    def _mapping(self, keys: Any, values: Any) -> Schema:
        schema: Schema = {"type": "object"}
        if values is not Any:
            schema["additionalProperties"] = self.of(values)
        if typing.get_origin(keys) is typing.Literal:
            schema["propertyNames"] = self.of(keys)
        return schema

    def _define(self, cls: type[Any]) -> str:
        if cls not in self._names:
            name = cls.__name__
            if name in self.definitions:  # two classes may have one name
                name = f"{cls.__module__.rsplit('.', 1)[-1]}.{name}"
            self._names[cls] = name
            self.definitions[name] = {}  # holds the name while its parts are described
            self.definitions[name] = self.body(cls)
        return self._names[cls]


def _either(schemas: list[Schema]) -> Schema:
    """What fits any of them."""
    if all(schema.keys() == {"type"} for schema in schemas):
        return {"type": [schema["type"] for schema in schemas]}
    return {"anyOf": schemas}


def _with_text(schema: Schema, text: str | None) -> Schema:
    return {**schema, "description": _for_json(text)} if text else schema


def _for_json(text: str) -> str:
    """A docstring for readers who see JSON, not Python."""
    return re.sub(r"\bNone\b", "null", text).replace("``", "`")


def field_descriptions(cls: type[Any]) -> dict[str, str]:
    """What the source says about each field, of base classes too."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base) or hasattr(base, "_fields"):
            texts |= _described(base.__module__).get(base.__qualname__, {})
    return texts


@functools.cache
def _described(module: str) -> dict[str, dict[str, str]]:
    """By class and field: the text below a field, or else the comment behind it."""
    try:
        source = inspect.getsource(sys.modules[module])
    except OSError:  # installed without its sources: the schema only lacks descriptions
        return {}
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and not token.string.startswith("# type:")
    }
    found: dict[str, dict[str, str]] = {}
    for cls in ast.parse(source).body:
        if isinstance(cls, ast.ClassDef):
            found[cls.name] = _of_fields(cls, comments)
    return found


def _of_fields(cls: ast.ClassDef, comments: Mapping[int, str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for node, after in zip(cls.body, [*cls.body[1:], None], strict=True):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            texts[node.target.id] = inspect.cleandoc(str(after.value.value))
        elif comment := comments.get(node.end_lineno or 0):
            texts[node.target.id] = f"{comment[:1].upper()}{comment[1:].rstrip('.')}."
    return texts

"""Compares every document that a command prints in a test with its published schema, strictly."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import click
from jsonschema import Draft202012Validator

from edgekit.cli.common import Command
from edgekit.cli.document_schemas import known_documents
from edgekit.cli.schema_list import PrintedSchema
from edgekit.core.console import json_text
from edgekit.core.documents import Document, Failure


def check(document: Document) -> None:
    """The document as --json prints it, by the schema of its type."""
    value = parsed(json_text(document))
    if isinstance(document, PrintedSchema):
        Draft202012Validator.check_schema(value)
        return
    name, validator = validators()[type(document)]
    validator.validate(value)
    context = click.get_current_context(silent=True)
    if context is not None and isinstance(context.command, Command):
        assert name in context.command.prints, f"{context.command_path} does not promise '{name}'"
    else:
        assert isinstance(document, Failure) or context is None


def parsed(text: str) -> Any:
    """JSON as the standard has it: Python also reads NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@cache
def validators() -> dict[type[Document], tuple[str, Draft202012Validator]]:
    """The name and the strict schema of every type."""
    return {
        known.type: (name, Draft202012Validator(strict(known.schema(name))))
        for name, known in known_documents().items()
    }


def validator(name: str) -> Draft202012Validator:
    """The strict schema by its name."""
    return validators()[known_documents()[name].type][1]


def strict(schema: Any) -> Any:
    """The schema without the keys that a later edgekit may add: a test must see them."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed

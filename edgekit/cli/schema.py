"""``edgekit schema``: what the documents of --json look like, as JSON Schemas."""

from __future__ import annotations

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console, json_text
from edgekit.core.errors import UsageError
from edgekit.core.tables import Column, Table

SCHEMAS = Table.of("name", Column("version", "figure"), Column("document", "prose"))


@click.command(
    cls=Command,
    prints=("schemas",),
    short_help="Print the JSON Schema of what --json prints.",
    examples="""
    edgekit schema
    edgekit schema parity > parity.schema.json
    edgekit schema manifest-file | jq '.properties | keys'
    """,
)
@click.argument("name", required=False)
@common
def schema(console: Console, name: str | None) -> None:
    """List the documents that have a JSON Schema, or print the schema of one, by NAME.

    They are what commands print with --json, and the JSON files of a bundle. See
    docs/json.md for what may change, and when.
    """
    from edgekit.cli.document_schemas import known_documents
    from edgekit.cli.schema_list import ListedSchema, PrintedSchema, SchemaList
    from edgekit.core.typed_toml import nearest

    documents = known_documents()
    if name is None:
        listed = tuple(
            ListedSchema(known, one.type.SCHEMA, one.where) for known, one in documents.items()
        )
        console.document(SchemaList(listed))
        rows = [(one.name, str(one.version), one.where) for one in listed]
        console.table(SCHEMAS, rows)
        return
    if name not in documents:
        raise UsageError(
            f"no document is called '{name}'{nearest(name, list(documents))}: "
            "'edgekit schema' lists them"
        )
    printed = PrintedSchema(documents[name].schema(name))
    console.document(printed)
    console.text(json_text(printed))

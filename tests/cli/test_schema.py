"""The schemas of documents, and what commands really print. `tests.conftest` checks the rest.

That fixture compares every document that any test lets a command print; here are the commands that
no other test runs in this process, and what is promised of schemas themselves.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from jsonschema import Draft202012Validator, ValidationError

from edgekit.bundle.build_record import BuildRecord
from edgekit.bundle.store import update_bundle
from edgekit.cli.common import Command
from edgekit.cli.document_schemas import known_documents
from edgekit.cli.main import cli, main
from edgekit.core.console import json_text
from edgekit.core.json_schema import document_schema
from edgekit.quantize.results import Calibrated, CalibrationReport, Closeness
from tests import bundles, documents
from tests.photos import write_photos

Run = Callable[..., Any]
# Names of files, not of what a command prints; the error is every command's.
NOT_PRINTED = ("-file", "-section", "error")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command and checks its document, as text, by the schema of that name."""
    monkeypatch.setenv("EDGEKIT_DEVICES", str(tmp_path / "devices.toml"))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))

    def call(name: str, *words: object) -> Any:
        with pytest.raises(SystemExit):
            main([*map(str, words), "--json"])
        document = documents.parsed(capsys.readouterr().out)
        documents.validator(name).validate(document)
        return document

    return call


def commands(group: click.Group = cli, path: str = "edgekit") -> dict[str, click.Command]:
    """Every command by its path."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, f"{path} {name}")
        else:
            found[f"{path} {name}"] = command
    return found


def test_every_command_says_what_it_prints() -> None:
    promised = set()
    for path, command in commands().items():
        assert isinstance(command, Command), path
        assert any(option.name == "as_json" for option in command.params), path
        assert command.prints, f"{path} does not name its documents"
        assert set(command.prints) <= known_documents().keys(), path
        promised |= set(command.prints)
    others = known_documents().keys() - promised
    assert all(name.endswith(NOT_PRINTED) for name in others), others


@pytest.mark.parametrize("name", sorted(known_documents()))
def test_schemas_are_valid_and_say_what_they_describe(name: str) -> None:
    known = known_documents()[name]
    schema = known.schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:edgekit:{name}:{known.type.SCHEMA}"
    assert schema["title"]
    assert schema["description"]
    number = "format_version" if name == "manifest-file" else "schema"
    assert schema["properties"][number]["const"] == known.type.SCHEMA
    assert number in schema["required"]
    # A later edgekit may add keys: only tests forbid them.
    assert not any(part.get("additionalProperties") is False for part in objects(schema))
    assert "None" not in json.dumps(schema)


def objects(schema: Any) -> list[dict[str, Any]]:
    inner = schema.values() if isinstance(schema, dict) else schema
    parts = [part for one in inner if isinstance(one, dict | list) for part in objects(one)]
    return [*parts, schema] if isinstance(schema, dict) else parts


def test_what_differs_from_a_schema_is_refused(run: Run) -> None:
    document = run("doctor", "doctor")
    strict = documents.validator("doctor")
    lax = Draft202012Validator(known_documents()["doctor"].schema("doctor"))
    changes: list[dict[str, Any]] = [
        {"schema": 2},
        {"ready": "yes"},
        {"checks": [{}]},
        {"checks": None},
    ]
    for change in changes:
        for validator in (strict, lax):
            with pytest.raises(ValidationError):
                validator.validate({**document, **change})
    later = {**document, "added": 1}
    lax.validate(later)
    with pytest.raises(ValidationError):
        strict.validate(later)
    del document["ready"]
    with pytest.raises(ValidationError):
        lax.validate(document)


def test_commands_without_a_bundle(run: Run, tmp_path: Path) -> None:
    listed = run("schemas", "schema")
    assert {one["name"] for one in listed["schemas"]} == known_documents().keys()
    run("targets", "targets")
    assert len(run("targets", "targets", "onnxruntime-cpu")["targets"]) == 1
    run("completion", "completion", "fish")
    run("device-add", "device", "add", "nano", "me@nano", "--port", "2222")
    assert run("device-list", "device", "list")["devices"][0]["host"] == "me@nano"
    run("device-remove", "device", "remove", "nano")
    failure = run("error", "inspect", tmp_path / "absent")
    assert failure["exit_code"] == 2
    run("error", "schema", "dcotor")


def test_commands_on_a_bundle(run: Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    photos = write_photos(tmp_path / "photos")
    bundle = Path(shutil.copytree(bundles.bundle(), tmp_path / "cpu"))
    update_bundle(bundle, sections={"build": BuildRecord("ab", True, "photos").to_dict()})
    run("predict", "predict", bundle, photos)
    run("report", "report", bundle)
    inspected = run("inspect-bundle", "inspect", bundle)
    documents.validator("build-section").validate(inspected["sections"]["build"])
    manifest = documents.parsed((bundle / "manifest.json").read_text())
    documents.validator("manifest-file").validate(manifest)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="openssh-client is missing")
def test_signing(run: Run, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(bundles.bundle(), tmp_path / "cpu"))
    key = tmp_path / "key"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(command, check=True)
    (tmp_path / "signers").write_text("me@here " + key.with_suffix(".pub").read_text())
    run("sign", "sign", bundle, "--key", key)
    run("verify", "verify", bundle, "--signers", tmp_path / "signers")
    stored = documents.parsed((bundle / "signature.json").read_text())
    documents.validator("signature-file").validate(stored)


def test_a_schema_is_printed_either_way(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for words in ((), ("--json",)):
        with pytest.raises(SystemExit) as stop:
            main(["schema", "parity", *words])
        assert stop.value.code == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert printed[0] == printed[1] == known_documents()["parity"].schema("parity")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_json_lacks_are_null(bad: float) -> None:
    guard = Closeness(64, bad, 0.1, None)
    report = CalibrationReport(1, 1.0, 1.0, 1, 0)
    document = Calibrated("a.onnx", "a.json", "said", guard, None, report)
    value = documents.parsed(json_text(document))
    documents.validator("calibrate").validate(value)
    assert value["guard"]["logits_rms"] is None
    assert value["guard"]["passed"] is False
    assert value["images"] == 1  # the report's keys stand beside the others


def test_descriptions_come_from_the_source() -> None:
    schema = document_schema(Calibrated, "calibrate", "edgekit calibrate --json")
    properties = schema["properties"]
    assert properties["listing"]["description"] == "The file that lists the calibration images."
    assert properties["peak_mb"]["description"] == "Of this process, so far."
    rms = schema["$defs"]["Closeness"]["properties"]["logits_rms"]
    assert rms["type"] == ["number", "null"]

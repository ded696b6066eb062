"""A device that answers nonsense is its own line, and the others' work is done."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from edgekit.core.documents import plain
from edgekit.devices.answers import Answer, InvalidAnswer
from edgekit.devices.deployed import DeployState
from edgekit.devices.facts import DeviceFacts
from edgekit.devices.registry import add_device
from edgekit.devices.remote import facts as facts_source
from edgekit.devices.remote import files as remote_files
from edgekit.devices.stamp import Stamp
from tests.bundle_files import write
from tests.hostile.devices import Network, Run, network, run

__all__ = ["network", "run"]

GOOD = facts_source.gather("/nowhere")


NONSENSE: list[object] = [
    *(None, 1, "text", [], {}, True),
    {name: GOOD[name] for name in GOOD if name != "python"},
    {**GOOD, "cores": "many"},
    {**GOOD, "cores": -1},
    {**GOOD, "cores": 1 << 200},
    {**GOOD, "cores": True},
    {**GOOD, "free_bytes": 1.5},
    {**GOOD, "python": "three"},
    {**GOOD, "python": ["3", "11"]},
    {**GOOD, "l4t": "Jetson"},
    {**GOOD, "flags": "avx2"},
    {**GOOD, "flags": [[["avx2"]]]},
    {**GOOD, "runtimes": {"openvino-1": {"edgekit": {}}}},
    {**GOOD, "bundles": {"a": "b"}},
]


@pytest.mark.parametrize("value", NONSENSE)
def test_facts_are_checked(value: object) -> None:
    with pytest.raises(InvalidAnswer, match="makes no sense") as caught:
        DeviceFacts.from_dict(value, "it")
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_good_facts_come_through() -> None:
    facts = DeviceFacts.from_dict(json.loads(json.dumps(GOOD)), "it")
    assert json.loads(json.dumps(plain(facts))) == GOOD


def without_pip(folder: Path) -> Path:
    """A Python whose environments lack pip: most of the time that making one takes."""
    path = folder / "python"
    path.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "-m venv" ] && set -- "$@" --without-pip\n'
        f'exec "{sys.executable}" "$@"\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("command", ["check", "deploy"])
def test_the_others_are_served(command: str, network: Network, tmp_path: Path, run: Run) -> None:
    deep = "[" * 900 + "]" * 900
    scripts = {
        "less": f'write(MAGIC); facts = json.loads({json.dumps(GOOD)!r}); del facts["cpu"]\n'
        "answer(gather=facts)",
        "deep": f"write(MAGIC); answer(gather=json.loads({deep!r}))",
        "noise": "write(MAGIC); time.sleep(0.5); write(bytes(1000)); time.sleep(100)",
        "away": "sys.exit(1)",
    }
    names = [*scripts, "good"]
    for name, script in scripts.items():
        add_device(network.enemy(script, name))
    add_device(dataclasses.replace(network.good(), python=str(without_pip(tmp_path))))
    if command == "check":
        code, out, err = run("device", "check", *names, "--json")
        documents = {entry["name"]: entry for entry in json.loads(out)["devices"]}
        assert documents["good"]["ready"] or documents["good"]["checks"]
    else:
        path = write(tmp_path / "b")
        words = [word for name in names for word in ("--device", name)]
        (tmp_path / "wheels").mkdir()
        (tmp_path / "wheels/none-1-py3-none-any.whl").write_bytes(b"no wheel")
        code, out, err = run("deploy", path, *words, "--wheels", tmp_path / "wheels", "--json")
        documents = {entry["device"]: entry for entry in json.loads(out)["devices"]}
        assert "pip cannot install the runtime" in documents["good"]["error"]
    assert code != 0
    assert "Traceback" not in err
    assert "less's answer (gather) makes no sense: it has no 'cpu'" in err
    assert documents["less"]["error"] in err
    assert "deep's answer (gather) makes no sense" in documents["deep"]["error"]
    assert "noise sent something unrequested" in documents["noise"]["error"]
    assert "away" in documents["away"]["error"]
    assert err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "1", "[" * 100_000, "9" * 9_000, '{"edgekit": 1}', '{"key": "a"}', "\x00"],
)
def test_notes_of_an_earlier_deploy_are_checked(text: str) -> None:
    assert Stamp.parse(text) is None


def test_notes_come_back() -> None:
    stamp = Stamp("ab", "openvino==2026.4.1", "3.11.7", ("cd",))
    assert Stamp.parse(stamp.to_json()) == stamp
    assert stamp.serves(Stamp("ab", "openvino==2026.4.1", "3.11.7", ()))
    assert not stamp.serves(Stamp("ab", "openvino==2026.4.1", "3.11.7", ("ef",)))
    assert not stamp.serves(Stamp("ab", "openvino==2026.4.2", "3.11.7", ()))
    state = DeployState("key", "runtime", "python", "passed")
    assert Answer(json.loads(state.to_json()), "it").fill(DeployState) == state


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": 1}', '{"files": {"a": 1}}', "[" * 9999]
)
def test_a_damaged_manifest_there_is_no_bundle(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert remote_files.whole(str(tmp_path)) is False

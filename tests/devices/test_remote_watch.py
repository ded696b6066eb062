"""``edgekit watch --device``: what a monitor on a device says, and what a liar can make of it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from edgekit.bundle.manifest import FIELD
from edgekit.bundle.store import update_bundle
from edgekit.devices.deployed import DeployState
from edgekit.devices.registry import add_device
from edgekit.field.monitor import Monitor
from tests import bundles
from tests.field.lab import reference
from tests.field.test_monitor import day
from tests.hostile.devices import ROOT, Network, Run, network

__all__ = ["network"]


@pytest.fixture
def pole(network: Network, tmp_path: Path) -> Path:
    """edgekit's folder on a device where a bundle is deployed, and can be watched."""
    device = network.good("pole")
    add_device(device)
    root = Path(device.folder)
    shutil.copytree(bundles.bundle("cpu"), root / "bundles" / "cpu")
    field = json.dumps(reference().to_dict()).encode()
    update_bundle(root / "bundles" / "cpu", reports={FIELD: field})
    python = tmp_path / "python"
    path = os.pathsep.join(filter(None, [str(ROOT), *sys.path]))
    python.write_text(f"#!/bin/sh\nexport PYTHONPATH='{path}'\nexec {sys.executable} \"$@\"\n")
    python.chmod(0o755)
    state = DeployState("key", "runtime", str(python), "passed")
    (root / "bundles" / ".cpu.json").write_text(state.to_json())
    return root


def watched(
    pole: Path, images: int, state: str = "watch/cpu.json", promise: float = 1000
) -> Monitor:
    """A monitor that has seen so many images of the day there."""
    (pole / state).parent.mkdir(exist_ok=True)
    path = pole / "bundles" / "cpu"
    monitor = Monitor(path, state=pole / state, images_a_false_alarm=promise)
    monitor.update(day()[:images])
    monitor.save()
    return monitor


def test_it_says_there_what_it_says_here(pole: Path, run: Run) -> None:
    monitor = watched(pole, 300)
    code, out, err = run("watch", "--device", "pole", "--once", "--json")
    assert code == 0, err
    assert json.loads(out) == json.loads(json.dumps(monitor.status().to_dict()))
    monitor = watched(pole, 1000, "own.json")
    before = (pole / "own.json").read_bytes()
    words = ("watch", "cpu", "--device", "pole", "--once", "--state", pole / "own.json")
    code, out, err = run(*words)
    assert code == 3
    assert out.splitlines()[0].startswith("changed: 1,000 images, evidence 10^")
    assert " of 10^3.0" in out.splitlines()[0]
    assert "looks like fog 3" in out
    assert err.endswith(f"the images have changed since image {monitor.status().since_image}\n")
    assert (pole / "own.json").read_bytes() == before


def test_what_is_not_there(pole: Path, run: Run) -> None:
    def refused(*words: object) -> str:
        code, _, err = run("watch", *words, "--device", "pole", "--once")
        assert code == 2, err
        assert len(err.splitlines()) == 1
        return err

    assert "pole has no monitor in" in refused()
    assert "holds no such bundle (gpu)" in refused("gpu")
    assert "no monitor keeps its state at" in refused("cpu")
    (pole / "watch").mkdir()
    (pole / "watch" / "cpu.json").write_text("{")
    assert "cpu.json is damaged: it is not JSON" in refused()
    (pole / "watch" / "gpu.json").write_text("{")
    assert "pole has several monitors (cpu, gpu): name its bundle" in refused()
    assert "name the bundle whose monitor" in refused("--state", "own.json")
    assert "watches nothing here" in refused("cpu", "photos")
    assert "watches nothing here" in refused("--metrics", "9464")


_LIAR = """
write(MAGIC)
values = {{"home": {root!r}, "entries": {entries!r}, "read": {state!r}}}
while True:
    header, payload = asked()
    if header["op"] == "run":
        send({{"op": "out", "stream": 1}}, {said!r})
        send({{"op": "exit", "code": 0}})
    elif header["op"] in ("load", "call"):
        send({{"op": "done", "value": values.get(header.get("function"))}})
"""


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "it is empty"),
        (b"normal\n", "is not JSON"),
        (b"[" * 9000 + b"\n", "is not JSON"),
        (b"1\n", "must be an object"),
        (b'{"schema": 99}\n', "has schema 99"),
        (b'{"schema": 1, "images": "many"}\n', "must be a whole number, not 'many'"),
        (b"x" * 70_000, "too long"),
    ],
)
def test_nonsense_is_one_line(network: Network, run: Run, said: bytes, why: str) -> None:
    state = DeployState("key", "runtime", "python", "passed").to_json()
    script = _LIAR.format(root=str(ROOT), entries=["cpu.json"], state=state, said=said)
    add_device(network.enemy(script, "liar"))
    code, out, err = run("watch", "--device", "liar", "--once")
    assert code == 5
    assert out == ""
    assert len(err.splitlines()) == 1
    assert why in err
    assert len(err) < 300


def test_it_is_followed_until_it_ends(network: Network, run: Run) -> None:
    monitor = Monitor(reference())
    said = b""
    for start, end in ((0, 200), (200, 200), (200, 300), (300, 1000)):
        monitor.update(day()[start:end])
        said += json.dumps(monitor.status().to_dict()).encode() + b"\n"
    state = DeployState("key", "runtime", "python", "passed").to_json()
    script = _LIAR.format(root=str(ROOT), entries=["cpu.json"], state=state, said=said)
    add_device(network.enemy(script, "pole"))
    code, out, err = run("watch", "--device", "pole")
    assert code == 3
    shown = [line.partition(",")[0] for line in err.splitlines() if " images, evidence" in line]
    assert shown == [
        "normal: 200 images",
        "normal: 300 images",
        "changed: 1",
    ]
    assert err.splitlines()[-1].startswith("error: the images have changed since image ")
    assert out.startswith("changed: 1,000 images")


@pytest.mark.parametrize("entries", [None, 1, ["a"] * 1001, ["../../etc"], [1], {"a": 1}])
def test_names_are_checked(network: Network, run: Run, entries: object) -> None:
    script = _LIAR.format(root=str(ROOT), entries=entries, state=None, said=b"")
    add_device(network.enemy(script, "liar"))
    code, _, err = run("watch", "--device", "liar", "--once")
    assert code == 5
    assert "makes no sense" in err
    assert len(err.splitlines()) == 1

"""``edgekit bench`` on several devices at once, which are this machine behind sshd."""

import dataclasses
import json
from pathlib import Path

from edgekit.devices.registry import Device, add_device
from tests.devices.conftest import Run


def test_all_devices_measure(device: Device, bundle: Path, tmp_path: Path, run: Run) -> None:
    """One machine under two names takes turns; one that is gone does not affect the others."""
    run("deploy", bundle, "--device", "loop")
    add_device(dataclasses.replace(device, name="again"))
    add_device(dataclasses.replace(device, name="board", descriptor="jetson-orin-nano"))
    words = "--scenario", "latency", "--seconds", "0.2", "--max-ms", "10000"
    code, out, err = run("bench", bundle, "--devices", "all", *words, "--json")
    assert code == 0, err
    printed = json.loads(out)
    assert [one["device"]["name"] for one in printed["bundles"]] == ["loop", "again"]
    assert [one["looks"] for one in printed["bundles"]] == [1, 2]
    assert "board: left out: it takes bundles for jetson-orin-nano" in err
    gated = [one["bundle"] for one in printed["gate"]["bundles"]]
    assert gated == [f"{bundle} on loop", f"{bundle} on again"]

    add_device(dataclasses.replace(device, name="gone", port=1))
    names = "--device", "gone", "--device", "loop"
    code, _, err = run("bench", bundle, *names, *words, "-o", tmp_path / "bench.json")
    assert code == 5
    assert "gone" in err
    (measured,) = json.loads((tmp_path / "bench.json").read_text())["bundles"]
    assert measured["device"]["name"] == "loop"

    code, _, err = run("bench", bundle, bundle, *names, *words, "--compare")
    assert code == 2
    assert "--compare is of one device" in err

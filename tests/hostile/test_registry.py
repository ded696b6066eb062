"""The list of devices, changed by several at once."""

import threading
from pathlib import Path

import pytest

from edgekit.core.errors import EdgekitError
from edgekit.devices.registry import Device, add_device, devices, remove_device


def test_devices_added_at_once_are_all_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_DEVICES", str(tmp_path / "new" / "devices.toml"))
    names = [[f"n{worker}-{i}" for i in range(8)] for worker in range(4)]

    def work(mine: list[str]) -> None:
        for name in mine:
            add_device(Device(name, f"me@{name}"))
            add_device(Device(f"{name}-old", "me@old"))
            remove_device(f"{name}-old")

    threads = [threading.Thread(target=work, args=(mine,)) for mine in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(devices()) == {name for mine in names for name in mine}


def test_a_place_that_takes_no_list_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEKIT_DEVICES", str(tmp_path / "file" / "devices.toml"))
    with pytest.raises(EdgekitError, match="cannot write"):
        add_device(Device("nano", "me@nano"))

import json
from pathlib import Path

import pytest

from edgekit.core.errors import UsageError
from edgekit.devices.registry import Device, add_device, devices, find_device, registry_path
from edgekit.devices.ssh import ssh_command
from tests.devices.conftest import Run


def test_add_list_remove(run: Run) -> None:
    words = ("--port", 2222, "--descriptor", "cpu", "--ssh-option", "ProxyJump=bastion")
    code, _, err = run(
        "device", "add", "nano", "me@orin.local", *words, "--ssh-option=-F/my config"
    )
    assert code == 0, err
    run("device", "add", "pi", "pi@10.0.0.7")
    options = ("-oProxyJump=bastion", "-F/my config")
    nano = Device("nano", "me@orin.local", 2222, "cpu", options=options)
    assert devices() == {"nano": nano, "pi": Device("pi", "pi@10.0.0.7")}
    code, out, _ = run("device", "list", "--json")
    assert [entry["host"] for entry in json.loads(out)["devices"]] == [
        "me@orin.local",
        "pi@10.0.0.7",
    ]
    assert "ProxyJump" in run("device", "list")[1]
    code, _, err = run("device", "remove", "nano")
    assert (code, list(devices())) == (0, ["pi"])
    assert "stays in ~/.edgekit" in err


def test_a_name_is_replaced(run: Run) -> None:
    run("device", "add", "pi", "pi@10.0.0.7")
    code, _, err = run("device", "add", "pi", "pi@10.0.0.8")
    assert code == 0
    assert "replaced pi" in err
    assert devices()["pi"].host == "pi@10.0.0.8"


def test_names_and_hosts_are_found() -> None:
    add_device(Device("nano", "me@orin.local", 2222))
    assert find_device("nano").port == 2222
    assert find_device("me@orin.local").port == 2222  # as registered
    assert find_device("other@host") == Device("other@host", "other@host")
    with pytest.raises(UsageError, match=r"unknown device 'nan' \(did you mean 'nano'\?\)"):
        find_device("nan")


@pytest.mark.parametrize("command", ["deploy", "bench", "parity"])
def test_an_unknown_device_is_named(command: str, bundle: Path, run: Run) -> None:
    add_device(Device("nano", "me@orin.local"))
    code, out, err = run(command, bundle, "--device", "nono")
    assert (code, out) == (2, "")
    assert err.startswith("error: unknown device 'nono' (did you mean 'nano'?)")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a", "-oProxyCommand=x"), "No such option"),
        (("a", "me@-oProxyCommand=x"), "is not a host"),
        (("a", "me@host;reboot"), "is not a host"),
        (("a b", "me@host"), "is not a valid device name"),
        (("a", "me@host", "--descriptor", "cpuu"), "did you mean 'cpu'"),
        (("a", "me@host", "--python", "it's"), "is not a usable path"),
        (("a", "me@host", "--ssh-option", "StrictHostKeyChecking=no"), "impersonate a"),
        (("a", "me@host", "--ssh-option", "-o StrictHostKeyChecking no"), "impersonate a"),
        (("a", "me@host", "--ssh-option", "UserKnownHostsFile=/dev/null"), "impersonate a"),
        (("a", "me@host", "--ssh-option", "ProxyJump=a\x7fb"), "has unprintable characters"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], message: str, run: Run) -> None:
    code, _, err = run("device", "add", *words)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not registry_path().exists()


def test_a_broken_registry_names_its_line(run: Run) -> None:
    registry_path().write_text('[[device]]\nname = "a"\nhots = "me@host"\n')
    code, _, err = run("device", "list")
    assert code == 2
    assert "unknown key 'device.hots' (did you mean 'host'?)" in err


def test_the_ssh_command() -> None:
    device = Device("a", "me@host", 22, python="~/py thon", options=("-F/my config",))
    command = ssh_command(device, 10)
    assert command[0] == "ssh"
    assert command[-6:-1] == ["-p", "22", "-F/my config", "--", "me@host"]
    assert command[-1].startswith("exec ~/'py thon' -u -c '")
    assert "BatchMode=yes" in command
    assert command[2:4] == ["-o", "StrictHostKeyChecking=yes"]

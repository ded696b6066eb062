"""Nobody poses as a device: the key of its host is known, or there is no connection."""

import dataclasses
import getpass
from pathlib import Path

import pytest

from edgekit.core.errors import DeviceUnreachable, UsageError
from edgekit.devices.host_keys import weakening
from edgekit.devices.registry import Device
from edgekit.devices.session import Session
from edgekit.devices.ssh import ssh_command
from tests.devices.conftest import Server, server

__all__ = ["server"]


@pytest.mark.parametrize(
    "options",
    [
        ("-oStrictHostKeyChecking=no",),
        ("-oStrictHostKeyChecking=accept-new",),
        ("-oSTRICTHOSTKEYCHECKING=Off",),
        ("-o StrictHostKeyChecking no",),
        ("-o\tstricthostkeychecking\tno",),
        ('-oStrictHostKeyChecking="no"',),
        ("-oStrictHostKeyChecking = no",),
        ("-o", "StrictHostKeyChecking=no"),
        ("-4oStrictHostKeyChecking=no",),
        ("-vC4o", "StrictHostKeyChecking=no"),
        ("-oProxyJump=x", "-i", "key", "-oStrictHostKeyChecking=no"),
        ("-oUserKnownHostsFile=",),
        ("-oUserKnownHostsFile=/dev/null",),
        ("-oUserKnownHostsFile /dev/null /dev/null",),
        ("-oUserKnownHostsFile=none",),
        ("-oKnownHostsCommand=/usr/bin/ssh-keyscan %H",),
        ("-oVerifyHostKeyDNS=yes",),
        ("-oNoHostAuthenticationForLocalhost=yes",),
    ],
)
def test_what_weakens_is_refused(options: tuple[str, ...]) -> None:
    assert weakening(options) is not None
    with pytest.raises(UsageError, match="would let anyone impersonate nano") as caught:
        Device("nano", "me@orin", options=options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-oProxyJump=bastion", "-F/my config"),
        ("-oStrictHostKeyChecking=yes",),
        ("-oUserKnownHostsFile=~/.ssh/known_hosts /etc/known",),
        ("-oKnownHostsCommand=none",),
        ("-i", "-oStrictHostKeyChecking=no"),  # the name of a file
        ("-JoStrictHostKeyChecking=no",),  # the name of a host
        ("-oHostKeyAlias=orin",),
        ("-oGlobalKnownHostsFile=/dev/null",),  # fewer keys are trusted, not more
    ],
)
def test_what_does_not_passes(options: tuple[str, ...]) -> None:
    assert weakening(options) is None
    command = ssh_command(Device("nano", "me@orin", options=options), 10)
    assert command[2:4] == ["-o", "StrictHostKeyChecking=yes"]
    assert all(command.index(option) > 8 for option in options)


def test_a_configuration_that_trusts_everybody_does_not_help(
    server: Server, tmp_path: Path
) -> None:
    """The host key is one that nobody has seen; ssh alone would have gone in."""
    config = tmp_path / "config"
    config.write_text(
        f"StrictHostKeyChecking no\nUserKnownHostsFile {tmp_path}/known\n"
        f"GlobalKnownHostsFile /dev/null\nIdentityFile {server.folder}/user\n"
        "NoHostAuthenticationForLocalhost yes\n"
    )
    host = f"{getpass.getuser()}@127.0.0.1"
    device = Device("loop", host, server.port, options=("-F", str(config)))
    with (
        pytest.raises(DeviceUnreachable, match=r"cannot reach loop .*[Hh]ost key"),
        Session(device),
    ):
        pass
    assert not (tmp_path / "known").exists()
    with Session(dataclasses.replace(server.device(tmp_path), options=server.options)):
        pass

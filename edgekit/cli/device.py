"""``edgekit device``: the machines that bundles are deployed to over ssh."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.common import CHECKS, Command, Group, common
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, ToolchainMissing
from edgekit.core.tables import Column, Table

DEVICES = Table.of(
    "name",
    "host",
    Column("port", drop=3),
    "target",
    Column("folder", drop=2),
    Column("ssh options", "prose", drop=1),
)


@click.group(cls=Group)
def device() -> None:
    """Register and check the devices that edgekit reaches over ssh."""


@device.command(
    cls=Command,
    prints=("device-add",),
    examples="""
    edgekit device add nano nano@orin.local --descriptor jetson-orin-nano
    edgekit device add pi pi@10.0.0.7 --port 2222 --folder /data/edgekit
    edgekit device add lab me@box --ssh-option ProxyJump=bastion
    """,
)
@click.argument("name")
@click.argument("host", metavar="USER@HOST")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="The ssh port, unless your ssh config has it."
)
@click.option("--descriptor", default="", help="Its target; bundles for other targets are refused.")
@click.option("--python", default="python3", show_default=True, help="Its Python, 3.10 or newer.")
@click.option(
    "--folder", default="~/.edgekit", show_default=True, help="edgekit's folder on the device."
)
@click.option(
    "--ssh-option",
    "options",
    multiple=True,
    help="As for ssh -o, or an argument such as -F/path; repeatable.",
)
@click.option(
    "--signers",
    default="",
    help="Deploy only if signed by somebody in this allowed_signers file.",
)
@click.option("--require-signature", is_flag=True, help="Deploy signed bundles only.")
@common
def add(
    console: Console,
    name: str,
    host: str,
    port: int | None,
    descriptor: str,
    python: str,
    folder: str,
    options: tuple[str, ...],
    signers: str,
    require_signature: bool,
) -> None:
    """Register a device under NAME, replacing an existing one.

    USER@HOST is what you would pass to ssh; your ssh config, keys and jump hosts are used.
    edgekit never asks for passwords, and ssh must already know the device's host key.
    """
    from edgekit.devices.registry import AddedDevice, Device, add_device, registry_path
    from edgekit.targets.descriptor import load_descriptor

    if descriptor:
        load_descriptor(descriptor)
    arguments = tuple(text if text.startswith("-") else f"-o{text}" for text in options)
    entry = Device(
        name=name,
        host=host,
        port=port or 0,
        descriptor=descriptor,
        python=python,
        folder=folder,
        options=arguments,
        signers=str(Path(signers).expanduser().absolute()) if signers else "",
        require_signature=require_signature,
    )
    replaced = add_device(entry)
    console.document(AddedDevice(name, host, replaced))
    console.info(f"{'replaced' if replaced else 'added'} {name} in {registry_path()}")
    console.info(f"next: edgekit device check {name}")


@device.command(
    cls=Command,
    name="list",
    prints=("device-list",),
    examples="edgekit device list --json | jq '.devices[].host'",
)
@common
def list_devices(console: Console) -> None:
    """List the registered devices."""
    from edgekit.devices.registry import DeviceList, devices

    known = tuple(devices().values())
    console.document(DeviceList(known))
    if not known:
        console.text("No devices yet: edgekit device add NAME user@host")
        return
    rows = [
        (one.name, one.host, str(one.port or ""), one.descriptor, one.folder, " ".join(one.options))
        for one in known
    ]
    console.table(DEVICES, rows)


@device.command(cls=Command, prints=("device-remove",), examples="edgekit device remove nano")
@click.argument("name")
@common
def remove(console: Console, name: str) -> None:
    """Remove a device from the list; the device itself is not changed."""
    from edgekit.devices.registry import RemovedDevice, remove_device

    removed = remove_device(name)
    console.document(RemovedDevice(name))
    console.info(f"removed {name}; what was deployed there stays in {removed.folder}")


@device.command(
    cls=Command,
    prints=("device-check",),
    examples="""
    edgekit device check nano
    edgekit device check nano@orin.local pi --json
    """,
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@common
def check(console: Console, names: tuple[str, ...]) -> None:
    """Show what devices have, and how to install what is missing.

    Exits with 4 if something required is missing, with 5 if a device is unreachable.
    """
    from edgekit.cli.common import raise_failures
    from edgekit.devices.check import CheckedDevice, CheckedDevices, examine
    from edgekit.devices.fleet import on_all
    from edgekit.devices.registry import find_device

    chosen = [find_device(name) for name in names]
    results = on_all(chosen, console, lambda session, _: examine(session))
    outcomes = []
    failures: list[tuple[str, EdgekitError]] = []
    for one, result in zip(chosen, results, strict=True):
        if isinstance(result, EdgekitError):
            failures.append((one.name, result))
            outcomes.append(CheckedDevice(one.name, ready=False, error=str(result)))
            continue
        checks, facts = result
        missing = [row.name for row in checks if row.needed and row.status == "missing"]
        if missing:
            text = f"{one.name} lacks {', '.join(missing)}: the table says how to get it"
            failures.append((one.name, ToolchainMissing(text)))
        outcomes.append(CheckedDevice(one.name, not missing, tuple(checks), facts))
        rows = [
            (row.name, row.status if row.status != "none" else "-", row.found, row.fix)
            for row in checks
        ]
        title = f"{one.name} ({one.host})"
        console.table(CHECKS, rows, title)
    console.document(CheckedDevices(tuple(outcomes)))
    raise_failures(failures)

"""``edgekit deploy``: puts a bundle on devices, ready to run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.common import Command, common, raise_failures
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.tables import Column, Table

if TYPE_CHECKING:
    from edgekit.devices.registry import Device

DEPLOYED = Table.of(
    "device",
    "state",
    Column("copied", drop=2),
    Column("seconds", "figure", drop=1),
    Column("where", "prose"),
)
ROLLED_BACK = Table.of(
    "device", "state", Column("seconds", "figure", drop=1), Column("where", "prose")
)


@click.command(
    cls=Command,
    prints=("deploy", "deploy-rollback"),
    short_help="Put a bundle on devices, ready to run.",
    examples="""
    edgekit deploy build/jetson-orin-nano --device nano
    edgekit deploy build/openvino-arm --device pi@10.0.0.7 --device lab
    edgekit deploy build/cpu --device nano --wheels ./wheels    without internet
    edgekit deploy build/cpu --device nano --signers allowed_signers
    edgekit deploy --rollback --device nano
    """,
)
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option(
    "--device",
    "names",
    multiple=True,
    help="A registered device, or user@host; repeatable.  [required]",
)
@click.option(
    "--wheels", type=click.Path(path_type=Path), help="Folder of wheels to install from, offline."
)
@click.option(
    "--signers",
    type=click.Path(path_type=Path),
    help="Deploy only if signed by somebody in this allowed_signers file.",
)
@click.option(
    "--allow-rollback",
    is_flag=True,
    help="Replace a signed bundle there by one with a smaller number.",
)
@click.option(
    "--rollback", is_flag=True, help="Put back what the last deploy replaced; nothing is copied."
)
@common
def deploy(
    console: Console,
    bundle: Path | None,
    names: tuple[str, ...],
    wheels: Path | None,
    signers: Path | None,
    allow_rollback: bool,
    rollback: bool,
) -> None:
    """Copy BUNDLE to devices, install its runtime, build its engine if needed, test it.

    Only changes are copied, and a copy that broke off resumes. Devices are served in
    parallel; a failure does not affect the others. The exit code is the highest of all.

    A device keeps the bundle that a deploy replaced, if it had passed its self-test there,
    until another one is replaced. --rollback tests it again and puts it back; of BUNDLE only
    the name counts then, and it may be left out if there is only one to go back to.
    """
    from edgekit.devices.deploy import Deployments, deploy_all, outcomes
    from edgekit.devices.registry import find_device

    if not names:
        raise UsageError(
            "name where to, with --device: a device that 'edgekit device list' shows, or user@host"
        )
    devices = [find_device(name) for name in dict.fromkeys(names)]
    if rollback:
        _roll_back(console, bundle, devices, wheels, signers, allow_rollback)
        return
    if bundle is None:
        raise UsageError("name the bundle to deploy, or put back the one before with --rollback")
    results = deploy_all(
        bundle,
        devices,
        console,
        wheels=wheels,
        signers=signers,
        allow_rollback=allow_rollback,
    )
    rows = []
    for device, result in zip(devices, results, strict=True):
        if isinstance(result, EdgekitError):
            rows.append((device.name, "failed", "", "", str(result)))
            continue
        state = "up to date" if result.up_to_date else "deployed"
        copied = f"{result.files} files, {result.bytes / 1e6:.1f} MB"
        rows.append((device.name, state, copied, f"{result.seconds:.1f}", result.bundle))
    console.document(Deployments(bundle, outcomes(devices, results)))
    console.table(DEPLOYED, rows)
    _raise(devices, results)


def _roll_back(
    console: Console,
    bundle: Path | None,
    devices: Sequence[Device],
    wheels: Path | None,
    signers: Path | None,
    allow_rollback: bool,
) -> None:
    from edgekit.devices.deploy import outcomes
    from edgekit.devices.rollback import Rollbacks, roll_back_all

    results = roll_back_all(
        bundle,
        devices,
        console,
        wheels=wheels,
        signers=signers,
        allow_rollback=allow_rollback,
    )
    rows = [
        (device.name, "failed", "", str(result))
        if isinstance(result, EdgekitError)
        else (device.name, "rolled back", f"{result.seconds:.1f}", result.bundle)
        for device, result in zip(devices, results, strict=True)
    ]
    console.document(Rollbacks(outcomes(devices, results)))
    console.table(ROLLED_BACK, rows)
    _raise(devices, results)


def _raise(devices: Sequence[Device], results: Sequence[object]) -> None:
    pairs = zip(devices, results, strict=True)
    raise_failures(
        [(one.name, result) for one, result in pairs if isinstance(result, EdgekitError)]
    )

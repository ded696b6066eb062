"""``edgekit sign`` and ``edgekit verify``: who vouches for a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console


@click.command(
    cls=Command,
    prints=("sign",),
    short_help="Sign a bundle with your ssh key.",
    examples="""
    edgekit sign build/cpu --key ~/.ssh/id_ed25519
    edgekit sign build/cpu --key ~/.ssh/id_ed25519 --sequence 12
    edgekit sign build/cpu --key ~/.ssh/id_ed25519_sk.pub    hardware key or agent
    """,
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path), help="One of your ssh keys.")
@click.option(
    "--sequence",
    type=click.IntRange(0, 2**63 - 1),
    help="Your number for it: larger than that of what it replaces.",
)
@common
def sign(console: Console, bundle: Path, key: Path, sequence: int | None) -> None:
    """Sign BUNDLE (its model, labels and parity verdict) with your ssh key.

    Later benchmarks and reports do not invalidate the signature. With --sequence, devices
    refuse to go back to a smaller number. See docs/security.md.
    """
    from edgekit.bundle.signature import Signed
    from edgekit.bundle.signature import sign as sign_bundle

    console.document(Signed(bundle, sign_bundle(bundle, key.expanduser(), sequence)))
    console.info(f"{bundle} is signed; 'edgekit verify {bundle} --signers FILE' checks it")


@click.command(
    cls=Command,
    prints=("verify",),
    short_help="Check a bundle's files and its signature.",
    examples="""
    edgekit verify build/cpu --signers allowed_signers
    edgekit verify build/cpu --signers allowed_signers --at-least 12
    """,
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--signers",
    required=True,
    type=click.Path(path_type=Path),
    help="Trusted signers, in the format of OpenSSH's allowed_signers.",
)
@click.option(
    "--at-least",
    type=click.IntRange(0, 2**63 - 1),
    help="Refuse what was signed with a smaller --sequence, or none.",
)
@common
def verify(console: Console, bundle: Path, signers: Path, at_least: int | None) -> None:
    """Check every file of BUNDLE, and that a trusted signer signed it; else exit with 2."""
    from edgekit.bundle.signature import Verified
    from edgekit.bundle.signature import verify as verify_bundle
    from edgekit.bundle.store import open_bundle

    opened = open_bundle(bundle, any_arch=True)
    signer = verify_bundle(opened, signers.expanduser(), at_least)
    model = opened.manifest.identity()
    console.document(Verified(bundle, signer.principal, signer.key, signer.sequence, model))
    number = "" if signer.sequence is None else f", as number {signer.sequence}"
    console.text(f"{bundle}: signed by {signer.principal}, {signer.key}{number}")

"""``edgekit sign`` and ``edgekit verify``: whose bundle is this?"""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console


@click.command(
    cls=Command,
    examples="""
    edgekit sign build/cpu --key ~/.ssh/id_ed25519
    edgekit sign build/cpu --key ~/.ssh/id_ed25519_sk.pub     a hardware key or an agent
    """,
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--key", required=True, type=click.Path(path_type=Path), help="A key of yours for ssh."
)
@common
def sign(console: Console, bundle: Path, key: Path) -> None:
    """Sign BUNDLE: its model, labels and parity's verdict, with a key that you have for ssh.

    Benchmarks and reports made later do not break the signature. See docs/security.md.
    """
    from edgekit.bundle.signature import sign as sign_bundle

    signed = sign_bundle(bundle, key.expanduser())
    console.document({"bundle": str(bundle), "signed": signed})
    console.info(f"{bundle} is signed; 'edgekit verify {bundle} --signers FILE' checks it")


@click.command(
    cls=Command,
    examples="""
    edgekit verify build/cpu --signers allowed_signers
    """,
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--signers",
    required=True,
    type=click.Path(path_type=Path),
    help="Whose signatures count, in the format of OpenSSH's allowed_signers.",
)
@common
def verify(console: Console, bundle: Path, signers: Path) -> None:
    """Check every file of BUNDLE, and that somebody in SIGNERS signed it; exit code 2 if not."""
    from edgekit.bundle.signature import verify as verify_bundle
    from edgekit.bundle.store import open_bundle

    opened = open_bundle(bundle, any_arch=True)
    signer = verify_bundle(opened, signers.expanduser())
    document = {"bundle": str(bundle), "signer": signer.principal, "key": signer.key}
    console.document({**document, "model": opened.manifest.identity()})
    console.text(f"{bundle}: signed by {signer.principal}, {signer.key}")

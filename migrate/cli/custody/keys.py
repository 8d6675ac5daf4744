"""``moveout keys``: a key to sign with."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct

from migrate.cli import app
from migrate.cli.common.options import CaseFile
from migrate.cli.common.session import Session
from migrate.cli.common.signing_keys import PASSPHRASE, Passphrase, SigningOptions, reference
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Console
from migrate.cli.common.verb import verb
from migrate.custody.signing import keys, ssh_agent
from migrate.custody.signing.keys import PublicKey
from migrate.errors import OK

group = typer.Typer(help="Make and show keys to sign with.", no_args_is_help=True)
app.add_typer(group, name="keys")


class Keys(Struct, frozen=True):
    """Keys, as one shows them to others. ``made`` is the file of a new one."""

    public_keys: tuple[PublicKey, ...]
    made: str = ""
    in_agent: bool = False
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return what may be shown of each."""
        shown = [
            {"name": public_key.name, "fingerprint": public_key.fingerprint, "public": public_key.line}
            for public_key in self.public_keys
        ]
        return {"file": self.made or None, "in_agent": self.in_agent, "keys": shown}

    def draw(self, console: Console) -> None:
        """Print the lines of an ``allowed_signers`` file."""
        if self.made:
            console.print(
                f"A new key lies in {self.made} (keep it secret), its public half in {self.made}.pub"
            )
            if self.in_agent:
                console.print(
                    f"The ssh-agent has it: --key {self.made}.pub signs by it, without the passphrase"
                )
            console.print("Give this line to those who shall check your signatures:")
        for public_key in self.public_keys:
            console.print(f"{_principal(public_key)} {public_key.line}", wrap=False)
            console.print(f"# {public_key.fingerprint}")


def _principal(public: PublicKey) -> str:
    return "-".join(public.name.split()) or public.id


@verb(group, "init", title="keys init", examples=('keys init host.key --name "Host Ltd"',))
def init_command(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file for the private key.")] = Path(
        "moveout.key"
    ),
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Your name, or your organization's. It is part of the public key."),
    ] = None,
    passphrase: Passphrase = None,
    *,
    to_agent: Annotated[
        bool,
        typer.Option(
            "--agent", help="Add the key to the running ssh-agent, too: then sign with --key FILE.pub."
        ),
    ] = False,
) -> Keys:
    """Make an Ed25519 key in OpenSSH's format, readable by you alone."""
    del session
    running = ssh_agent.running() if to_agent else None
    secret = reference(passphrase)
    word = secret.reveal() if secret else os.environ.get(PASSPHRASE)
    created_key = keys.create(file, name or _user(), word)
    if running:
        running.add(created_key)
    return Keys((created_key.public,), str(file), in_agent=running is not None)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container the number may have no name
        return f"user-{os.geteuid()}"


@verb(group, "show", title="keys show", examples=("keys show host.key >> signers",))
def show_command(
    session: Session,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE …", help="FILE.pub, or FILE if FILE.pub lies next to it. No passphrase is needed."
        ),
    ] = None,
    *,
    signing: SigningOptions,
    case: CaseFile = None,
) -> Keys:
    """Print the public key: others check your signatures with it."""
    del session
    if files:
        return Keys(tuple(map(keys.load_public, map(keys.public_half, files))))
    return Keys(tuple(signer.public for signer in signing.need(load_case(case))))

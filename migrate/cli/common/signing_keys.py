"""Who signs: the options, variables and the case file's ``[custody]`` by which keys are named."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from migrate.case.model import Case, Custody
from migrate.case.secrets import Secret, is_reference
from migrate.errors import UsageError

if TYPE_CHECKING:
    from migrate.cli.common.terminal import Console
    from migrate.custody.signing.allowed_signers import Trust
    from migrate.custody.signing.bundle_signatures import SignatureFile
    from migrate.custody.signing.keys import Signer

PASSPHRASE = "MOVEOUT_PASSPHRASE"  # noqa: S105 - a variable's name

KeyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--key",
        metavar="FILE",
        envvar="MOVEOUT_KEY",
        help="The private key to sign with, or FILE.pub of a key in the ssh-agent; may be repeated.",
    ),
]
Passphrase = Annotated[
    str | None,
    typer.Option(
        "--passphrase",
        metavar="REF",
        help="The key's passphrase: env:VAR, file:PATH, command:PROGRAM …",
    ),
]


class SigningOptions(Struct, frozen=True):
    """The options of a command that signs."""

    key: KeyFiles = None
    passphrase: Passphrase = None

    def load(self, case: Case | None) -> list[Signer]:
        """Return the keys that are named: on the command line, by MOVEOUT_KEY, or in the case; none where none is."""
        custody = custody_of(case)
        chosen = list(self.key or ([custody.key] if custody.key else []))
        secret = _passphrase(self.passphrase, custody)
        return [_signer(path.expanduser(), secret) for path in chosen]

    def need(self, case: Case | None) -> list[Signer]:
        """Like ``load``, and raise ``UsageError`` where no key is named."""
        signers = self.load(case)
        if not signers:
            raise UsageError(
                "no key is named to sign with",
                next_step="add --key FILE, MOVEOUT_KEY or [custody] key in the case file; `moveout keys init` makes"
                " one",
            )
        return signers


Signers = Annotated[
    Path | None,
    typer.Option("--signers", metavar="FILE", help="Trusted signers: an allowed_signers file of OpenSSH."),
]


def custody_of(case: Case | None) -> Custody:
    """Return the custody section of the case; an empty one without a case."""
    return case.custody if case else Custody()


def _signer(path: Path, secret: Secret | None) -> Signer:
    from migrate.custody.signing import keys, ssh_agent  # noqa: PLC0415  many commands that may sign have no key

    if path.suffix == ".pub":
        return ssh_agent.load(path)
    return keys.load(path, lambda: secret.reveal() if secret else None)


def load_trust(path: Path | None, case: Case | None) -> Trust | None:
    """Return the trusted signers, None where none are named."""
    from migrate.custody.signing import allowed_signers  # noqa: PLC0415  see ``_signer``

    chosen = path or custody_of(case).signers
    return allowed_signers.load(chosen) if chosen else None


def reference(text: str | None) -> Secret | None:
    """Return the secret that an option names. Raises ``UsageError`` where it looks like the secret itself."""
    if text is not None and not is_reference(text):
        raise UsageError(
            "--passphrase takes no passphrase itself",
            next_step="write env:VAR, file:PATH or command:PROGRAM …",
        )
    return Secret(text) if text is not None else None


def _passphrase(option: str | None, custody: Custody) -> Secret | None:
    chosen = reference(option) or custody.passphrase
    return chosen or (Secret(f"env:{PASSPHRASE}") if PASSPHRASE in os.environ else None)


def draw_signed(console: Console, signed: Sequence[SignatureFile]) -> None:
    """Print who signed."""
    for signed_file in signed:
        console.print(
            f"Signed by {signed_file.public.fingerprint} {signed_file.public.name} ({signed_file.key})"
        )

"""``moveout check-proof``: such a proof is checked without the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct

from migrate.cli import app
from migrate.cli.common.options import CaseFile, known_location
from migrate.cli.common.session import Session
from migrate.cli.common.signing_keys import Signers, load_trust
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.custody.log import custody_log, events
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import PublicKey
from migrate.custody.tree import checkpoint, inclusion_proof
from migrate.custody.tree.checkpoint import Checkpoint
from migrate.custody.tree.leaves import Item, describe
from migrate.errors import OK, DamageError, UsageError
from migrate.number_text import moment_words


class CheckedProof(Struct, frozen=True):
    """What a proof came to. ``why`` says what does not hold, empty where all does. ``times`` are those at which keys
    signed, by their fingerprints, as a custody log says.
    """

    file: str
    why: str
    item: Item | None
    checkpoint: Checkpoint | None
    signers: Mapping[PublicKey, str]
    times: Mapping[str, datetime] = {}

    @property
    def exit_code(self) -> int:
        """6 where it proves nothing."""
        return DamageError.exit_code if self.why else OK

    def as_json(self) -> dict[str, Any]:
        """Return what is proved."""
        checkpoint_ = self.checkpoint
        return {
            "file": self.file,
            "holds": not self.why,
            "why": self.why,
            "item": self.item,
            "bundle": checkpoint_.bundle if checkpoint_ else None,
            "root": checkpoint_.root if checkpoint_ else None,
            "signed_by": list(self.signers.values()),
            "signed_at": [self.times.get(signer.fingerprint) for signer in self.signers],
            "verifiers": [checkpoint.verifier(checkpoint_.bundle, signer) for signer in self.signers]
            if checkpoint_
            else [],
        }

    def draw(self, console: Console) -> None:
        """Print what is proved."""
        if self.why or self.item is None or self.checkpoint is None:
            console.print(Text(f"{self.file} proves nothing: {self.why}", style="bold red"))
            return
        signer_names, item = ", ".join(map(self._signer, self.signers)), plain(describe(self.item))
        console.print(Text(f"{signer_names} signed that the bundle {self.checkpoint.bundle} holds {item}"))

    def _signer(self, public: PublicKey) -> str:
        at = self.times.get(public.fingerprint)
        return self.signers[public] + (f" (by the custody log, at {moment_words(at)})" if at else "")


@verb(app, "check-proof", examples=("check-proof proof.json --signers signers",))
def check_proof_command(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A proof.")],
    location: Annotated[
        str | None,
        typer.Argument(
            metavar="LOCATION", help="Where the bundle's custody log lies: it says when a key signed."
        ),
    ] = None,
    case: CaseFile = None,
    signers: Signers = None,
) -> CheckedProof:
    """Check a proof without the bundle.

    Checks the hashes up to the root, and who signed the root. A proof has no time: a key counts as of now, or as of
    the time that the custody log at LOCATION names.
    """
    loaded = load_case(case)
    trust = load_trust(signers, loaded)
    if trust is None:
        raise UsageError(
            "no list of signers is given, so no signature counts",
            next_step="add --signers FILE with the line that the signer's `moveout keys show` printed",
        )
    try:
        with file.open("rb") as data:
            proof = inclusion_proof.decode(data.read(inclusion_proof.MAX_BYTES + 1))
            item = proof.item
    except OSError as exc:
        raise UsageError(
            f"{file} cannot be read: {exc.strerror}", next_step="name a file that moveout prove has written"
        ) from exc
    except ValueError as exc:
        return CheckedProof(str(file), f"it cannot be read: {exc}", None, None, {})
    times: Mapping[str, datetime] = {}
    if location is not None:
        log = custody_log.check_order(session.store(known_location([location], loaded)))
        times = events.signing_times(log, proof.checkpoint.root, trust)
    signed_by = _signed_by(proof.checkpoint, trust, times)
    failure = "" if signed_by else _unsigned(proof.checkpoint, trust, times)
    failure = failure if proof.holds else "the item is not in the tree whose root was signed"
    return CheckedProof(str(file), failure, item, proof.checkpoint, signed_by, times)


def _signed_by(
    signed_checkpoint: Checkpoint, trust: Trust, times: Mapping[str, datetime]
) -> dict[PublicKey, str]:
    signers = signed_checkpoint.signers(list(trust.keys))
    names = {public: trust.label(public, times.get(public.fingerprint)) for public in signers}
    return {public: name for public, name in names.items() if name}


def _unsigned(signed_checkpoint: Checkpoint, trust: Trust, times: Mapping[str, datetime]) -> str:
    """Return why no signature counts: nobody listed has signed, or with a key that the list no longer counts."""
    for public in signed_checkpoint.signers(list(trust.keys)):
        owner = trust.keys[public][0]
        if (at := times.get(public.fingerprint)) is not None:
            return f"it was signed at {moment_words(at)} by {owner}"
        return (
            f"it is signed by {owner}, and a proof does not say when it was signed; the bundle's custody log does:"
            " moveout check-proof FILE LOCATION"
        )
    return f"its checkpoint is signed by nobody in {trust.source}"

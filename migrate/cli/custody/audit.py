"""``moveout audit``: samples that were drawn after the seal, and what they show."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import typer
from msgspec import Struct

from migrate.cli import app
from migrate.cli.common.findings import draw_findings
from migrate.cli.common.options import CaseFile, LocationWord, known_location
from migrate.cli.common.session import TRANSFER_WORKERS, Session
from migrate.cli.common.signing_keys import Signers, SigningOptions, load_trust
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Console, Text
from migrate.cli.common.verb import verb
from migrate.custody import sampling_audit
from migrate.custody.sampling_audit import Audited, Question, Seed
from migrate.errors import OK, DamageError, UsageError
from migrate.number_text import things

_SEED_BYTES = 32


class SignedAudit(Struct, frozen=True):
    """A signed audit."""

    location: str
    done: Audited

    @property
    def exit_code(self) -> int:
        """6 with any finding."""
        return DamageError.exit_code if self.done.findings else OK

    def as_json(self) -> dict[str, Any]:
        """Return the document."""
        return {**self.done.document.value, "location": self.location, "audit": self.done.document.key}

    def draw(self, console: Console) -> None:
        """Print the result of the samples."""
        console.print(Text(self.done.document.about, style="bold red" if self.done.findings else ""))
        if self.done.known:
            console.print(
                f"{things(self.done.known, 'sample')} of items that the bundle itself says are not in it"
            )
        if self.done.findings:
            draw_findings(console, self.done.findings)
        console.print(f"Signed: {self.done.document.key}")


@verb(app, "audit", workers=True, bwlimit=True, examples=("audit bundle --key auditor.key",))
def audit_command(
    session: Session,
    words: LocationWord = None,
    *,
    confidence: Annotated[
        float, typer.Option(metavar="SHARE", help="The confidence to reach, below 1.")
    ] = 0.99,
    loss: Annotated[float, typer.Option(metavar="SHARE", help="The share of damage to rule out.")] = 0.001,
    seed: Annotated[
        str | None,
        typer.Option(
            metavar="HEX", help="The seed of an earlier audit, to check the same samples (default: random)."
        ),
    ] = None,
    case: CaseFile = None,
    signing: SigningOptions,
    signers: Signers = None,
) -> SignedAudit:
    """Check samples of a signed bundle, and sign the result.

    Samples are drawn from a random seed. Every byte of them is hashed.
    """
    loaded = load_case(case)
    signer = signing.need(loaded)[0]
    location = known_location(words, loaded)
    store = session.store(location, loaded)
    audited = sampling_audit.audit(
        store,
        Question(confidence, loss),
        signer,
        load_trust(signers, loaded),
        seed=Seed(secrets.token_bytes(_SEED_BYTES)) if seed is None else Seed(_parsed(seed), named=True),
        workers=session.workers(default=TRANSFER_WORKERS),
        progress=session.progress,
    )
    return SignedAudit(store.location, audited)


def _parsed(text: str) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != _SEED_BYTES:
        raise UsageError("a seed is 64 hex digits", next_step="an audit's document has it")
    return data

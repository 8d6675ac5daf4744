"""``moveout receive``: the receiver of a bundle verifies it and signs a receipt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct

from migrate.bundle.findings import Finding
from migrate.cli import app
from migrate.cli.common.document_files import DocumentsTo, read_receipts, write_files
from migrate.cli.common.findings import draw_findings
from migrate.cli.common.options import CaseFile, LocationWord, known_location
from migrate.cli.common.papers import PageFile, receipt_paper, write_page
from migrate.cli.common.session import TRANSFER_WORKERS, Session
from migrate.cli.common.signatures import check_signatures
from migrate.cli.common.signing_keys import Signers, SigningOptions, load_trust
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.custody import documents, receipt
from migrate.custody.documents import Document
from migrate.errors import OK, DamageError, IncompleteError, NotAllowedError
from migrate.verify.run import Level, verify


class Received(Struct, frozen=True):
    """A signed receipt. ``files`` are the copies that were written outside of the location."""

    document: Document
    findings: Sequence[Finding]
    files: Sequence[str]
    page: Path | None = None
    """The page to print, where one was asked for."""
    read_only: bool = False
    """Whether the receiver may not write at the location, as at the sender's."""

    @property
    def exit_code(self) -> int:
        """6 where what arrived is damaged, 3 where it is incomplete by its own account."""
        if self.findings:
            return DamageError.exit_code
        return OK if self.document.value["complete"] else IncompleteError.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return the receipt."""
        return {
            **self.document.value,
            "receipt": self.document.key,
            "written": [*self.files, *([str(self.page)] if self.page else [])],
        }

    def draw(self, console: Console) -> None:
        """Print what it says, the first line first."""
        style = "" if self.exit_code == OK else "bold red"
        console.print(Text(plain(self.document.about), style=style))
        if self.findings:
            draw_findings(console, self.findings)
        console.print(
            f"Signed: {self.document.key} of {self.document.shown_moment}, for the root {self.document.root}"
        )
        if self.read_only:
            console.print(
                "It is for what lies where you may only read, and copies nothing: moveout transfer does, and only a"
                " receipt for another copy allows the sender to erase this one"
            )
        if self.page:
            console.print(f"The page to print: {self.page}")
        for file in self.files:
            console.print(f"  {file}", wrap=False)
        if self.files:
            console.print(
                "→ send these files to whom the bundle came from; with their own bundle at LOCATION they give:"
                f" moveout acknowledge LOCATION {Path(self.files[0]).name}"
            )


@verb(
    app,
    "receive",
    workers=True,
    bwlimit=True,
    examples=("receive bundle --signers signers --key acme.key --to exchange",),
)
def receive_command(
    session: Session,
    words: LocationWord = None,
    *,
    level: Annotated[
        Level, typer.Option(help="quick: names, sizes; complete: all there; full: every byte.")
    ] = Level.FULL,
    to: DocumentsTo = None,
    case: CaseFile = None,
    signing: SigningOptions,
    signers: Signers = None,
    page: PageFile = None,
) -> Received:
    """Verify a bundle, then sign a receipt for it.

    The receipt names the root hash, the level and the findings; only one of level full allows an erasure. It is
    stored next to the bundle; if you may not write there, in files here or in --to. If it was interrupted, repeat
    the command to finish.
    """
    loaded = load_case(case)
    own_keys = signing.need(loaded)
    location = known_location(words, loaded)
    store = session.store(location, loaded)
    outcome = verify(
        store, level, workers=session.workers(default=TRANSFER_WORKERS), progress=session.progress
    )
    trust = load_trust(signers, loaded)
    signed = check_signatures(store, trust, deep=level is Level.FULL and outcome.is_whole)
    findings = [*outcome.findings, *signed.findings]
    checked = receipt.Checked(level.value, outcome.files, outcome.size_bytes, findings)
    read_only = False
    try:
        document = receipt.receive(store, checked, own_keys)
    except NotAllowedError:
        read_only = True
        to = to or Path()
        by = [own_key.public for own_key in own_keys]
        document = receipt.write(store, checked, by, read_receipts(to), stored=False)
    files = write_files(to, document, documents.signatures_of(document, own_keys)) if to else []
    if page is not None:
        write_page(page, receipt_paper(document, [own.public for own in own_keys], signed, trust=trust))
    return Received(document, findings, files, page, read_only)

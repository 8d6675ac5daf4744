"""``moveout acknowledge``: the sender of a bundle counter-signs the receipt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migrate.cli import app
from migrate.cli.common.document_files import DocumentsTo, SignedFiles, read_files, write_files
from migrate.cli.common.options import CaseFile, known_location
from migrate.cli.common.papers import PageFile, receipt_paper, write_page
from migrate.cli.common.session import Session, verb
from migrate.cli.common.signatures import check_signed
from migrate.cli.common.signing_keys import NO_KEYS, Signers, SigningOptions, load_trust
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Console, Text, plain
from migrate.custody import documents, receipt
from migrate.custody.log import custody_log
from migrate.errors import NotAllowedError


class Acknowledged(SignedFiles, frozen=True):
    """A receipt that was counter-signed."""

    def draw(self, console: Console) -> None:
        """Print the result, the receipt's own first line first."""
        style = (
            ""
            if self.document.value.get("complete") and not self.document.value.get("findings_total")
            else "bold red"
        )
        console.print(Text(plain(self.document.about), style=style))
        console.print(f"Acknowledged: {self.document.key}, signed by {', '.join(self.by)} and by you")
        for file in self.files:
            console.print(f"  {file}", wrap=False)
        console.print(
            "→ send your signature back: the customer adds it with moveout custody add LOCATION RECEIPT.json"
        )


@verb(app, "acknowledge")
def acknowledge_command(
    session: Session,
    location: Annotated[str, typer.Argument(metavar="LOCATION", help="The bundle that was received.")],
    file: Annotated[
        Path, typer.Argument(metavar="RECEIPT", help="The receipt, with its signatures next to it.")
    ],
    *,
    to: DocumentsTo = None,
    case: CaseFile = None,
    signing: SigningOptions = NO_KEYS,
    signers: Signers = None,
    page: PageFile = None,
) -> Acknowledged:
    """Counter-sign the customer's receipt for a bundle.

    Checks first that the receipt is signed and belongs to this bundle. Your signature is written next to the
    receipt, too. Repeating the command changes nothing.
    """
    loaded = load_case(case)
    signer = signing.need(loaded)[0]
    endpoint = known_location([location], loaded)
    store = session.store(endpoint)
    document, signatures = read_files(file)
    trust = load_trust(signers, loaded)
    if trust is not None:
        by = receipt.senders_of(document, signatures, signer)
        recorded = custody_log.read(store).recorded_at(document.sha256)
        times = {public.fingerprint: recorded for public in by} if recorded else {}
        if by and trust.missing(by, document.key, times):
            raise NotAllowedError(
                f"the receipt is signed by nobody in {trust.source} whose key counts now",
                next_step="ask the customer for the key, and add it; or for a receipt by a key that is valid",
            )
    senders = receipt.acknowledge(store, document, signatures, signer)
    files = write_files(to or file.parent, document, documents.signatures_of(document, [signer]))
    if page is not None:
        signed = check_signed(store, trust, deep=False)
        write_page(page, receipt_paper(document, senders, signed, [signer.public]))
    return Acknowledged(document, [sender.fingerprint for sender in senders], files)

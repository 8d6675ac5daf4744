"""``moveout acknowledge``: the sender of a bundle counter-signs the receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from migrate.cli import app
from migrate.cli.common.document_files import DocumentsTo, SignedFiles, draw_left_out, read_files, write_files
from migrate.cli.common.options import CaseFile, known_location
from migrate.cli.common.papers import PageFile, receipt_paper, write_page
from migrate.cli.common.session import Session
from migrate.cli.common.signatures import check_signatures
from migrate.cli.common.signing_keys import Signers, SigningOptions, load_trust
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.custody import documents, receipt
from migrate.custody.log import custody_log
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import PublicKey
from migrate.errors import NotAllowedError


class Acknowledged(SignedFiles, frozen=True):
    """A receipt that was counter-signed. ``left_out``: the keys of strangers, whose signatures were not stored.
    ``senders``: who had signed it, as people read it; ``own_name`` is that of the key here, "" where it has none.
    """

    left_out: Sequence[PublicKey] = ()
    senders: Sequence[str] = ()
    own_name: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the receipt, who signed it, and whose signatures were left out."""
        return {**super().as_json(), "left_out": [public.fingerprint for public in self.left_out]}

    def draw(self, console: Console) -> None:
        """Print the result, the receipt's own first line first."""
        style = (
            ""
            if self.document.value.get("complete") and not self.document.value.get("findings_total")
            else "bold red"
        )
        console.print(Text(plain(self.document.about), style=style))
        you = f"you ({self.own_name})" if self.own_name else "you"
        signed = f"signed by {', '.join(self.senders)} and by {you}"
        console.print(Text(plain(f"Acknowledged: {self.document.key}, {signed}")))
        draw_left_out(console, self.left_out)
        for file in self.files:
            console.print(f"  {file}", wrap=False)
        console.print(
            "→ send these files back; the customer adds them to the copy at LOCATION: moveout custody add LOCATION"
            f" {Path(self.files[0]).name}"
        )


@verb(app, "acknowledge", examples=("acknowledge bundle receipt-0123456789abcdef.json --key host.key",))
def acknowledge_command(
    session: Session,
    location: Annotated[str, typer.Argument(metavar="LOCATION", help="The bundle that was received.")],
    file: Annotated[
        Path, typer.Argument(metavar="RECEIPT", help="The receipt, with its signatures next to it.")
    ],
    *,
    to: DocumentsTo = None,
    case: CaseFile = None,
    signing: SigningOptions,
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
    kept: Mapping[str, bytes] = signatures
    left_out: Sequence[PublicKey] = ()
    if trust is not None:
        first_named = custody_log.read(store).first_named(trust)
        kept, left_out = documents.sort_signatures(
            document,
            signatures,
            lambda public: (
                public == signer.public or documents.name_of(public, document, first_named, trust) is not None
            ),
        )
    if trust is not None and left_out and not receipt.senders_of(document, kept, signer):
        raise NotAllowedError(
            f"the receipt is signed by nobody in {trust.source} whose key counts now",
            next_step="ask the customer for the key, and add it; or for a receipt by a key that is valid",
        )
    senders = receipt.acknowledge(store, document, kept, signer)
    files = write_files(to or file.parent, document, documents.signatures_of(document, [signer]))
    if page is not None:
        signed = check_signatures(store, trust, deep=False)
        write_page(page, receipt_paper(document, senders, signed, [signer.public], trust=trust))
    return Acknowledged(
        document,
        [sender.fingerprint for sender in senders],
        files,
        left_out=left_out,
        senders=[_shown(sender, trust) for sender in senders],
        own_name=signer.public.name,
    )


def _shown(public: PublicKey, trust: Trust | None) -> str:
    name = trust.name(public) if trust else None
    return f"{name} ({public.fingerprint})" if name else public.fingerprint

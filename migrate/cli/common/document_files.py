"""Signed documents as files, on their way from one side to the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct
from msgspec.structs import replace

from migrate.cli.common.session import Session
from migrate.cli.common.terminal import Console, Text, plain
from migrate.custody import documents
from migrate.custody.documents import Document
from migrate.custody.signing import ssh_signatures
from migrate.custody.signing.keys import PublicKey
from migrate.errors import OK, DamageError, UsageError
from migrate.number_text import things
from migrate.storage.local.errors import translated
from migrate.storage.local.whole_file import make_directories, read_regular, write_whole

DocumentsTo = Annotated[
    Path | None,
    typer.Option("--to", metavar="DIR", help="Write the document and its signatures to this directory, too."),
]


class SignedFiles(Struct, frozen=True):
    """A document that was signed here, who has signed it, and the files that were written."""

    document: Document
    by: Sequence[str]
    files: Sequence[str]
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return the document, and who signed it."""
        names = {
            self.document.kind: self.document.key,
            "signed_by": list(self.by),
            "written": list(self.files),
        }
        return {**self.document.value, **names}


def show_release(session: Session, document: Document) -> None:
    """Show what a release says to whoever is about to sign it."""
    value = document.value
    holds = ", ".join(f"{hold[:16]}…" for hold in value["holds"])
    for line in (
        document.about,
        f"  at {value['location']}, root {document.root}",
        f"  for the reason {value['reason']!r}, written {value['time']}",
        f"  it ends {things(len(value['holds']), 'hold')}: {holds}",
    ):
        session.err.print(Text(plain(line)))


def draw_left_out(console: Console, strangers: Sequence[PublicKey]) -> None:
    """Print whose signatures hold, and were left out."""
    for public in strangers:
        console.print(f"Left out: a signature by {public.fingerprint}, which counts for nothing here")


def read_files(path: Path) -> tuple[Document, dict[str, bytes]]:
    """Read a document and the signatures next to it. Raises ``UsageError``, ``DamageError``."""
    try:
        document = documents.parse(read_regular(path, documents.MAX_BYTES), path.name)
        signature_files = sorted(path.parent.glob(f"{path.name}.*.sig"))
        return document, {
            signature_file.name: read_regular(signature_file, ssh_signatures.MAX_BYTES)
            for signature_file in signature_files
        }
    except OSError as exc:
        raise UsageError(
            f"{path} cannot be read: {exc.strerror}", next_step="name the file itself, such as receipt-*.json"
        ) from exc


def read_receipts(directory: Path) -> list[Document]:
    """Return the receipts in a directory, each with those whose signatures lie next to it and hold; what is none, or
    was changed, is left out.
    """
    receipts = []
    for path in sorted(directory.glob("receipt-*.json")):
        try:
            document, signatures = read_files(path)
            signers = [documents.signed_by(document, *signature) for signature in signatures.items()]
        except (DamageError, UsageError):
            continue
        receipts.append(replace(document, signers=signers))
    return receipts


def write_files(directory: Path, document: Document, signatures: Mapping[str, bytes]) -> list[str]:
    """Write a document and signatures into a directory; return the files' names. Raises like ``write_whole``."""
    with translated(directory):
        make_directories(directory)
    files = {
        directory / key.rpartition("/")[2]: data
        for key, data in {document.key: document.data, **signatures}.items()
    }
    for path, data in files.items():
        write_whole(path, data, crash_point="documents.file")
    return [str(path) for path in files]

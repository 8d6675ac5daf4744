"""``moveout erase``: a bundle is removed for good, and a certificate says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct

from migrate.cli import app
from migrate.cli.common.document_files import DocumentsTo, write_files
from migrate.cli.common.dry_run import DryRun, WouldDo
from migrate.cli.common.options import CaseFile, LocationWord, Yes, known_location
from migrate.cli.common.papers import PageFile, certificate_paper, write_page
from migrate.cli.common.session import TRANSFER_WORKERS, Session
from migrate.cli.common.signing_keys import SigningOptions, load_trust
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.cli.custody.clock import Rules, load_rules
from migrate.cli.custody.hold import open_both
from migrate.custody import documents, erase, erasure_objections
from migrate.custody.documents import Document
from migrate.custody.location_files import is_kept
from migrate.errors import OK, UsageError
from migrate.number_text import bytes_words, things
from migrate.storage.api import MultipartStore
from migrate.storage.object_lock import ObjectLock


class Certified(Struct, frozen=True):
    """An erased bundle. ``files`` are the copies of the certificate that were written outside of the location."""

    location: str
    certificate: Document
    files: Sequence[str] = ()
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return the certificate."""
        certificate = {"certificate": self.certificate.key, "written": list(self.files)}
        return {**self.certificate.value, "location": self.location, **certificate}

    def draw(self, console: Console) -> None:
        """Print what is gone, and what nobody can know."""
        value = self.certificate.value
        console.print(
            f"Erased: {self.location}: {things(value['versions'], 'version')} ({bytes_words(value['size_bytes'])}),"
            f" {things(value['delete_markers'], 'delete marker')}, {things(value['uploads'], 'unfinished upload')};"
            " a listing afterwards names nothing of the bundle"
        )
        console.print(
            f"The signed certificate is {self.certificate.key}; the custody log stays. Not verified:"
        )
        for line in value["not_verified"]:
            console.print(Text(plain(f"  - {line}")))
        for file in self.files:
            console.print(f"  {file}", wrap=False)
        if self.files:
            console.print(
                "→ send these files to the customer, who adds them to their copy at LOCATION:"
                f" moveout custody add LOCATION {Path(self.files[0]).name}"
            )


@verb(app, "erase", workers=True, examples=("erase -c case.toml --rules contract.toml --to exchange",))
def erase_command(
    session: Session,
    words: LocationWord = None,
    *,
    rules: Rules = None,
    override: Annotated[
        str,
        typer.Option(
            metavar="REASON", help="Erase although something forbids it. The reason is signed and kept."
        ),
    ] = "",
    case: CaseFile = None,
    signing: SigningOptions,
    yes: Yes = False,
    dry_run: DryRun = False,
    to: DocumentsTo = None,
    page: PageFile = None,
) -> Certified | WouldDo:
    """Remove a bundle for good, and sign a certificate of it.

    Removes every version, then lists the location again. Refused while a hold or a rule of the clock forbids it, or
    a receipt of level full is missing. If it was interrupted, repeat the command to finish.
    """
    loaded = load_case(case)
    signers = signing.load(loaded) if dry_run else signing.need(loaded)
    store, object_lock = open_both(session, known_location(words, loaded))
    workers = session.workers(default=TRANSFER_WORKERS)
    rule_sets, by, trust = load_rules(rules), [signer.public for signer in signers], load_trust(None, loaded)

    def look() -> tuple[list[str], list[str]]:
        return erasure_objections.objections(store, object_lock, by, rule_sets, trust, workers=workers)

    held, reasons = look()
    if dry_run:
        return _would_erase(store, object_lock, [*held, *reasons])
    erase.refuse_held(held)
    erase.refuse(reasons, override)
    if not yes:
        if not session.confirm(f"Erase the bundle at {store.location} for good?"):
            raise UsageError("nothing was erased")
        held, reasons = look()  # somebody may have waited long with the answer
        erase.refuse_held(held)
        erase.refuse(reasons, override)
    certificate = erase.erase(
        store,
        object_lock,
        signers[0],
        workers=workers,
        progress=session.progress,
        override=override,
        reasons=reasons,
    )
    if page is not None:
        write_page(page, certificate_paper(certificate, [signers[0].public]))
    signatures = documents.signatures_of(certificate, signers[:1])
    files = write_files(to, certificate, signatures) if to else []
    return Certified(store.location, certificate, files)


def _would_erase(store: MultipartStore, object_lock: ObjectLock, reasons: Sequence[str]) -> WouldDo:
    versions = [version for version in object_lock.versions() if not is_kept(version)]
    markers = sum(version.is_marker for version in versions)
    action = (
        f"would erase for good: {things(len(versions) - markers, 'version')}, {things(markers, 'delete marker')}"
        f" and {things(sum(1 for _ in store.uploads()), 'unfinished upload')} at {store.location};"
        " the custody log stays"
    )
    problems = [f"speaks against it: {reason}" for reason in reasons]
    return WouldDo(store.location, [action], problems)

"""``moveout custody``: who did what to a bundle, and whether that record is in order."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct

from exporters.structs import as_dict
from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.bundle.reader import require_files
from migrate.case.deadline import parse_deadline
from migrate.case.model import Endpoint
from migrate.cli import app
from migrate.cli.common.document_files import (
    SignedFiles,
    draw_left_out,
    read_files,
    show_release,
    write_files,
)
from migrate.cli.common.findings import draw_findings
from migrate.cli.common.options import (
    CaseFile,
    CaseFileHere,
    LocationWord,
    OneLocation,
    Yes,
    case_here,
    known_location,
)
from migrate.cli.common.session import Session
from migrate.cli.common.signing_keys import Signers, SigningOptions, load_trust
from migrate.cli.common.sources import load_case
from migrate.cli.common.summary_lines import lines_behind
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.custody import cross_checks, documents, hold_release, receipt
from migrate.custody.documents import Document
from migrate.custody.log import custody_log
from migrate.custody.log.custody_log import Log
from migrate.custody.log.entry import LogEntry
from migrate.custody.log.events import new_event, record
from migrate.custody.signing import party_names
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import PublicKey
from migrate.errors import OK, DamageError, NotAllowedError, UsageError
from migrate.number_text import count_words, things
from migrate.storage.api import Store
from migrate.storage.object_lock import ObjectLock
from migrate.storage.registry import open_location, open_object_lock

group = typer.Typer(help="Read and add to the record of who did what to a bundle.", no_args_is_help=True)
app.add_typer(group, name="custody")


class ShownLog(Struct, frozen=True):
    """The log at a location, and what is wrong with it. ``trust`` has the names of those who signed."""

    location: str
    log: Log
    findings: Sequence[Finding]
    notes: Sequence[str]
    trust: Trust | None
    shown: bool = True
    documents: Sequence[Document] = ()

    @property
    def exit_code(self) -> int:
        """6 with any finding."""
        return DamageError.exit_code if self.findings else OK

    def as_json(self) -> dict[str, Any]:
        """Return entries, findings and notes."""
        times = self._times()
        return {
            "location": self.location,
            "entries": [self._entry(entry, times.get(entry.line)) for entry in self.log.entries],
            "findings": [as_dict(finding) for finding in self.findings],
            "notes": list(self.notes),
            "documents": [
                {
                    "key": document.key,
                    "about": document.about,
                    "signed_by": [by.fingerprint for by in document.signers],
                }
                for document in self.documents
            ],
        }

    def _times(self) -> dict[bytes, datetime]:
        """Return as of when the entries by keys of the list show anything, by their lines."""
        return {entry.line: at for entry, at in self.log.dated(self.trust)} if self.trust else {}

    def _entry(self, entry: LogEntry, at: datetime | None) -> dict[str, Any]:
        return {
            "number": entry.number,
            "time": entry.time,
            **as_dict(entry.what),
            "name": entry.name,
            "fingerprint": entry.public.fingerprint,
            "known_as": self.trust.name(entry.public, at) if self.trust and at else None,
            "hash": entry.hash,
        }

    def draw(self, console: Console) -> None:
        """Print an entry a line."""
        times = self._times()
        for entry in self.log.entries if self.shown else ():
            at = times.get(entry.line)
            known = self.trust.label(entry.public, at) if self.trust and at else None
            name = known or party_names.shown(entry.name) or "nameless"
            claimed = "" if known else f"(says the key {entry.public.fingerprint})  "
            details = ", ".join(
                f"{detail} {_word(value)}" for detail, value in entry.what.details.items() if _is_plain(value)
            )
            before = f"{entry.number:>4}  {entry.time[:19]}Z  {entry.what.event:<12}  {name}{'  ' if known else ' '}"
            for line in lines_behind(console, plain(before), plain(claimed + details), 6):
                console.print(Text(line))
        first_named = self.log.first_named(self.trust) if self.trust else {}
        for document in self.documents:
            console.print(Text(plain(f"{document.key}: {document.about}")))
            for by in document.signers:
                known = documents.name_of(by, document, first_named, self.trust) if self.trust else None
                console.print(Text(f"  signed by {by.fingerprint} {known or ''}".rstrip()))
        for note in self.notes:
            console.print(Text(f"  {plain(note)}", style="dim"))
        if self.findings:
            console.print(f"The custody log at {self.location} is not in order")
            draw_findings(console, self.findings)
        elif not self.log.entries:
            console.print(
                f"There is no custody log at {self.location}: no key was named to the commands that worked there"
            )
        elif not self.shown:
            entries = len(self.log.entries)
            counted = "1 entry" if entries == 1 else f"{count_words(entries)} entries"
            console.print(
                f"The custody log at {self.location} is in order: {counted}, each signed and tied to the"
                " one before"
            )


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | bool | float) and value != ""


def _word(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


@verb(group, "show", title="custody show", examples=("custody show -c case.toml",))
def show_command(
    session: Session, words: LocationWord = None, case: CaseFileHere = None, signers: Signers = None
) -> ShownLog:
    """Print the custody log of a bundle."""
    loaded = load_case(case_here(case, words))
    location = known_location(words, loaded)
    store = session.store(location)
    require_files(store)
    log = custody_log.read(store)
    documents_kept, wrong, litter = _documents(store, log)
    findings, notes = [*log.findings, *wrong], [*log.notes, *litter]
    trust = load_trust(signers, loaded)
    return ShownLog(store.location, log, findings, notes, trust, documents=documents_kept)


def _documents(store: Store, log: Log) -> tuple[list[Document], list[Finding], list[str]]:
    """Return the documents at a location, what is wrong with any of them, and a note for each that nobody has signed
    and no entry names: a command that was killed, and found other circumstances when it was repeated, leaves one.
    """
    documents_kept, wrong = documents.read_all(store)
    named = {entry.what.details.get("file") for entry in log.entries}
    litter = [finding for finding in wrong if finding.what == documents.UNSIGNED and finding.key not in named]
    notes = [
        f"{finding.key} is signed by nobody, and no entry names it, so it counts for nothing: a command was killed"
        " before it signed it, or somebody has put it there"
        for finding in litter
    ]
    return documents_kept, [finding for finding in wrong if finding not in litter], notes


@verb(
    group,
    "verify",
    title="custody verify",
    examples=(
        "custody verify bundle --signers signers",
        'custody verify bundle --with "s3://copy/app?profile=other"',
    ),
)
def verify_command(
    session: Session,
    words: LocationWord = None,
    case: CaseFileHere = None,
    signers: Signers = None,
    other: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="LOCATION", help="Another copy of the log, to compare with; may be repeated."
        ),
    ] = None,
) -> ShownLog:
    """Check the custody log and all its signatures.

    Also checks its order, that no entry is missing, and that it belongs to this bundle. If somebody restored an old
    state of the whole log, only a comparison with another copy shows it (--with).
    """
    loaded = load_case(case_here(case, words))
    location = known_location(words, loaded)
    store = session.store(location)
    log = custody_log.read(store)
    trust = load_trust(signers, loaded)
    documents_kept, wrong, litter = _documents(store, log)
    receipts = [receipt_document for receipt_document in documents_kept if receipt_document.kind == "receipt"]
    contradicted, comparison_notes = cross_checks.against_receipts(log, store.location, receipts)
    findings = [
        *log.findings,
        *wrong,
        *cross_checks.against_bundle(log, store, documents_kept, _object_lock(location), trust),
        *contradicted,
    ]
    notes = [
        *log.notes,
        *cross_checks.clock_notes(log, receipts, datetime.now(UTC)),
        *cross_checks.namesake_notes(log, store.location),
        *comparison_notes,
        *litter,
    ]
    for endpoint in map(Endpoint, other or []):
        copy = open_location(endpoint.url)
        further_findings, comparison_notes = cross_checks.compare(
            log, store.location, custody_log.read(copy), copy.location
        )
        findings += further_findings
        notes += comparison_notes
    if trust is not None:
        strangers, stranger_notes = _strangers(log, documents_kept, trust)
        findings += strangers
        notes += stranger_notes
    return ShownLog(store.location, log, findings, notes, trust, shown=False, documents=documents_kept)


def _object_lock(location: Endpoint) -> ObjectLock | None:
    """Return the versions and locks of a location, None where its kind has none."""
    try:
        return open_object_lock(location.url, secrets=location.reveal())
    except UsageError:
        return None


def _strangers(log: Log, documents_kept: Sequence[Document], trust: Trust) -> tuple[list[Finding], list[str]]:
    """Return findings for entries by a key that the list had not then, for a head by a key that it never has (whoever
    may write there could have cut the log, and signed how long it is now), and for documents that no key of the list
    stands for. Where one does, the signature of a stranger is a note: anybody can sign anything. So is that of a key
    that was replaced since, on a document that no entry dates.
    """
    sentence = f"is signed by nobody in {trust.source}"
    findings = [
        Finding(f"{layout.CUSTODY_LOG} line {entry.number}", sentence, "", entry.public.fingerprint)
        for entry in log.uncounted(trust).values()
    ]
    if log.head is not None and log.head.signer not in trust.keys:
        findings.append(Finding(layout.CUSTODY_HEAD, sentence, "", log.head.signer.fingerprint))
    notes, first_named = [], log.first_named(trust)
    for document in documents_kept:
        strangers = [
            public
            for public in document.signers
            if documents.name_of(public, document, first_named, trust) is None
        ]
        names = ", ".join(public.fingerprint for public in strangers)
        receivers = receipt.receivers(document, log) or document.signers
        replaced = [public for public in strangers if public in trust.keys]
        if replaced and document.sha256 not in first_named:
            notes.append(
                f"{document.key} is signed by {trust.keys[replaced[0]][0]}, and no entry says that it was there then:"
                " it counts for nothing"
            )
        elif strangers and set(receivers) <= set(strangers):
            findings.append(Finding(document.key, sentence, "", names))
        elif strangers:
            notes.append(
                f"{document.key} has a signature by nobody in {trust.source}, which counts for nothing: {names}"
            )
    return findings, notes


class Added(Struct, frozen=True):
    """An entry or a document that was added to the custody log. ``left_out``: the keys of strangers, whose signatures
    were not stored.
    """

    location: str
    what: str
    left_out: Sequence[PublicKey] = ()
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return the location, what was added, and whose signatures were left out."""
        left_out = [public.fingerprint for public in self.left_out]
        return {"location": self.location, "added": self.what, "left_out": left_out}

    def draw(self, console: Console) -> None:
        """Print the result."""
        console.print(f"{self.location} has {self.what}")
        draw_left_out(console, self.left_out)


@verb(
    group,
    "note",
    title="custody note",
    examples=("custody note bundle notice --at 2026-11-24 --key host.key",),
)
def note_command(
    session: Session,
    location: OneLocation,
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help="The event: notice, transition, extension, request, end, … (see the rules)."
        ),
    ],
    *,
    at: Annotated[str | None, typer.Option(metavar="T", help="When it happened (default: now).")] = None,
    text: Annotated[str, typer.Option(metavar="TEXT", help="A sentence about the event.")] = "",
    case: CaseFile = None,
    signing: SigningOptions,
) -> Added:
    """Record an event that happened outside of moveout.

    For example a notice, or the end of a contract. The rules of moveout clock count from it.
    """
    if not what or any(character.isspace() or not character.isprintable() for character in what):
        raise UsageError(
            f"{what!r} is not a word that a rule could name", next_step="write it as one: transition-end"
        )
    loaded = load_case(case)
    signer = signing.need(loaded)[0]
    endpoint = known_location([location], loaded)
    store = session.store(endpoint)
    moment = (parse_deadline(at) if at else datetime.now(UTC)).astimezone(UTC)
    record(store, signer, "noted", {"what": what, "at": moment.isoformat(timespec="seconds"), "text": text})
    return Added(store.location, f"a note: {what} at {moment.isoformat(timespec='seconds')}")


@verb(
    group, "add", title="custody add", examples=("custody add bundle exchange/receipt-0123456789abcdef.json",)
)
def add_command(
    session: Session,
    location: OneLocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A document, with its signatures next to it.")],
    *,
    case: CaseFile = None,
    signers: Signers = None,
) -> Added:
    """Add a document of the other side to the bundle.

    The document and its signatures are checked, then stored next to the bundle. With a list of signers, only
    signatures by its keys are.
    """
    loaded = load_case(case)
    endpoint = known_location([location], loaded)
    store = session.store(endpoint)
    trust = load_trust(signers, loaded)
    document, signatures = read_files(file)
    if not signatures:
        raise UsageError(f"no signature lies next to {file}", next_step=f"put {file.name}.….sig next to it")
    if document.root != new_event(store, "noted").root:
        raise UsageError(f"{file} is about another bundle", next_step="check the location's URL")
    left_out: Sequence[PublicKey] = ()
    if trust is not None:
        first_named = custody_log.read(store).first_named(trust)
        signatures, left_out = documents.sort_signatures(
            document,
            signatures,
            lambda public: documents.name_of(public, document, first_named, trust) is not None,
        )
        if not signatures:
            raise NotAllowedError(
                f"{file} is signed by nobody in {trust.source} whose key counts now",
                next_step="ask the other side for the key, compare its fingerprint, and add its line to the list; where"
                " a key was replaced since, ask for a signature by the new one",
            )
    documents.copy_all(store, document, signatures)
    return Added(store.location, f"{document.key} with {things(len(signatures), 'signature')}", left_out)


class SignedRelease(SignedFiles, frozen=True):
    """A release that was signed as a file."""

    def draw(self, console: Console) -> None:
        """Print who signed, and what to do with the files."""
        console.print(f"Signed by {', '.join(self.by)}")
        for file in self.files:
            console.print(f"  {file}", wrap=False)
        console.print(
            Text(
                "→ send these files back, to be carried out: moveout hold release"
                f" {shlex.quote(str(self.document.value['location']))} {shlex.quote(Path(self.files[0]).name)}"
            )
        )


@verb(
    group,
    "sign",
    title="custody sign",
    examples=("custody sign release-0123456789abcdef.json --key counsel.key",),
)
def sign_command(
    session: Session,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A release that `hold release --to DIR` wrote.")
    ],
    *,
    case: CaseFile = None,
    signing: SigningOptions,
    yes: Yes = False,
) -> SignedRelease:
    """Sign a release of a hold, on your own machine.

    Shows what the release says, and asks. Your signature is written next to the file. It needs neither the bundle
    nor the keys of others. Repeating the command changes nothing.
    """
    signers = signing.need(load_case(case))
    document, _ = read_files(file)
    hold_release.check_form(document)
    show_release(session, document)
    by = ", ".join(signer.public.fingerprint for signer in signers)
    if not (yes or session.confirm(f"Sign this release by {by}?")):
        raise UsageError("nothing was signed")
    signatures = documents.signatures_of(document, signers)
    files = write_files(file.parent, document, signatures)
    return SignedRelease(document, [signer.public.fingerprint for signer in signers], files)

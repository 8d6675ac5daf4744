"""Whether a custody log is the whole truth: it is compared with another copy of it, with receipts, and with what lies
at the location of the bundle.
"""

from __future__ import annotations

import itertools
import operator
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime

from msgspec.structs import replace

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.bundle.reader import hash_file
from migrate.custody import bundle_hold, documents, hold_release, receipt
from migrate.custody.documents import Document
from migrate.custody.location_files import is_kept
from migrate.custody.log import custody_log
from migrate.custody.log.custody_log import Log, is_same_location
from migrate.custody.log.entry import LogEntry
from migrate.custody.signing import bundle_signatures
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import PublicKey
from migrate.custody.tree import checkpoint
from migrate.errors import DamageError, GoneError, NotAllowedError
from migrate.storage.api import CLOCK_SKEW, Store
from migrate.storage.object_lock import ObjectLock


def compare(log: Log, location: str, other: Log, other_location: str) -> tuple[list[Finding], list[str]]:
    """Compare the logs of two locations: findings where one lacks what was written at its own location and the other
    has, notes where they parted honestly, each going on at its own location.
    """
    there = f"{layout.CUSTODY_LOG} at {other_location}"
    findings = [replace(finding, key=f"{finding.key} at {other_location}") for finding in other.findings]
    pairs = zip(log.entries, other.entries, strict=False)
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0].line == pair[1].line, pairs))
    are_namesakes = location != other_location and is_same_location(location, other_location)
    is_at = operator.eq if are_namesakes else is_same_location
    if any(is_at(entry.what.location, location) for entry in other.entries[same:]):
        findings.append(_rewritten(layout.CUSTODY_LOG, log, other, same, there))
    if any(is_at(entry.what.location, other_location) for entry in log.entries[same:]):
        findings.append(_rewritten(there, other, log, same, layout.CUSTODY_LOG))
    if findings:
        return findings, []
    if not other.entries:
        return [], [f"there is no custody log at {other_location} to compare with"]
    if same == min(len(log.entries), len(other.entries)):
        return [], []
    notes = [f"the logs part after entry {same}: each location has its own from there"]
    if are_namesakes:
        notes.append("both locations have the same name, so nobody can tell from a URL whose an entry is")
    return [], notes


def _rewritten(key: str, log: Log, other: Log, same: int, other_name: str) -> Finding:
    """Return the finding that a log lacks an entry of its own location. ``same``: how many entries both have."""
    if len(log.entries) == same:
        sentence = f"has {same} entries, and {other_name} has {len(other.entries)}: it was cut short"
        return Finding(key, sentence)
    sentence = f"entry {same + 1} is another than in {other_name}: there is a second branch after {same}"
    return Finding(key, sentence, other.entries[same].hash, log.entries[same].hash)


def against_receipts(
    log: Log, location: str, receipts: Sequence[Document]
) -> tuple[list[Finding], list[str]]:
    """Compare the log of a location with what receipts say of it: findings where it has not the entry that one names,
    which was read there. A note where that was at a location of the same name, which may be another server's: also
    where the receiver stored it there, and this log has it by another hand.
    """
    findings, notes = [], []
    recorded = {entry.what.details.get("sha256") for entry in log.find("received")}
    for document in receipts:
        wrong = receipt.contradiction(document, log)
        receipt_location = str(document.value.get("location"))
        came_by_mail = document.sha256 in recorded and not receipt.is_for(document, log, location)
        is_of_namesake = came_by_mail and receipt.is_stored(document)
        if wrong and receipt_location == location and not is_of_namesake:
            log_position = document.value["custody"]
            number = log_position["entries"]
            sentence = f"is not the one that {document.key} names: its entry {number} is another or missing"
            findings.append(Finding(layout.CUSTODY_LOG, sentence, str(log_position.get("hash")), wrong))
        elif wrong and is_same_location(receipt_location, location):
            notes.append(f"{document.key} is of {receipt_location}, and names an entry that this log has not")
    return findings, notes


def check_not_put_back(store: Store) -> None:
    """Raise ``DamageError`` where a receipt that was given at a location names an entry that its log has not: somebody
    has put an older log there, and it may lack a hold, and the keys that end it.
    """
    receipts = documents.read_all(store, "receipt")[0]
    for finding in against_receipts(custody_log.read(store), store.location, receipts)[0]:
        raise DamageError(
            f"{store.location}/{finding.key}",
            expected=finding.expected,
            found=f"{finding.found}: it {finding.what}",
            next_step="somebody has put an older log there, and it may lack a hold: bring back the newer one"
            f" (moveout custody verify {shlex.quote(store.location)} --with COPY compares it with a copy)",
        )


def clock_notes(log: Log, receipts: Sequence[Document], now: datetime) -> list[str]:
    """Return a note for each entry that a clock dates after ``now``, or before the receipt that it is about. Whoever
    signs dates what he signs, and periods begin by that.
    """
    ahead = [
        f"entry {entry.number} ({entry.time}) is dated in the future: a clock was ahead"
        for entry in log.entries
        if entry.moment - now > CLOCK_SKEW
    ]
    return [*ahead, *dated_too_early(log, receipts)]


def namesake_notes(log: Log, location: str) -> list[str]:
    """Return a note for each transfer that the log says came from another location of the same name: what was held
    before counts as of there, and no URL tells whether that is so.
    """
    return [
        f"entry {entry.number} says that the bundle came from {came_from}, another location of the same name:"
        " holds and grants before it count as of there"
        for entry in log.find("transferred")
        if is_same_location(came_from := str(entry.what.details.get("from")), location)
        and came_from != entry.what.location
    ]


def dated_too_early(log: Log, receipts: Sequence[Document]) -> list[str]:
    """Return a note for each entry that is dated before the receipt that it is about: a period that begins with it is
    over too soon.
    """
    written = {document.sha256: document.moment for document in receipts}
    notes = []
    for entry in log.entries:
        moment = written.get(str(entry.what.details.get("sha256")))
        if moment is not None and moment - entry.moment > CLOCK_SKEW:
            notes.append(
                f"entry {entry.number} ({entry.time}) is dated before the receipt that it is about"
                f" ({moment.isoformat(timespec='seconds')}): one of two clocks was wrong"
            )
    return notes


def against_bundle(
    log: Log,
    store: Store,
    documents_kept: Sequence[Document],
    object_lock: ObjectLock | None,
    trust: Trust | None,
) -> list[Finding]:
    """Return findings where what the log says of seal, signatures, releases, erasure and the files under ``sig/`` is
    not what lies at the location, with these documents. ``object_lock`` shows older versions, too; ``trust`` says which
    keys have one owner.
    """
    signed = bundle_signatures.signatures(store)
    findings = [
        *_gone(log, signed, documents_kept),
        *releases(log, log.find("released"), documents_kept, trust),
        *_early_erasures(log),
    ]
    try:
        root = bundle_signatures.root_of(store)
    except GoneError:
        return [*findings, *_against_erased(log, store, object_lock, signed)]
    if (erased := _last_erased(log, store)) is not None:
        sentence = f"is there, and entry {erased.number} of the custody log says that the bundle was erased"
        findings.append(Finding(layout.TAG_MANIFEST, sentence))
    return [
        *findings,
        *_seal(log, store.location, root),
        *_signers(log, store, root, signed),
        *_named_files(log, store, root),
    ]


def _last_erased(log: Log, store: Store) -> LogEntry | None:
    """Return the entry by which the bundle at the location is gone; None where it came back, or never went."""
    erased = log.at(store.location, "erased")
    came = [*log.at(store.location, "transferred"), *log.at(store.location, "sealed")]
    if not erased or erased[-1].number < max((entry.number for entry in came), default=0):
        return None
    return erased[-1]


def _against_erased(
    log: Log, store: Store, object_lock: ObjectLock | None, signed: bundle_signatures.Signatures
) -> list[Finding]:
    begun = [*log.find("erasing"), *log.find("erased")]
    if not begun or begun[-1].number < max((entry.number for entry in log.find("sealed")), default=0):
        return [Finding(layout.TAG_MANIFEST, "is missing, and no entry says that the bundle was erased")]
    root, erased = begun[-1].what.root, _last_erased(log, store)
    return [
        *(_still_there(erased, store, object_lock) if erased is not None else ()),
        # What else lay under sig/ than documents may be gone with the bundle.
        *(finding for finding in _named_files(log, store, root) if finding.key.endswith(".json")),
        *_document_signers(log, signed, root),
    ]


def _still_there(erased: LogEntry, store: Store, object_lock: ObjectLock | None) -> Iterator[Finding]:
    """Yield what an erasure has left: files, and where ``object_lock`` may list them, older versions."""
    sentence = f"is still there, and entry {erased.number} of the custody log says that the bundle was erased"
    try:
        versions = (
            [(file.key, file.id) for file in object_lock.versions() if not is_kept(file)]
            if object_lock
            else None
        )
    except NotAllowedError:
        versions = None
    if versions is None:
        versions = [(info.key, "") for info in store.list() if not is_kept(info)]
    for key, version in versions:
        yield Finding(key, sentence, "", f"version {version}" if version else "")


def _gone(
    log: Log, signed: bundle_signatures.Signatures, documents_kept: Sequence[Document]
) -> Iterator[Finding]:
    """Yield that there is no log, not even its head, where something was signed: whoever signs writes it."""
    if log.etag is None and not log.findings and (signed.good or documents_kept):
        yield Finding(
            layout.CUSTODY_LOG,
            "is missing with its head, and signatures are here: whoever signs by moveout writes it",
        )


def releases(
    log: Log, released: Sequence[LogEntry], documents_kept: Sequence[Document], trust: Trust | None
) -> Iterator[Finding]:
    """Yield releases, of the entries ``released``, that fewer owners of keys signed than the holds want that they
    ended; of a hold that names no key those that ``trust`` does not count. A document releases once, at its location.
    """
    strangers = log.uncounted(trust) if trust else {}
    log = log.without({"transferred"}, trust)
    held_at = {entry.line: holds for entry, holds in bundle_hold.standing_before(log, {"released"})}
    unused = {document.key: document for document in documents_kept if document.kind == "release"}
    for entry in released:
        file = str(entry.what.details.get("file"))
        document = unused.pop(file, None)
        is_meant = document is not None and (
            document.root == entry.what.root
            and is_same_location(str(document.value.get("location")), entry.what.location)
        )
        fingerprints = {public.fingerprint for public in document.signers} if document and is_meant else set()
        for held in held_at.get(entry.line, ()):
            lacking = hold_release.lacking_keys(held, fingerprints, trust)
            if document and not hold_release.names_hold(document, held):
                lacking = f"it does not name the hold of entry {held.number}"
            if trust and entry.line in strangers and not hold_release.quorum(held):
                lacking = (
                    f"nobody in {trust.source} says so, and the hold of entry {held.number} names no keys"
                )
            if lacking:
                yield Finding(
                    file if document else layout.CUSTODY_LOG,
                    f"released the bundle at entry {entry.number}, though {lacking}",
                )


def _early_erasures(log: Log) -> Iterator[Finding]:
    """Yield erasures that began while a hold stood, or ended though one was placed meanwhile, and that nobody gave a
    reason for.
    """
    for entry, standing in bundle_hold.standing_before(log, {"erasing", "erased"}):
        held = [hold for hold in standing if bundle_hold.has_not_ended(hold, entry.moment)]
        if held and entry.what.event == "erased":
            begun = log.before(entry).at(entry.what.location, "erasing")[-1:]
            held = [hold for hold in held if not begun or hold.number > begun[0].number]
        if held and not entry.what.details.get("override"):
            sentence = f"says at entry {entry.number} that the bundle was erased while the hold of entry"
            yield Finding(layout.CUSTODY_LOG, f"{sentence} {held[-1].number} stood")


def _seal(log: Log, location: str, root: str) -> Iterator[Finding]:
    came = [*log.find("sealed"), *log.at(location, "transferred")]
    last = max(came, key=lambda entry: entry.number, default=log.last)
    if last is not None and last.what.root != root:
        verb = "sealed" if last.what.event == "sealed" else "is about"
        sentence = f"is not the one that entry {last.number} of the custody log {verb}"
        yield Finding(layout.TAG_MANIFEST, sentence, last.what.root, root)


def _signers(log: Log, store: Store, root: str, signed: bundle_signatures.Signatures) -> Iterator[Finding]:
    fingerprints = {public.fingerprint for public in signed.of(layout.TAG_MANIFEST)}
    in_tree = _tree_signers(store, signed.of(layout.TAG_MANIFEST))
    for entry in log.find("signed", root):
        by = str(entry.what.details.get("by"))
        if by not in fingerprints:
            yield Finding(layout.TAG_MANIFEST, f"lacks the signature by {by} that the custody log records")
        elif in_tree is not None and by not in in_tree:
            yield Finding(layout.CHECKPOINT, f"lacks the signature by {by} that the custody log records")
    yield from _document_signers(log, signed, root)


def _tree_signers(store: Store, known: Sequence[PublicKey]) -> set[str] | None:
    """Return the fingerprints of those who signed the tree's root; None where there is none to be read."""
    try:
        signed = checkpoint.decode(store.read(layout.CHECKPOINT, 0, checkpoint.MAX_BYTES + 1))
    except (GoneError, ValueError):
        return None
    return {public.fingerprint for public in signed.signers(known)}


def _document_signers(log: Log, signed: bundle_signatures.Signatures, root: str) -> Iterator[Finding]:
    """Yield documents that lack a signature which the log records: of whom a receipt is by, or who wrote the entry."""
    for entry in log.entries:
        file = entry.what.details.get("file")
        if entry.what.root != root or not isinstance(file, str) or not file.endswith(".json"):
            continue
        expected_signers = {entry.public.fingerprint} if entry.what.event != "received" else set()
        if entry.what.event in {"received", "acknowledged"}:
            expected_signers |= set(receipt.signers_in(entry))
        for by in sorted(expected_signers - {public.fingerprint for public in signed.of(file)}):
            yield Finding(
                file, f"lacks the signature by {by} that entry {entry.number} of the custody log records"
            )


def _named_files(log: Log, store: Store, root: str) -> list[Finding]:
    """Return findings where a file under ``sig/`` that the log names with its hash is not there as it was."""
    return [finding for entry in log.entries if (finding := _named_file(entry, store, root)) is not None]


def _named_file(entry: LogEntry, store: Store, root: str) -> Finding | None:
    key, expected = entry.what.details.get("file"), entry.what.details.get("sha256")
    if entry.what.root != root or not is_same_location(entry.what.location, store.location):
        return None
    if not isinstance(key, str):
        return None
    if not key.startswith(layout.SIGNATURES) or not layout.is_tag_name(key):
        return None
    try:
        digest = hash_file(store, key)
    except GoneError:
        return Finding(key, f"is missing; entry {entry.number} of the custody log names it")
    if digest != expected:
        return Finding(
            key, f"is not the one that entry {entry.number} of the custody log names", str(expected), digest
        )
    return None

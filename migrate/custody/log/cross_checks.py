"""Whether a custody log is the whole truth: it is compared with another copy of it, with receipts, and with what lies
at the location of the bundle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.bundle.reader import hash_file
from migrate.custody.handover import receipt
from migrate.custody.handover.documents import Document
from migrate.custody.log.custody_log import Log, is_same_location
from migrate.custody.log.entry import LogEntry
from migrate.custody.signing import bundle_signatures
from migrate.custody.signing.keys import PublicKey
from migrate.custody.tree import checkpoint
from migrate.errors import GoneError
from migrate.storage.api import Store


def compare(log: Log, other: Log, name: str) -> tuple[list[Finding], list[str]]:
    """Compare two copies of a log: findings where one was rewritten, notes where they parted honestly,
    each going on at its own location.
    """
    for entry, other_entry in zip(log.entries, other.entries, strict=False):
        if entry.line == other_entry.line:
            continue
        if entry.what.location != other_entry.what.location:
            return [], [f"the logs part after entry {entry.number - 1}: each location has its own from there"]
        sentence = f"entry {entry.number} is another than at {name}: there is a second branch after {entry.number - 1}"
        return [Finding(layout.CUSTODY_LOG, sentence, other_entry.hash, entry.hash)], []
    if len(other.entries) > len(log.entries):
        missing = other.entries[len(log.entries)]
        if not log.last or missing.what.location == log.last.what.location:
            sentence = f"has {len(log.entries)} entries; {name} has {len(other.entries)}: it was cut short"
            return [Finding(layout.CUSTODY_LOG, sentence)], []
    return [], []


def against_receipts(
    log: Log, location: str, receipts: Sequence[Document]
) -> tuple[list[Finding], list[str]]:
    """Compare the log of a location with what receipts say of it: findings where it has not the entry that one names,
    which was read there. A note where that was at a location of the same name, which may be another server's.
    """
    findings, notes = [], []
    for document in receipts:
        wrong = receipt.contradiction(document, log)
        receipt_location = str(document.value.get("location"))
        if wrong and receipt_location == location:
            log_position = document.value["custody"]
            number = log_position["entries"]
            sentence = f"is not the one that {document.key} names: its entry {number} is another or missing"
            findings.append(Finding(layout.CUSTODY_LOG, sentence, str(log_position.get("hash")), wrong))
        elif wrong and is_same_location(receipt_location, location):
            notes.append(f"{document.key} is of {receipt_location}, and names an entry that this log has not")
    return findings, notes


def against_bundle(log: Log, store: Store) -> list[Finding]:
    """Return findings where the log's newest seal, the signatures and the files under ``sig/`` that it names are not
    what lies at the location.
    """
    try:
        root = bundle_signatures.root_of(store)
    except GoneError:
        return _against_erased(log, store)
    return [*_seal(log, root), *_signers(log, store, root), *_named_files(log, store, root)]


def _against_erased(log: Log, store: Store) -> list[Finding]:
    erased = [*log.find("erasing"), *log.find("erased")]
    if not erased or erased[-1].number < max((entry.number for entry in log.find("sealed")), default=0):
        return [Finding(layout.TAG_MANIFEST, "is missing, and no entry says that the bundle was erased")]
    root = erased[-1].what.root
    return [
        *_named_documents(log, store, root),
        *_document_signers(log, bundle_signatures.signatures(store), root),
    ]


def _seal(log: Log, root: str) -> Iterator[Finding]:
    last = next(reversed(log.find("sealed")), None)
    if last is not None and last.what.root != root:
        sentence = f"is not the one that entry {last.number} of the custody log sealed"
        yield Finding(layout.TAG_MANIFEST, sentence, last.what.root, root)


def _signers(log: Log, store: Store, root: str) -> Iterator[Finding]:
    signed = bundle_signatures.signatures(store)
    fingerprints = {public.fingerprint for public in signed.of(layout.TAG_MANIFEST)}
    in_tree = _tree_signers(store, signed.of(layout.TAG_MANIFEST))
    for entry in log.find("signed", root):
        by = str(entry.what.details.get("by"))
        if by not in fingerprints:
            yield Finding(layout.TAG_MANIFEST, f"lacks the signature by {by} that the custody log knows of")
        elif in_tree is not None and by not in in_tree:
            yield Finding(layout.CHECKPOINT, f"lacks the signature by {by} that the custody log knows of")
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
            expected_signers |= set(str(entry.what.details.get("by")).split(", "))
        for by in sorted(expected_signers - {public.fingerprint for public in signed.of(file)}):
            yield Finding(
                file, f"lacks the signature by {by} that entry {entry.number} of the custody log knows of"
            )


def _named_files(log: Log, store: Store, root: str) -> Iterator[Finding]:
    for entry in log.entries:
        finding = _named_file(entry, store, root)
        if finding is not None:
            yield finding


def _named_documents(log: Log, store: Store, root: str) -> Iterator[Finding]:
    """Yield the same of the documents alone: what else lay under ``sig/`` may be gone with the bundle."""
    for finding in _named_files(log, store, root):
        if finding.key.endswith(".json"):
            yield finding


def _named_file(entry: LogEntry, store: Store, root: str) -> Finding | None:
    """Return a finding where a file under ``sig/`` that an entry names with its hash is not there as it was."""
    key, expected = entry.what.details.get("file"), entry.what.details.get("sha256")
    if entry.what.root != root or entry.what.location != store.location or not isinstance(key, str):
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

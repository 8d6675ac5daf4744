"""Handover: the customer signs what he received, the provider signs that he has seen that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from exporters.structs import as_dict
from migrate.bundle import layout, reconciliation
from migrate.bundle.findings import Finding
from migrate.custody import documents
from migrate.custody.documents import Document
from migrate.custody.log import custody_log
from migrate.custody.log.entry import CustodyEvent, LogEntry
from migrate.custody.log.events import need_sealed, new_event
from migrate.custody.signing import bundle_signatures
from migrate.custody.signing.bundle_signatures import root_of
from migrate.custody.signing.keys import PublicKey, Signer
from migrate.errors import DamageError, GoneError, UsageError
from migrate.number_text import exact_bytes_words, things
from migrate.storage.api import CLOCK_SKEW, Store, exists

_SHOWN = 100
FULL = "full"
"""The level of a verification that reads every byte: a receipt of another one shows no copy of the bytes."""
_MEMBERS = {
    "about", "kind", "version", "time", "bundle", "root", "location", "stored", "complete", "gaps", "level", "files",
    "size_bytes", "findings_total", "findings", "custody",
}  # fmt: skip
_NEVER = datetime.min.replace(tzinfo=UTC)


class Checked(Struct, frozen=True):
    """What was verified before a receipt is signed."""

    level: str
    files: int
    size_bytes: int
    findings: Sequence[Finding]


def receive(store: Store, checked: Checked, signers: Sequence[Signer]) -> Document:
    """Sign the receipt for the bundle at a location, next to it and in its log. The same again finishes what a run
    before has begun, and then changes nothing.

    The log has it before it is signed: a receipt that is signed and not in the log of the copy that it is for would be
    another copy's as soon as somebody acknowledges it. Raises ``NotAllowedError`` where one may only read.
    """
    by = [signer.public for signer in signers]
    _sign_recorded(store, signers)
    document = write(store, checked, by)
    documents.keep(store, document, [])
    custody_log.append(
        store, signers[0], custody_log.once(happened(document, "received", store.location, by))
    )
    documents.keep(store, document, signers)
    return document


def _sign_recorded(store: Store, signers: Sequence[Signer]) -> None:
    """Sign the receipts that a run before has written into the log by the first key of ``signers``, and had not signed
    when it died.
    """
    log, root = custody_log.read(store), root_of(store)
    for entry in log.at(store.location, "received"):
        key, sha256 = str(entry.what.details.get("file")), entry.what.details.get("sha256")
        if entry.public != signers[0].public or entry.what.root != root:
            continue
        try:
            document = documents.read(store, key)
        except (DamageError, GoneError):
            continue
        if document.sha256 == sha256:
            recorded = signers_in(entry)
            unsigned = [
                signer
                for signer in signers
                if signer.public.fingerprint in recorded
                and not exists(store, bundle_signatures.signature_key(key, signer.public))
            ]
            documents.keep(store, document, unsigned)


def write(
    store: Store,
    checked: Checked,
    by: Sequence[PublicKey] = (),
    other_receipts: Sequence[Document] = (),
    *,
    stored: bool = True,
) -> Document:
    """Return the receipt for the bundle at a location. Its first line says whether all was well. ``stored``: it is to
    lie next to the bundle; who may only read there cannot put it there.

    It is the last one that a key of ``by`` has signed, where that says the same, at the location or in
    ``other_receipts`` (the receiver's own files, where it may lack its signature yet). Otherwise it is a new one,
    unsigned: what was damaged meanwhile, or was mended, is dated anew.
    """
    info = need_sealed(store)
    gaps = 0
    if not info.complete:
        gaps = sum(
            count for entry in reconciliation.decode(store.read(layout.RECONCILIATION))
            for name, count in entry.dispositions.items() if name != "exported"
        )  # fmt: skip
    log = custody_log.read(store)
    value = {
        "bundle": info.id,
        "root": root_of(store),
        "location": store.location,
        "stored": stored,
        "complete": info.complete,
        "gaps": gaps,
        "level": checked.level,
        "files": checked.files,
        "size_bytes": checked.size_bytes,
        "findings_total": len(checked.findings),
        "findings": [as_dict(finding) for finding in checked.findings[:_SHOWN]],
        "custody": {"entries": len(log.entries), "hash": log.last.hash if log.last else ""},
    }
    new_receipt = documents.make("receipt", _about(value), value)
    signed = [
        document for document in documents.read_all(store, "receipt")[0] if set(by) & set(document.signers)
    ]
    own_receipts = [
        document for document in other_receipts if not document.signers or set(by) & set(document.signers)
    ]
    former = [
        document
        for document in (*signed, *own_receipts)
        if document.root == new_receipt.root and document.value.get("location") == store.location
    ]
    newest = max(map(order, former), default=None)
    same_receipts = [
        document for document in former if order(document) == newest and _is_same(document, new_receipt, log)
    ]
    return same_receipts[0] if same_receipts else documents.resumed(store, new_receipt)


def time_of(document: Document) -> datetime:
    """Return when a receipt was made, by its own time; the earliest time of all where it does not say so."""
    return document.moment or _NEVER


def order(document: Document) -> tuple[int, datetime]:
    """Order the receipts of one location: by how many entries the log had there, which no clock sets back, then by
    time.
    """
    log_position = document.value.get("custody")
    length = log_position.get("entries") if isinstance(log_position, dict) else 0
    return length if type(length) is int else 0, time_of(document)


def is_full(document: Document) -> bool:
    """Tell whether every byte was read before the receipt was signed."""
    return document.value.get("level") == FULL


def names_damage(document: Document) -> bool:
    """Tell whether something was wrong with what was received."""
    return document.value.get("findings_total") != 0


def is_for(document: Document, log: custody_log.Log, location: str) -> bool:
    """Tell whether a receipt is for what lies at the location of this log, where the receiver wrote it into the log
    himself. One that came by mail is in the log by somebody else's hand, whatever URL it names: two machines may have
    the same, and one location has several. A receipt that does not say whether it was stored goes by its URL.
    """
    is_written_here = any(
        entry.public.fingerprint in signers_in(entry) and log.is_of_here(entry, location)
        for entry in _received(document, log)
    )
    receipt_location = str(document.value.get("location"))
    is_unclear = "stored" not in document.value
    return is_written_here or (is_unclear and custody_log.is_same_location(receipt_location, location))


def receivers(document: Document, log: custody_log.Log) -> list[PublicKey]:
    """Return those signers of a receipt who have received the bundle, by the log; none where it does not say so."""
    by = {key for entry in _received(document, log) for key in signers_in(entry)}
    return [public for public in document.signers if public.fingerprint in by]


def _received(document: Document, log: custody_log.Log) -> list[LogEntry]:
    """Return the entries that a receipt was written."""
    received = log.find("received", document.root)
    return [entry for entry in received if entry.what.details.get("sha256") == document.sha256]


def is_stored(document: Document) -> bool:
    """Tell whether a receipt was to lie next to the bundle. Who may only read where it was made has no copy in hand,
    and may have read somebody else's by another URL.
    """
    return document.value.get("stored") is not False


def _is_same(document: Document, new_receipt: Document, log: custody_log.Log) -> bool:
    """Tell whether a receipt says what ``new_receipt`` says, save for its time and how far the log had come by then."""
    return document.says(new_receipt, besides=("custody",)) and not contradiction(document, log)


def _about(value: Mapping[str, Any]) -> str:
    """Return the first line that the members of a receipt make."""
    bundle, findings, complete = value["bundle"], value["findings_total"], value["complete"]
    counts = (
        f"{things(value['files'], 'file')}, {exact_bytes_words(value['size_bytes'])},"
        f" checked at level {value['level']}"
    )
    title = _title(findings, complete=complete)
    if findings:
        return f"{title}: {bundle}, {things(findings, 'finding')}; {counts}"
    if not complete:
        return f"{title}: {bundle}, {things(value['gaps'], 'item')} missing by its own account; {counts}"
    return f"{title} {bundle}, complete and whole: {counts}"


def happened(document: Document, event: str, location: str, signers: Sequence[PublicKey]) -> CustodyEvent:
    """Return what the custody log says of a receipt that was written or acknowledged."""
    details = {
        **document.named,
        "by": ", ".join(signer.fingerprint for signer in signers),
        "complete": bool(document.value.get("complete")),
        "findings": document.value.get("findings_total"),
    }
    return CustodyEvent(event, str(document.value.get("bundle")), document.root, location, details)


def signers_in(entry: LogEntry) -> list[str]:
    """Return the fingerprints of the signers of a receipt that an entry of ``happened`` names."""
    return str(entry.what.details.get("by")).split(", ")


def senders_of(document: Document, signatures: Mapping[str, bytes], signer: Signer) -> list[PublicKey]:
    """Return who has signed a document, but for oneself, whose signature may lie there from before. Raises
    ``DamageError`` where a signature does not hold.
    """
    by = (documents.signed_by(document, name, armored) for name, armored in signatures.items())
    return [public for public in by if public != signer.public]


def acknowledge(
    store: Store, document: Document, signatures: Mapping[str, bytes], signer: Signer
) -> list[PublicKey]:
    """Check a receipt that came from the customer, keep it next to the bundle, counter-sign it, and write both into the
    log; return who had signed it. The same again changes nothing.

    Raises ``DamageError`` (a signature does not hold), ``UsageError`` (no receipt of this bundle, or unsigned).
    """
    if document.kind != "receipt":
        raise UsageError(
            f"{document.key} is not a receipt", next_step="name the file that `moveout receive` wrote"
        )
    bundle, root = (event := new_event(store, "acknowledged")).bundle, event.root
    if document.root != root:
        raise UsageError(
            f"the receipt is for the root {document.root}; the bundle at {store.location} has {root}",
            next_step="check the location, and ask the customer what was received",
        )
    _check_form(document)
    if document.value.get("bundle") != bundle:
        raise UsageError(
            f"the receipt names the bundle {document.value.get('bundle')}, and the root of {bundle}",
            next_step="it was not written by moveout; ask for another",
        )
    if time_of(document) - datetime.now(UTC) > CLOCK_SKEW:
        raise UsageError(
            f"the receipt is dated in the future, {document.value.get('time')}: a clock is wrong, here or there",
            next_step="set the clock; where the customer's was ahead, ask for another receipt: of several the newest"
            " counts",
        )
    by = senders_of(document, signatures, signer)
    if not by:
        raise UsageError("only you have signed the receipt", next_step="ask for the .sig file next to it")
    documents.copy_all(store, document, signatures)
    documents.keep(store, document, [signer])

    def choose(log: custody_log.Log) -> list[CustodyEvent]:
        events = [
            happened(document, "received", store.location, by),
            happened(document, "acknowledged", store.location, by),
        ]
        return [
            event for event in events
            if not any(entry.what.details.get("sha256") == document.sha256 for entry in log.find(event.event, root))
        ]  # fmt: skip

    custody_log.append(store, signer, choose)
    return by


def _check_form(document: Document) -> None:
    """Raise ``UsageError`` where a receipt is not as ``write`` makes it, or its first line says something else than its
    numbers: whoever counter-signs it stands for both.
    """
    value = document.value
    numbers = (value.get(name) for name in ("gaps", "files", "size_bytes", "findings_total"))
    log_position = value.get("custody")
    is_formed = (
        {*value, "stored"} == _MEMBERS
        and isinstance(log_position, dict)
        and set(log_position) == {"entries", "hash"}
        and isinstance(value.get("complete"), bool)
        and isinstance(value.get("stored", True), bool)
        and all(type(number) is int and number >= 0 for number in numbers)
        and isinstance(value.get("findings"), list)
        and len(value["findings"]) == min(value["findings_total"], _SHOWN)
        and all(isinstance(value.get(name), str) for name in ("about", "time", "location", "level"))
        and value["level"].isalpha()
        and document.moment is not None
        and document.about == _about(value)
    )
    if not is_formed:
        raise UsageError(
            f"{document.key} says one thing in its first line and another below, or is not a receipt of moveout's",
            next_step="do not sign it; ask the customer for the file that moveout receive wrote",
        )


def _title(findings_total: int, *, complete: bool) -> str:
    if findings_total:
        return "RECEIPT FOR A DAMAGED BUNDLE"
    return "Receipt for the bundle" if complete else "RECEIPT FOR AN INCOMPLETE BUNDLE"


def contradiction(document: Document, log: custody_log.Log) -> str:
    """Return what the log has instead of the entry that a receipt names, "" where it has that."""
    log_position = document.value.get("custody")
    if not isinstance(log_position, dict):
        return ""
    number = log_position.get("entries")
    if not isinstance(number, int) or number < 1:
        return ""
    hash_found = log.entries[number - 1].hash if number <= len(log.entries) else "no such entry"
    return "" if hash_found == log_position.get("hash") else hash_found

"""Signed statements next to a bundle: receipts, releases, audits, certificates of erasure.

A document is ``sig/<kind>-<id>.json``: JSON for people and machines, whose id is the first 16 hex digits of its
SHA-256; whoever stands for it has a signature next to it (see ``signing``). Several may sign: a receipt that was
acknowledged has two.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from migrate.bundle import canonical_json, layout
from migrate.bundle.findings import Finding
from migrate.custody.log import custody_log
from migrate.custody.log.entry import moment_of
from migrate.custody.signing import bundle_signatures, ssh_signatures
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.keys import PublicKey, Signer
from migrate.errors import DamageError, GoneError
from migrate.number_text import moment_words
from migrate.storage.api import Store

VERSION = 1
KINDS = ("receipt", "release", "audit", "erasure")
MAX_BYTES = 2**20
UNSIGNED = "is not signed by anybody"
_NAME = re.compile(r"(sig/)?(?P<kind>[a-z]+)-(?P<id>[0-9a-f]{16})\.json")


class Document(Struct, frozen=True):
    """A document as it was read. ``about`` is its first line, for people; ``signers`` are those who signed it."""

    key: str
    kind: str
    value: Mapping[str, Any]
    data: bytes
    signers: Sequence[PublicKey] = ()

    @property
    def about(self) -> str:
        """What it says in one sentence."""
        return str(self.value.get("about", ""))

    @property
    def sha256(self) -> str:
        """The SHA-256 of the file, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def named(self) -> dict[str, Any]:
        """How an entry of the custody log names it."""
        return {"file": self.key, "sha256": self.sha256}

    @property
    def moment(self) -> datetime | None:
        """When it was made, by its own time; None where it does not say so."""
        return moment_of(self.value.get("time"))

    @property
    def shown_moment(self) -> str:
        """The moment for people; what stands there instead, where that is no moment."""
        return moment_words(self.moment) if self.moment else str(self.value.get("time"))

    @property
    def root(self) -> str:
        """The bundle's root that it names."""
        return str(self.value.get("root", ""))

    def says(self, other: Document, *, besides: Sequence[str] = ()) -> bool:
        """Tell whether it says what another document says, save for its time and the members ``besides``."""
        free = dict.fromkeys(("time", *besides))
        return {**self.value, **free} == {**other.value, **free}


def signed_at(document: Document, first_named: Mapping[str, datetime]) -> datetime | None:
    """Return as of when the keys that signed a document count: when the log first named it (``Log.first_named``), and
    not before its own time. None, for now, where no entry shows that it was there.

    Whoever signs may write any time: a key that was stolen, and is not valid any more, signs a year back. So the log is
    the proof of existence that ETSI EN 319 102-1 asks for, and without it a signature is judged as of now.
    """
    recorded = first_named.get(document.sha256)
    return max(recorded, document.moment or recorded) if recorded else None


def name_of(
    public: PublicKey, document: Document, first_named: Mapping[str, datetime], trust: Trust
) -> str | None:
    """Return what a list calls a signer of a document, as of ``signed_at``; None where the signature does not count."""
    return trust.name(public, signed_at(document, first_named))


def make(kind: str, about: str, value: Mapping[str, Any], *, now: datetime | None = None) -> Document:
    """Return a document that nobody signed yet. ``value`` are plain JSON values, ``bundle`` and ``root`` among them."""
    assert kind in KINDS
    time = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    content = {"about": about, "kind": kind, "version": VERSION, "time": time, **value}
    data = canonical_json.encode_pretty(content)
    key = f"{layout.SIGNATURES}{kind}-{_id(data)}.json"
    return Document(key, kind, canonical_json.decode(data, key), data)


def resumed(store: Store, document: Document) -> Document:
    """Return the unsigned document of a killed run if it says the same as ``document``; else ``document``. Its time
    must lie between the last entry of the log and now, or somebody else may have put it there.
    """
    last = custody_log.read(store).last
    earliest = last.moment.replace(microsecond=0) if last else None
    keys = [info.key for info in store.list(f"{layout.SIGNATURES}{document.kind}-")]
    for key in keys:
        if _NAME.fullmatch(key) is None or any(other_key.startswith(f"{key}.") for other_key in keys):
            continue
        try:
            earlier = read(store, key)
        except DamageError:
            continue
        begun, now = earlier.moment, document.moment
        if not earlier.says(document) or not begun or not now:
            continue
        if (earliest is None or earliest <= begun) and begun <= now:
            return earlier
    return document


def keep(store: Store, document: Document, signers: Sequence[Signer]) -> None:
    """Write the document and the signatures of ``signers`` next to it, as far as they are not there."""
    _create(store, document.key, document.data)
    for signer in signers:
        bundle_signatures.sign_file(store, document.key, signer)


def parse(data: bytes, name: str) -> Document:
    """Read a document from its bytes; ``name`` is what its file is called. Raises ``DamageError``."""
    if len(data) > MAX_BYTES:
        raise DamageError(name, expected=f"at most {MAX_BYTES:,} bytes", found="more")
    match = _NAME.fullmatch(name if name.startswith(layout.SIGNATURES) else name.rpartition("/")[2])
    if match is None or match["kind"] not in KINDS:
        raise DamageError(name, expected=f"one of {', '.join(KINDS)}, by its name", found="another file")
    if _id(data) != match["id"]:
        raise DamageError(name, expected=f"SHA-256 {match['id']}…", found=f"{_id(data)}…: it was changed")
    value = canonical_json.decode(data, name, version=VERSION)
    if not _is_canonical(value, data):
        found = "another form, which two readers may read as two things"
        raise DamageError(name, expected="JSON as moveout writes it", found=found)
    if value.get("kind") != match["kind"]:
        raise DamageError(name, expected=match["kind"], found=repr(value.get("kind")))
    return Document(f"{layout.SIGNATURES}{match['kind']}-{match['id']}.json", match["kind"], value, data)


def read(store: Store, key: str) -> Document:
    """Read a document at a location, without its signatures. Raises ``DamageError``, ``GoneError``."""
    return parse(store.read(key, 0, MAX_BYTES + 1), key)


def signatures_of(document: Document, signers: Iterable[Signer]) -> dict[str, bytes]:
    """Return signatures of a document that need not lie at a location, by their names."""
    return {
        bundle_signatures.signature_key(document.key, signer.public): ssh_signatures.sign(
            signer, ssh_signatures.DOCUMENT, [document.data]
        )
        for signer in signers
    }


def signed_by(document: Document, name: str, armored: bytes) -> PublicKey:
    """Return whose signature of the document this is, of a file of that name. Raises ``DamageError``."""
    expected, next_step = (
        f"a signature of {document.key}",
        "ask who signed for both files, and save them as they came",
    )
    try:
        signature = ssh_signatures.parse(armored)
    except ValueError as exc:
        raise DamageError(name, expected=expected, found=str(exc), next_step=next_step) from exc
    if not signature.holds([document.data], ssh_signatures.DOCUMENT):
        raise DamageError(name, expected=expected, found="one of something else", next_step=next_step)
    return signature.public


def sort_signatures(
    document: Document, signatures: Mapping[str, bytes], counts: Callable[[PublicKey], bool]
) -> tuple[dict[str, bytes], list[PublicKey]]:
    """Return those ``signatures`` (their bytes, by file) of a document whose keys count, and the other keys: a
    signature that holds may be a stranger's, and is not kept. Raises ``DamageError`` where one does not hold.
    """
    signers = {name: signed_by(document, name, armored) for name, armored in signatures.items()}
    kept = {name: signatures[name] for name, public in signers.items() if counts(public)}
    return kept, [public for name, public in signers.items() if name not in kept]


def read_all(store: Store, kind: str = "") -> tuple[list[Document], list[Finding]]:
    """Return the documents at a location, of one kind where that is given, and what is wrong with any of them."""
    keys = [info.key for info in store.list(f"{layout.SIGNATURES}{kind}-" if kind else layout.SIGNATURES)]
    signed = bundle_signatures.signatures(store, keys)
    documents: list[Document] = []
    findings: list[Finding] = list(signed.findings)
    for key in keys:
        match = _NAME.fullmatch(key)
        if match is None or match["kind"] not in KINDS:
            continue
        try:
            document = read(store, key)
        except DamageError as exc:
            findings.append(Finding(key, "is not as it was written", exc.expected, exc.found))
            continue
        signers = signed.of(key)
        if not signers:
            findings.append(Finding(key, UNSIGNED))
        else:
            documents.append(Document(document.key, document.kind, document.value, document.data, signers))
    return documents, findings


def copy_all(store: Store, document: Document, signatures: Mapping[str, bytes]) -> None:
    """Keep a document that came from elsewhere, with its signatures (their bytes, by file); each is checked first.

    Raises ``DamageError``.
    """
    signers = [signed_by(document, name, armored) for name, armored in signatures.items()]
    _create(store, document.key, document.data)
    for public, armored in zip(signers, signatures.values(), strict=True):
        _create(store, bundle_signatures.signature_key(document.key, public), armored)


def _create(store: Store, key: str, data: bytes) -> None:
    try:
        if store.read(key) == data:
            return
    except GoneError:
        pass
    store.put(key, data)


def _is_canonical(value: Mapping[str, Any], data: bytes) -> bool:
    """Tell whether a document has the bytes that its value has: no member twice, no other encoding."""
    try:
        return canonical_json.encode_pretty(value) == data
    except ValueError:
        return False


def _id(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]

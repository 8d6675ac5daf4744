"""Signatures next to a bundle: who put a name to the tag manifest, and to the documents under ``sig/``.

A signature of ``tagmanifest-sha256.txt`` or of ``sig/<document>`` is ``sig/<file's name>.<key's id>.sig``, armored as
``ssh-keygen -Y sign`` writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader, hash_file
from migrate.bundle.tag_files import chunks
from migrate.custody.signing import ssh_signatures
from migrate.custody.signing.keys import PublicKey, Signer
from migrate.errors import GoneError
from migrate.storage.api import Store

_NAME = re.compile(r"sig/(?P<file>[A-Za-z0-9._-]+)\.(?P<id>[0-9a-f]{16})\.sig")


class SignatureFile(Struct, frozen=True):
    """A signature that holds. ``file`` is the key of what was signed."""

    file: str
    key: str
    public: PublicKey


class Signatures(Struct, frozen=True):
    """All signatures at a location, and what is wrong with the others."""

    good: Sequence[SignatureFile]
    findings: Sequence[Finding]

    def of(self, file: str) -> list[PublicKey]:
        """Return the keys that signed a file."""
        return [signed.public for signed in self.good if signed.file == file]


def root_of(store: Store) -> str:
    """Return the bundle's root: the SHA-256 of its tag manifest. Raises ``GoneError``."""
    return hash_file(store, layout.TAG_MANIFEST)


def sign_bundle(store: Store, signer: Signer) -> SignatureFile:
    """Sign the bundle's tag manifest; the tag files must be what it says. Nothing happens where this key has signed.

    Raises like ``BundleReader``.
    """
    BundleReader(store)
    return sign_file(store, layout.TAG_MANIFEST, signer)


def sign_file(store: Store, file: str, signer: Signer) -> SignatureFile:
    """Sign the tag manifest or a document under ``sig/``."""
    key = signature_key(file, signer.public)
    signature = ssh_signatures.sign(signer, namespace_of(file), chunks(store, file))
    try:
        existing = store.read(key)
    except GoneError:
        existing = b""
    if existing != signature:  # Ed25519 is deterministic: the same key and file make the same bytes
        store.put(key, signature)
    return SignatureFile(file, key, signer.public)


def signature_key(file: str, public: PublicKey) -> str:
    """Return where a key's signature of a file lies."""
    return f"{layout.SIGNATURES}{file.rpartition('/')[2]}.{public.id}.sig"


def namespace_of(file: str) -> str:
    """Return the purpose for which a file is signed."""
    return ssh_signatures.BUNDLE if file == layout.TAG_MANIFEST else ssh_signatures.DOCUMENT


def signatures(store: Store, keys: Iterable[str] | None = None) -> Signatures:
    """Check every signature among files of the location, all of them where none are named. Nothing is raised for what
    is wrong with one: it is a finding.
    """
    good: list[SignatureFile] = []
    findings: list[Finding] = []
    if keys is None:
        keys = [info.key for info in store.list(layout.SIGNATURES)]
    for key in (key for key in keys if key.endswith(".sig")):
        checked = _check(store, key)
        if isinstance(checked, Finding):
            findings.append(checked)
        else:
            good.append(checked)
    return Signatures(good, findings)


def _check(store: Store, key: str) -> SignatureFile | Finding:
    match = _NAME.fullmatch(key)
    if match is None:
        return Finding(key, "is named like no signature of a bundle")
    file = match["file"] if match["file"] == layout.TAG_MANIFEST else layout.SIGNATURES + match["file"]
    try:
        signature = ssh_signatures.parse(store.read(key, 0, ssh_signatures.MAX_BYTES + 1))
    except ValueError as exc:
        return Finding(key, f"cannot be read as a signature: {exc}")
    if signature.public.id != match["id"]:
        return Finding(key, "is by another key than its name says", match["id"], signature.public.id)
    try:
        holds = signature.holds(chunks(store, file), namespace_of(file))
    except GoneError:
        return Finding(key, f"signs {file}, which is missing")
    if not holds:
        return Finding(key, f"does not hold for {file}", f"a signature by {signature.public.fingerprint}")
    return SignatureFile(file, key, signature.public)

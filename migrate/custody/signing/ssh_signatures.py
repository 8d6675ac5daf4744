"""Signatures of files as OpenSSH makes them (``ssh-keygen -Y sign``), so that ``ssh-keygen -Y verify`` checks ours.

The format is OpenSSH's PROTOCOL.sshsig, version 1: the message is hashed, and the hash is signed together with a
namespace, so that a signature for one purpose cannot serve another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from migrate.custody.signing import keys, ssh_encoding
from migrate.custody.signing.keys import PublicKey, Signer

BUNDLE = "moveout-bundle"
"""The namespace of signatures over a tag manifest."""
DOCUMENT = "moveout-document"
"""The namespace of signatures of receipts, certificates and the like."""
ENTRY = "moveout-custody"
"""The namespace of signatures of lines of the custody log."""

NAMESPACES = (BUNDLE, DOCUMENT, ENTRY)

_MAGIC = b"SSHSIG"
_BEGIN, _END = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
_WIDTH = 70
_HASHES = {b"sha512": hashlib.sha512, b"sha256": hashlib.sha256}
MAX_BYTES = 4096


class Signature(Struct, frozen=True):
    """A signature as it was read; nothing is checked yet."""

    public: PublicKey
    namespace: str
    hash_name: Literal["sha512", "sha256"]
    raw: bytes

    def holds(self, message: Iterable[bytes], namespace: str) -> bool:
        """Tell whether it is the key's over ``message`` (in pieces), for this purpose."""
        if self.namespace != namespace:
            return False
        digest = _HASHES[self.hash_name.encode()]()
        for piece in message:
            digest.update(piece)
        return self.public.checks(self.raw, _signed(namespace, self.hash_name, digest.digest()))


def sign(signer: Signer, namespace: str, message: Iterable[bytes]) -> bytes:
    """Return the armored signature of ``message`` (in pieces)."""
    digest = hashlib.sha512()
    for piece in message:
        digest.update(piece)
    raw = signer.sign(_signed(namespace, "sha512", digest.digest()))
    signature = ssh_encoding.string(keys.TYPE.encode()) + ssh_encoding.string(raw)
    blob = _MAGIC + ssh_encoding.number(1) + b"".join(
        map(ssh_encoding.string, (signer.public.blob, namespace.encode(), b"", b"sha512", signature))
    )  # fmt: skip
    return armor(blob)


def parse(armored: bytes) -> Signature:
    """Read an armored signature. Raises ``ValueError`` that says what is wrong with it."""
    if len(armored) > MAX_BYTES:
        raise ValueError("too long for a signature")
    if not armored.startswith(_BEGIN) or not armored.endswith(_END):
        raise ValueError("no SSH signature")
    inner = armored[len(_BEGIN) : -len(_END)]
    try:
        blob = base64.b64decode(inner.replace(b"\n", b""), validate=True)
    except binascii.Error as exc:
        raise ValueError("no base64") from exc
    if armor(blob) != armored:
        raise ValueError("no SSH signature as ssh-keygen writes it")
    if not blob.startswith(_MAGIC + ssh_encoding.number(1)):
        raise ValueError("no SSH signature of version 1")
    fields, rest = [], blob[len(_MAGIC) + 4 :]
    for _ in range(5):
        text, rest = ssh_encoding.take_string(rest)
        fields.append(text)
    public, namespace, reserved, hash_name, signature = fields
    if rest or reserved or hash_name not in _HASHES:
        raise ValueError("no SSH signature as ssh-keygen writes it")
    kind, rest = ssh_encoding.take_string(signature)
    raw, rest = ssh_encoding.take_string(rest)
    if kind != keys.TYPE.encode() or rest:
        raise ValueError("no Ed25519 signature")
    name: Literal["sha512", "sha256"] = "sha512" if hash_name == b"sha512" else "sha256"
    return Signature(keys.from_blob(public), namespace.decode("ascii", "replace"), name, raw)


def armor(blob: bytes) -> bytes:
    """Return a signature's bytes as text, as ``ssh-keygen`` writes them."""
    text = base64.b64encode(blob)
    lines = (text[start : start + _WIDTH] + b"\n" for start in range(0, len(text), _WIDTH))
    return _BEGIN + b"".join(lines) + _END


def _signed(namespace: str, hash_name: str, digest: bytes) -> bytes:
    return _MAGIC + b"".join(map(ssh_encoding.string, (namespace.encode(), b"", hash_name.encode(), digest)))

"""That the tag manifest was there at some moment, by the word of a timestamp authority (RFC 3161).

The answer is kept as it came, ``sig/tagmanifest-sha256.txt.<time>.tsr``: ``openssl ts -verify -data … -in … -CAfile …``
checks it, against an authority that one trusts. Here its own signature is checked, and what it is about; whether the
certificate in it is to be trusted is for whoever has the authority's root.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.custody import der
from migrate.custody.der import Node
from migrate.custody.signing import root_of
from migrate.errors import MoveoutError, NotAllowedError, UnreachableError, UsageError
from migrate.store.base import Store

_SHA256 = der.oid("2.16.840.1.101.3.4.2.1")
_TST_INFO, _SIGNED_DATA = der.oid("1.2.840.113549.1.9.16.1.4"), der.oid("1.2.840.113549.1.7.2")
_DIGEST, _KIND = der.oid("1.2.840.113549.1.9.4"), der.oid("1.2.840.113549.1.9.3")
_HASHES: dict[bytes, hashes.HashAlgorithm] = {
    _SHA256: hashes.SHA256(),
    der.oid("2.16.840.1.101.3.4.2.2"): hashes.SHA384(),
    der.oid("2.16.840.1.101.3.4.2.3"): hashes.SHA512(),
}
_SECONDS = 30.0
MAX_BYTES = 65_536
_NAME = re.compile(r"sig/tagmanifest-sha256\.txt\.[0-9tz-]+\.tsr")


@dataclass(frozen=True, slots=True)
class Stamp:
    """A token whose own signature holds. ``hash`` is the SHA-256 that it is about, ``authority`` the subject of the
    certificate that signed it; ``nonce`` what the request had asked to be repeated.
    """

    hash: bytes
    moment: datetime
    authority: str
    nonce: int | None


def request(digest: bytes, nonce: int) -> bytes:
    """Return a TimeStampReq for a SHA-256, which asks for the certificate too."""
    algorithm = der.write(der.SEQUENCE, _SHA256, b"\x05\x00")
    imprint = der.write(der.SEQUENCE, algorithm, der.write(der.OCTETS, digest))
    return der.write(
        der.SEQUENCE, der.integer(1), imprint, der.integer(nonce), der.write(der.BOOLEAN, b"\xff")
    )


def stamp(store: Store, url: str) -> tuple[str, Stamp]:
    """Ask the authority for a token over the tag manifest and keep it; return its key and what it says. Where there is
    a token for this tag manifest by now, that one.

    Raises ``UnreachableError``, ``NotAllowedError`` (the authority refuses), ``UsageError`` (it is none).
    """
    digest = bytes.fromhex(root_of(store))
    for key in _keys(store):
        found = _read(store, key)
        if isinstance(found, Stamp) and found.hash == digest:
            return key, found
    nonce = secrets.randbits(63)
    answer = _ask(url, request(digest, nonce))
    try:
        given = parse(answer)
    except ValueError as exc:
        raise UsageError(f"{url} did not answer with a timestamp: {exc}", next_step="check the URL") from exc
    if (given.hash, given.nonce) != (digest, nonce):
        raise NotAllowedError(f"{url} gave a timestamp for something else", next_step="ask another authority")
    key = f"{layout.SIGNATURES}{layout.TAG_MANIFEST}.{given.moment.strftime('%Y%m%dt%H%M%Sz')}.tsr"
    store.put(key, answer)
    return key, given


def stamps(store: Store) -> tuple[list[tuple[str, Stamp]], list[Finding]]:
    """Check every token at the place."""
    digest = bytes.fromhex(root_of(store))
    good: list[tuple[str, Stamp]] = []
    findings: list[Finding] = []
    for key in _keys(store):
        found = _read(store, key)
        if isinstance(found, Finding):
            findings.append(found)
        elif found.hash != digest:
            what = f"is for another {layout.TAG_MANIFEST}"
            findings.append(Finding(key, what, digest.hex(), found.hash.hex()))
        else:
            good.append((key, found))
    return good, findings


def _keys(store: Store) -> list[str]:
    return [info.key for info in store.list(layout.SIGNATURES) if info.key.endswith(".tsr")]


def _read(store: Store, key: str) -> Stamp | Finding:
    if not _NAME.fullmatch(key):
        return Finding(key, "is named like no timestamp of a bundle")
    try:
        return parse(store.read(key, 0, MAX_BYTES))
    except ValueError as exc:
        return Finding(key, f"is no timestamp that holds: {exc}")


def parse(answer: bytes) -> Stamp:
    """Read a TimeStampResp and check the signature in it. Raises ``ValueError``."""
    try:
        return _parse(answer)
    except Exception as exc:  # certificates from anywhere make cryptography raise all sorts of things
        raise ValueError(str(exc) or type(exc).__name__) from exc


def _parse(answer: bytes) -> Stamp:
    status, *rest = der.read(answer).expect(der.SEQUENCE).parts
    if status.parts[0].expect(der.INTEGER).number not in {0, 1} or not rest:
        raise ValueError(f"the authority refused (status {status.parts[0].number})")
    kind, wrapped = rest[0].expect(der.SEQUENCE).parts
    if kind.whole != _SIGNED_DATA:
        raise ValueError("no signed data")
    signed = der.read(wrapped.expect(0xA0).body).expect(der.SEQUENCE).parts
    content, holder = signed[2].expect(der.SEQUENCE).parts
    if content.whole != _TST_INFO:
        raise ValueError("no timestamp")
    info = der.read(holder.expect(0xA0).body).expect(der.OCTETS).body
    certificates = [one for part in signed[3:-1] if part.tag == 0xA0 for one in part.parts]
    signers = signed[-1].expect(der.SET).parts
    if len(signers) != 1:
        raise ValueError("not signed by one authority")
    certificate = _check(signers[0].expect(der.SEQUENCE).parts, info, certificates)
    return _info(der.read(info), certificate)


def _info(info: Node, certificate: x509.Certificate) -> Stamp:
    parts = info.expect(der.SEQUENCE).parts
    algorithm, digest = parts[2].expect(der.SEQUENCE).parts
    if algorithm.parts[0].whole != _SHA256:
        raise ValueError("not over a SHA-256")
    text = parts[4].expect(der.TIME).body.decode("ascii", "replace")
    moment = datetime.strptime(text.partition(".")[0].rstrip("Z"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    nonce = next((part.number for part in parts[5:] if part.tag == der.INTEGER), None)
    authority = certificate.subject.rfc4514_string()
    return Stamp(digest.expect(der.OCTETS).body, moment, authority, nonce)


def _check(signer: Sequence[Node], info: bytes, certificates: Sequence[Node]) -> x509.Certificate:
    """Check a SignerInfo (RFC 5652, section 5.3): the signed attributes name the content's hash, and the signature over
    them is by one of the certificates.
    """
    algorithm = _HASHES.get(signer[2].parts[0].whole)
    attributes = signer[3].expect(0xA0)
    if algorithm is None:
        raise ValueError("a hash that is not known here")
    values = {one.parts[0].whole: one.parts[1].parts for one in attributes.parts}
    digest = hashlib.new(algorithm.name, info).digest()
    if values[_DIGEST][0].body != digest if _DIGEST in values else True:
        raise ValueError("its content is not what was signed")
    if values.get(_KIND, [None])[0] is None or values[_KIND][0].whole != _TST_INFO:
        raise ValueError("signed as something else")
    message = der.write(der.SET, attributes.body)
    for one in certificates:
        certificate = x509.load_der_x509_certificate(one.whole)
        if _verifies(certificate, signer[5].expect(der.OCTETS).body, message, algorithm):
            return certificate
    raise ValueError("its signature holds for none of its certificates")


def _verifies(
    certificate: x509.Certificate, signature: bytes, message: bytes, algorithm: hashes.HashAlgorithm
) -> bool:
    key = certificate.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(algorithm))
        elif isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _ask(url: str, query: bytes) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise UsageError(
            f"{url!r} is no URL of a timestamp authority", next_step="write http://… or https://…"
        )
    asked = urllib.request.Request(url, query, {"Content-Type": "application/timestamp-query"})  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(asked, timeout=_SECONDS) as answer:  # noqa: S310
            return bytes(answer.read(MAX_BYTES))
    except urllib.error.HTTPError as exc:
        raise _refused(url, exc) from exc
    except OSError as exc:
        raise UnreachableError(
            f"the timestamp authority {url} did not answer: {exc}",
            next_step="run the same command again later",
        ) from exc


def _refused(url: str, exc: urllib.error.HTTPError) -> MoveoutError:
    said = f"the timestamp authority {url} answered {exc.code} {exc.reason}"
    if exc.code >= 500 or exc.code == 429:
        return UnreachableError(said, next_step="run the same command again later")
    return NotAllowedError(said, next_step="check the URL and what the authority asks for")

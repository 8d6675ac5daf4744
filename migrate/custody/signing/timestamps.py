"""Timestamps of the tag manifest by a timestamp authority (RFC 3161).

The answer is kept as it came, ``sig/tagmanifest-sha256.txt.<time>.tsr``: ``openssl ts -verify -data … -in … -CAfile …``
checks it. Here the library ``rfc3161-client`` does, up to the root certificates that the caller trusts. Without them it
checks up to a self-signed certificate in the token, which proves that the token is undamaged, but not who made it.
The libraries are imported where there is a timestamp: few bundles have one.
"""

from __future__ import annotations

import re
import urllib.error
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

from migrate.bundle import layout
from migrate.bundle.findings import Finding
from migrate.case.secrets import redact
from migrate.custody.signing.bundle_signatures import root_of
from migrate.errors import (
    AlreadyExistsError,
    BusyError,
    MoveoutError,
    NotAllowedError,
    UnreachableError,
    UsageError,
)
from migrate.storage.api import Store

if TYPE_CHECKING:
    from cryptography import x509
    from rfc3161_client import TimeStampRequest, TimeStampResponse

_SECONDS = 30.0
_TRIES = 50
MAX_BYTES = 65_536
_NAME = re.compile(r"sig/tagmanifest-sha256\.txt\.[0-9tz-]+\.tsr")
_SHA256 = "2.16.840.1.101.3.4.2.1"

Chain: TypeAlias = Literal["trusted", "self-signed", "unknown"]
"""Where the certificates of a token lead: to a root that the caller trusts, or to a self-signed one in the token. Where
the root is not known, nothing could be checked.
"""


class Stamp(Struct, frozen=True):
    """What a token says. ``hash`` is the SHA-256 that it is about, ``authority`` the subject of the certificate that
    signed it, ``nonce`` the number that the request had asked it to repeat.
    """

    hash: bytes
    moment: datetime
    authority: str
    nonce: int | None
    chain: Chain


def load_roots(path: Path) -> list[x509.Certificate]:
    """Return the certificates in a PEM file. Raises ``UsageError``."""
    from cryptography import x509  # noqa: PLC0415  see above

    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise UsageError(
            f"{path} holds no certificates in PEM format", next_step="name the authority's root certificate"
        ) from exc


def stamp(store: Store, url: str) -> tuple[str, Stamp]:
    """Ask the authority for a token over the tag manifest and keep it; return its key and what it says.

    Raises ``UnreachableError``, ``NotAllowedError`` (the authority refuses), ``UsageError`` (it is none).
    """
    request = _request(store.read(layout.TAG_MANIFEST))
    digest = request.message_imprint.message
    response = _ask(url, request.as_bytes())
    try:
        new_stamp = parse(response)
    except ValueError as exc:
        raise UsageError(f"{url} did not answer with a timestamp: {exc}", next_step="check the URL") from exc
    if (new_stamp.hash, new_stamp.nonce) != (digest, request.nonce):
        raise NotAllowedError(f"{url} gave a timestamp for something else", next_step="ask another authority")
    name = f"{layout.SIGNATURES}{layout.TAG_MANIFEST}.{new_stamp.moment.strftime('%Y%m%dt%H%M%Sz')}"
    for number in range(1, _TRIES):  # others may have asked in the same second
        key = f"{name}-{number}.tsr" if number > 1 else f"{name}.tsr"
        with suppress(AlreadyExistsError):
            store.create(key, response)
            return key, new_stamp
    raise BusyError(f"others keep asking for timestamps of {store.location}", next_step="try again later")


def stamps(
    store: Store, roots: Sequence[x509.Certificate] = ()
) -> tuple[list[tuple[str, Stamp]], list[Finding]]:
    """Check every token at the location; with ``roots`` their certificates must lead to one of these."""
    digest = bytes.fromhex(root_of(store))
    good: list[tuple[str, Stamp]] = []
    findings: list[Finding] = []
    for key in _keys(store):
        stamp_read = _read(store, key, roots)
        if isinstance(stamp_read, Finding):
            findings.append(stamp_read)
        elif stamp_read.hash != digest:
            sentence = f"is for another {layout.TAG_MANIFEST}"
            findings.append(Finding(key, sentence, digest.hex(), stamp_read.hash.hex()))
        else:
            good.append((key, stamp_read))
    return good, findings


def _keys(store: Store) -> list[str]:
    return [info.key for info in store.list(layout.SIGNATURES) if info.key.endswith(".tsr")]


def _read(store: Store, key: str, roots: Sequence[x509.Certificate]) -> Stamp | Finding:
    if not _NAME.fullmatch(key):
        return Finding(key, "is named like no timestamp of a bundle")
    try:
        return parse(store.read(key, 0, MAX_BYTES), roots)
    except ValueError as exc:
        return Finding(key, f"is no timestamp that holds: {exc}")


def _ask(url: str, query: bytes) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise UsageError(
            f"{redact(url)!r} is not a URL of a timestamp authority", next_step="write http://… or https://…"
        )
    if redact(url) != url:
        raise UsageError(
            f"the URL of the timestamp authority has a secret in it: {redact(url)}. Logs and reports name this URL",
            next_step="name an authority that asks for no password and no token, or a proxy of yours that adds it",
        )
    import http.client  # noqa: PLC0415  which only who asks an authority needs
    import urllib.request  # noqa: PLC0415  as above

    request = urllib.request.Request(url, query, {"Content-Type": "application/timestamp-query"})  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:  # noqa: S310
            return bytes(response.read(MAX_BYTES))
    except urllib.error.HTTPError as exc:
        raise _refused(url, exc) from exc
    except (OSError, ValueError, http.client.HTTPException) as exc:
        raise UnreachableError(
            f"the timestamp authority {url} did not answer: {exc}",
            next_step="run the same command again later",
        ) from exc


def _refused(url: str, exc: urllib.error.HTTPError) -> MoveoutError:
    message = f"the timestamp authority {url} answered {exc.code} {exc.reason}"
    if exc.code >= 500 or exc.code == 429:
        return UnreachableError(message, next_step="run the same command again later")
    return NotAllowedError(message, next_step="check the URL and what the authority asks for")


def _request(data: bytes) -> TimeStampRequest:
    """Return a request for the SHA-256 of data, with a nonce; it asks for the authority's certificates too."""
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder  # noqa: PLC0415  see above

    return TimestampRequestBuilder(data, HashAlgorithm.SHA256).build()


def parse(response_bytes: bytes, roots: Sequence[x509.Certificate] = ()) -> Stamp:
    """Read a TimeStampResp and check it (see ``Chain``). Raises ``ValueError``."""
    try:
        return _parse(response_bytes, roots)
    except Exception as exc:  # certificates from anywhere make cryptography raise all sorts of things
        raise ValueError(str(exc) or type(exc).__name__) from exc


def _parse(response_bytes: bytes, roots: Sequence[x509.Certificate]) -> Stamp:
    from cryptography import x509  # noqa: PLC0415  see above
    from rfc3161_client import VerifierBuilder, decode_timestamp_response  # noqa: PLC0415

    response = decode_timestamp_response(_in_der_order(response_bytes))
    certificates = [
        x509.load_der_x509_certificate(certificate) for certificate in response.signed_data.certificates
    ]
    info = response.tst_info
    if info.message_imprint.hash_algorithm != x509.ObjectIdentifier(_SHA256):
        raise ValueError("not over a SHA-256")
    trusted = roots or [
        certificate for certificate in certificates if certificate.issuer == certificate.subject
    ]
    if trusted:
        builder = VerifierBuilder(roots=list(trusted), intermediates=certificates)
        builder.build().verify(response, info.message_imprint.message)
    chain: Chain = "trusted" if roots else "self-signed" if trusted else "unknown"
    authority = _signer(response, certificates).subject.rfc4514_string()
    return Stamp(info.message_imprint.message, info.gen_time, authority, info.nonce, chain)


def _in_der_order(response_bytes: bytes) -> bytes:
    """Return an answer with its certificates in the order of DER (X.690, 11.6), which the library requires and openssl
    does not keep. No signature covers that order. Raises ``ValueError`` where the authority refused.
    """
    from asn1crypto import cms, core, tsp  # noqa: PLC0415  see above

    status, *token = core.SequenceOf.load(response_bytes, spec=core.Any)
    if not token:
        raise ValueError(f"the authority refused ({status.parse(tsp.PKIStatusInfo)['status'].native})")
    certificates = [
        certificate.dump() for certificate in token[0].parse(cms.ContentInfo)["content"]["certificates"]
    ]
    return response_bytes.replace(b"".join(certificates), b"".join(sorted(certificates)), 1)


def _signer(response: TimeStampResponse, certificates: Sequence[x509.Certificate]) -> x509.Certificate:
    (signer,) = response.signed_data.signer_infos
    for certificate in certificates:
        if (certificate.issuer, certificate.serial_number) == (signer.issuer, signer.serial_number):
            return certificate
    raise ValueError("the certificate of its authority is missing")

"""Builds requests to timestamp authorities, which ``timestamps`` sends, and checks their answers (RFC 3161), by the
library ``rfc3161-client``.
"""

from __future__ import annotations

from collections.abc import Sequence

from asn1crypto import cms, core, tsp
from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    TimeStampRequest,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerifierBuilder,
    decode_timestamp_response,
)

from migrate.custody.signing.stamp import Chain, Stamp

_SHA256 = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")


def request(data: bytes) -> TimeStampRequest:
    """Return a request for the SHA-256 of data, with a nonce; it asks for the authority's certificates too."""
    return TimestampRequestBuilder(data, HashAlgorithm.SHA256).build()


def parse(response_bytes: bytes, roots: Sequence[x509.Certificate] = ()) -> Stamp:
    """Read a TimeStampResp and check it (see ``Chain``). Raises ``ValueError``."""
    try:
        return _parse(response_bytes, roots)
    except Exception as exc:  # certificates from anywhere make cryptography raise all sorts of things
        raise ValueError(str(exc) or type(exc).__name__) from exc


def _parse(response_bytes: bytes, roots: Sequence[x509.Certificate]) -> Stamp:
    response = decode_timestamp_response(_in_der_order(response_bytes))
    certificates = [
        x509.load_der_x509_certificate(certificate) for certificate in response.signed_data.certificates
    ]
    info = response.tst_info
    if info.message_imprint.hash_algorithm != _SHA256:
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

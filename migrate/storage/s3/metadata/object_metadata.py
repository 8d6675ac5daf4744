"""An object's metadata, the headers that send it to a destination, and the requests that change what can be changed of
a version that is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.header import Header
from html import escape
from urllib.parse import quote

from msgspec import Struct, field

from exporters.bucket_api import STANDARD_HEADERS, ObjectSummary
from exporters.lossless_text import latin_1_text
from migrate.storage.checksums import crc64nvme, to_header
from migrate.storage.s3.http.messages import XMLNS, Request, content_md5, xml_request
from migrate.storage.s3.http.read_responses import which

PUT_BYTES = 32 * 2**20
"""Objects up to this size go by one PUT; their ETag is then their MD5."""
LOCK_MODE, LOCK_UNTIL = "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"
LEGAL_HOLD = "x-amz-object-lock-legal-hold"
_META = "x-amz-meta-"
_OWN_CHECKSUMS = ("sha256", "sha1", "crc32c", "crc32")
"""Kinds of checksums that are kept in the source's own form, the strongest first."""
_CHUNKED = "aws-chunked"
_MD5 = re.compile(r"[0-9a-f]{32}")


class Description(Struct, frozen=True):
    """An object's metadata. ``key`` is the whole key in the bucket. ``metadata`` has no
    ``x-amz-meta-``. ``checksums`` are the source's own, by algorithm, as S3 writes them. The lock is as in its headers;
    an empty storage class is the destination's own choice. ``acl`` is the name of a canned one.

    ``before``: how many versions the key has already, for ``put_versions``. ``only_new``: it is an error if the
    key has an object by then, which is left alone.
    """

    key: str
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    storage_class: str = ""
    lock_mode: str = ""
    lock_until: str = ""
    legal_hold: bool = False
    acl: str = ""
    before: int | None = None
    only_new: bool = False


def is_md5(etag: str) -> bool:
    """Tell whether an ETag may be an MD5: that of a multipart upload has another form."""
    return bool(_MD5.fullmatch(etag))


def put_request(described: Description, body: bytes) -> Request:
    """Return the request that writes an object whole, with its checksums."""
    # Where the source keeps a checksum of the whole object, the destination keeps it too.
    own_checksum = _own_checksum(described.checksums)
    algorithm, checksum = own_checksum or ("crc64nvme", to_header(crc64nvme(body)))
    headers = {
        **described_headers(described),
        "Content-MD5": content_md5(body),
        f"x-amz-checksum-{algorithm}": checksum,
    }
    if described.only_new:
        headers["If-None-Match"] = "*"
    return Request("PutObject", "PUT", described.key, headers=headers, body=body)


def described_headers(described: Description) -> dict[str, str]:
    """Return the headers that describe an object, without its checksum."""
    metadata = {
        _META + name: value if value.isprintable() else _encoded_value(value)
        for name, value in described.metadata.items()
    }
    headers = {**sendable(described.headers), **metadata}
    if described.tags:
        headers["x-amz-tagging"] = _tagging(described.tags)
    if described.storage_class:
        headers["x-amz-storage-class"] = described.storage_class
    if described.lock_mode:
        headers |= {LOCK_MODE: described.lock_mode, LOCK_UNTIL: described.lock_until}
    if described.legal_hold:
        headers[LEGAL_HOLD] = "ON"
    if described.acl:
        headers["x-amz-acl"] = described.acl
    return headers


def _encoded_value(value: str) -> str:
    """Return a value of user metadata as it is sent where it has spaces of other scripts or is not UTF-8: encoded (RFC
    2047, as S3 keeps it). All of it is signed, and servers do not agree on how. No other header may be encoded.
    """
    text = latin_1_text(value)
    return Header(text, "utf-8" if text == value else "iso-8859-1", maxlinelen=10_000).encode()


def _own_checksum(checksums: Mapping[str, str]) -> tuple[str, str] | None:
    """Return kind and value of the checksum of the whole object that the source keeps, None where it keeps none."""
    for algorithm in _OWN_CHECKSUMS:
        value = checksums.get(algorithm, "")
        if value and "-" not in value and checksums.get("type", "FULL_OBJECT") == "FULL_OBJECT":
            return algorithm, value
    return None


def keeps_checksum(checksums: Mapping[str, str], *, in_parts: bool) -> bool:
    """Tell whether the destination will have the checksum that the source keeps, or a CRC64NVME as it does."""
    other_checksums = set(checksums) - {"type", "crc64nvme"}
    return not other_checksums or (not in_parts and _own_checksum(checksums) is not None)


def sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that a destination takes. ``aws-chunked`` describes how a request was sent, not the
    object; some servers keep it.
    """
    standard_headers = {name: value for name, value in headers.items() if name in STANDARD_HEADERS}
    encoding = standard_headers.get("content-encoding")
    if encoding is not None and (not encoding or _CHUNKED in encoding):
        other_encodings = ",".join(
            part for part in encoding.split(",") if part.strip() not in {"", _CHUNKED}
        ).strip()
        standard_headers |= {"content-encoding": other_encodings} if other_encodings else {}
        if not other_encodings:
            del standard_headers["content-encoding"]
    return standard_headers


def _tagging(tags: Mapping[str, str]) -> str:
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in tags.items())


# Of a version that is there its tags, locks and ACL can be changed (Amazon S3 API reference: PutObjectTagging,
# PutObjectRetention, PutObjectLegalHold, PutObjectAcl). Bytes, headers and metadata cannot. All may be sent twice;
# ``DestinationBucket.amend`` sends them.
_PRIVATE = "private"
"""The canned ACL of what is its owner's alone."""


def tags_change(summary: ObjectSummary, tags: Mapping[str, str]) -> Request:
    """Return the request that gives a version these tags and no others."""
    query = {"tagging": ""} | which(summary)
    if not tags:
        return Request("DeleteObjectTagging", "DELETE", summary.key, query)
    listed = "".join(
        f"<Tag><Key>{escape(name)}</Key><Value>{escape(value)}</Value></Tag>" for name, value in tags.items()
    )
    body = f"<Tagging {XMLNS}><TagSet>{listed}</TagSet></Tagging>"
    return _change("PutObjectTagging", summary, "tagging", body)


def retention_change(summary: ObjectSummary, mode: str, until: str) -> Request:
    """Return the request that locks a version; no lock is shortened by it."""
    body = f"<Retention {XMLNS}><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
    return _change("PutObjectRetention", summary, "retention", body)


def hold_change(summary: ObjectSummary) -> Request:
    """Return the request that puts a legal hold on a version."""
    return _change(
        "PutObjectLegalHold", summary, "legal-hold", f"<LegalHold {XMLNS}><Status>ON</Status></LegalHold>"
    )


def acl_change(summary: ObjectSummary, acl: str) -> Request:
    """Return the request that gives a version a canned ACL; an empty one makes it its owner's alone."""
    query = {"acl": ""} | which(summary)
    return Request("PutObjectAcl", "PUT", summary.key, query, {"x-amz-acl": acl or _PRIVATE})


def _change(operation: str, summary: ObjectSummary, what: str, text: str) -> Request:
    return xml_request(operation, "PUT", summary.key, {what: ""} | which(summary), text)

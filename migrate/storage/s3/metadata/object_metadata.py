"""What belongs to an object besides its bytes, and the headers that say so to a destination."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.header import Header
from urllib.parse import quote

from exporters.bucket_api import STANDARD_HEADERS
from exporters.header_bytes import latin_1_text
from migrate.storage.checksums import crc64nvme, to_header
from migrate.storage.s3.http.messages import Request

PUT_BYTES = 32 * 2**20
"""Objects up to this size go by one PUT; their ETag is then their MD5."""
LOCK_MODE, LOCK_UNTIL = "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"
LEGAL_HOLD = "x-amz-object-lock-legal-hold"
_META = "x-amz-meta-"
_OWN_CHECKSUMS = ("sha256", "sha1", "crc32c", "crc32")
"""Kinds of checksums that are kept in the source's own form, the strongest first."""
_CHUNKED = "aws-chunked"
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Description:
    """What belongs to an object besides its bytes. ``key`` is the whole key in the bucket; ``metadata``
    without ``x-amz-meta-``; ``checksums`` the source's own, by algorithm, as S3 writes them; the lock as in its
    headers, the storage class empty for the destination's own choice. ``acl`` is the name of a canned one.

    ``before``: how many versions the key has already, for ``put_versions``.
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


def is_md5(etag: str) -> bool:
    """Tell whether an ETag may be an MD5: that of a multipart upload has another form."""
    return bool(_MD5.fullmatch(etag))


def put_request(it: Description, body: bytes) -> Request:
    """Return the request that writes an object whole, with its checksums."""
    md5 = hashlib.md5(body, usedforsecurity=False).digest()
    headers = {**described_headers(it), "Content-MD5": base64.b64encode(md5).decode(), **_checksum(it, body)}
    return Request("PutObject", "PUT", it.key, headers=headers, body=body)


def described_headers(it: Description) -> dict[str, str]:
    """Return the headers that describe an object, without its checksum."""
    metadata = {_META + name: _metadata_value(value) for name, value in it.metadata.items()}
    headers = {**sendable(it.headers), **metadata}
    if it.tags:
        headers["x-amz-tagging"] = _tagging(it.tags)
    if it.storage_class:
        headers["x-amz-storage-class"] = it.storage_class
    if it.lock_mode:
        headers |= {LOCK_MODE: it.lock_mode, LOCK_UNTIL: it.lock_until}
    if it.legal_hold:
        headers[LEGAL_HOLD] = "ON"
    if it.acl:
        headers["x-amz-acl"] = it.acl
    return headers


def _metadata_value(value: str) -> str:
    """Return a value of user metadata as it is sent: encoded (RFC 2047, as S3 keeps it) where it has spaces of other
    scripts or is not UTF-8: all of it is signed, and servers do not agree on how. No other header may be encoded.
    """
    if value.isprintable():
        return value
    text = latin_1_text(value)
    return Header(text, "utf-8" if text == value else "iso-8859-1", maxlinelen=10_000).encode()


def _checksum(it: Description, body: bytes) -> dict[str, str]:
    """Return the one checksum that goes along: the kind that the source keeps, where it is of the whole object, so
    that the destination keeps it too; else CRC64NVME.
    """
    own = _own_checksum(it.checksums)
    if own is not None:
        return {f"x-amz-checksum-{own[0]}": own[1]}
    return {"x-amz-checksum-crc64nvme": to_header(crc64nvme(body))}


def _own_checksum(checksums: Mapping[str, str]) -> tuple[str, str] | None:
    for algorithm in _OWN_CHECKSUMS:
        value = checksums.get(algorithm, "")
        if value and "-" not in value and checksums.get("type", "FULL_OBJECT") == "FULL_OBJECT":
            return algorithm, value
    return None


def keeps_checksum(checksums: Mapping[str, str], *, in_parts: bool) -> bool:
    """Tell whether the destination will have the checksum that the source keeps, or a CRC64NVME as it does."""
    others = set(checksums) - {"type", "crc64nvme"}
    return not others or (not in_parts and _own_checksum(checksums) is not None)


def sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that a destination takes. ``aws-chunked`` describes how a request was sent, not the
    object; some servers keep it.
    """
    found = {name: value for name, value in headers.items() if name in STANDARD_HEADERS}
    encoding = found.get("content-encoding")
    if encoding is not None and (not encoding or _CHUNKED in encoding):
        kept = ",".join(it for it in encoding.split(",") if it.strip() not in {"", _CHUNKED}).strip()
        found |= {"content-encoding": kept} if kept else {}
        if not kept:
            del found["content-encoding"]
    return found


def _tagging(tags: Mapping[str, str]) -> str:
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in tags.items())

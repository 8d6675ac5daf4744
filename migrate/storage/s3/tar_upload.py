"""Many small objects by one request, where the server unpacks tars (MinIO: "Snowball", ``PutObjectExtractHandler``).

Headers, metadata and tags go along as pax records of each member; so does the time of the last change, which the server
keeps. It keeps no checksums of such objects, and answers once for all of them: what has arrived is listed afterwards.
"""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from exporters.objects import pax_headers
from migrate.storage.checksums import crc64nvme, to_header
from migrate.storage.s3.destination_bucket import DestinationBucket
from migrate.storage.s3.http.messages import Request
from migrate.storage.s3.metadata.object_metadata import Description, described_headers

LARGEST_BYTES = 2**20
TAR_BYTES = 4 * 2**20
LEAST_MEMBERS = 20
"""Fewer are written one by one."""
_RECORD = "minio.metadata."


class Member(Struct, frozen=True):
    """One object of a tar. ``md5`` in hex digits, of its bytes; ``modified_seconds`` since 1970."""

    described: Description
    body: bytes
    md5: str
    modified_seconds: int


def fits(described: Description, size_bytes: int) -> bool:
    """Tell whether nothing of an object but its checksum would be lost in a tar."""
    if (
        size_bytes > LARGEST_BYTES
        or described.lock_mode
        or described.legal_hold
        or described.acl
        or described.storage_class
    ):
        return False
    if (
        described.key != posixpath.normpath(described.key)
        or described.key.startswith("/")
        or not described.headers.get("content-type")
    ):
        return False
    return all(value.isascii() for pair in described_headers(described).items() for value in pair)


def put(destination: DestinationBucket, members: Sequence[Member]) -> set[str]:
    """Write objects, in the order of their keys; return the keys of those that are there afterwards with the right
    bytes. Raises ``MoveoutError``.
    """
    body = b"".join(_pieces(members))
    key = f"{destination.prefix}moveout-{secrets.token_hex(6)}.tar"
    headers = {
        "x-amz-meta-snowball-auto-extract": "true",
        "x-amz-checksum-crc64nvme": to_header(crc64nvme(body)),
        "Content-Type": "application/x-tar",
    }
    destination.send(Request("PutObject", "PUT", key, headers=headers, body=body))
    expected_md5 = {member.described.key: member.md5 for member in members}
    first, last = members[0].described.key, members[-1].described.key
    return {
        summary.key
        for summary in destination.between(first, last)
        if expected_md5.get(summary.key) == summary.etag
    }


def _pieces(members: Sequence[Member]) -> Iterator[bytes]:
    for member in members:
        records = {_RECORD + name: value for name, value in _headers(member.described).items()}
        yield pax_headers.header(member.described.key, len(member.body), member.modified_seconds, records)
        yield member.body
        yield pax_headers.padding(len(member.body))
    yield pax_headers.END


def _headers(described: Description) -> Mapping[str, str]:
    return {name.title(): value for name, value in described_headers(described).items()}

"""What an object's bytes are known by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Content:
    """Size and hashes in hex digits; a hash is empty where it is not known. ``etag`` is the MD5, or what the
    source gave as its ETag: another object of that size with that ETag is the same one.
    """

    size_bytes: int
    sha256: str
    etag: str
    crc64nvme: str

"""What an object's bytes are known by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Content:
    """Size and hashes in hex digits; a hash is empty where it is not known."""

    size_bytes: int
    sha256: str
    md5: str
    crc64nvme: str

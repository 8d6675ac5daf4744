"""CRC64NVME, the checksum that S3 computes over whole objects, and the other hashes that identify objects."""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable
from types import ModuleType
from typing import cast

from msgspec import Struct


@functools.cache
def library() -> ModuleType:
    """Return what computes CRC64NVME: our own module where it was built and the processor can run it, else awscrt."""
    try:
        from migrate.storage import _crc64nvme  # noqa: PLC0415
    except ImportError:
        from awscrt import checksums  # noqa: PLC0415  40 ms, because it tests its cryptography when it is loaded

        return cast("ModuleType", checksums)
    return _crc64nvme


def crc64nvme(data: bytes | bytearray | memoryview, previous: int = 0) -> int:
    """Return the CRC64NVME of ``data``, going on from ``previous``."""
    return int(library().crc64nvme(data, previous))


def combine(parts: Iterable[tuple[int, int]]) -> int:
    """Return the CRC64NVME of the whole from ``(crc64nvme, size_bytes)`` of its parts, in order."""
    combined = 0
    for crc, size_bytes in parts:
        combined = int(library().combine_crc64nvme(combined, crc, size_bytes))
    return combined


def to_header(crc: int) -> str:
    """Return the checksum as S3 writes it: base64 of eight bytes, big end first."""
    return base64.b64encode(crc.to_bytes(8, "big")).decode()


def from_header(text: str) -> int:
    """Read what ``to_header`` wrote. Raises ``ValueError``."""
    return int.from_bytes(base64.b64decode(text), "big")


class Content(Struct, frozen=True):
    """Size and hashes in hex digits; a hash is empty where it is not known. ``etag`` is the MD5, or what the
    source gave as its ETag: another object of that size with that ETag is the same one.
    """

    size_bytes: int
    sha256: str
    etag: str
    crc64nvme: str

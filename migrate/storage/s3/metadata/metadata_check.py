"""What an object has besides its bytes, compared with what it is to have."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.header import decode_header, make_header

from exporters.bucket_api import Fetched
from exporters.header_bytes import latin_1_text
from migrate.storage.checksums import from_header
from migrate.storage.s3.metadata.object_metadata import (
    LEGAL_HOLD,
    LOCK_MODE,
    LOCK_UNTIL,
    Description,
    sendable,
)

_META = "x-amz-meta-"


def has_headers(found: Fetched, wanted: Description) -> bool:
    """Tell whether an object has the headers and metadata that it is to have."""
    headers, asked = sendable(found.headers), sendable(wanted.headers)
    if any(headers.get(name, "") != value for name, value in asked.items()):
        return False
    return _equal(user_metadata(found.headers), wanted.metadata)


def has_tags(found: Fetched, wanted: Description) -> bool:
    """Tell whether an object has the tags that it is to have, and no others."""
    return _equal(found.tags, wanted.tags)


def has_locks(found: Fetched, wanted: Description) -> bool:
    """Tell whether an object has the locks that it is to have, or any others in their place."""
    headers = found.headers
    if wanted.legal_hold and headers.get(LEGAL_HOLD) != "ON":
        return False
    if not wanted.lock_mode:
        return True
    until = moment_of(headers.get(LOCK_UNTIL, ""))
    return headers.get(LOCK_MODE) == wanted.lock_mode and until == moment_of(wanted.lock_until)


def _equal(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return {name: as_text(value) for name, value in one.items()} == {
        name: as_text(value) for name, value in other.items()
    }


def kept_crc64nvme(headers: Mapping[str, str]) -> int | None:
    """Return the CRC64NVME of the whole that the server keeps, None where it keeps none."""
    kept = headers.get("x-amz-checksum-crc64nvme")
    composite = headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT"
    return None if kept is None or composite or "-" in kept else from_header(kept)


def user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """Return an object's own metadata out of its headers."""
    return {name.removeprefix(_META): value for name, value in headers.items() if name.startswith(_META)}


def as_text(text: str | None) -> str | None:
    """Return a text in one form: some servers send what is not ASCII encoded (RFC 2047), some as it is."""
    if text is None or "=?" not in text:
        return text and latin_1_text(text)
    try:
        return str(make_header(decode_header(text)))
    except (ValueError, LookupError, HeaderParseError):
        return text


def moment_of(text: str) -> datetime | None:
    """Return the moment that a lock's header names, to the second: not every server sends more; None where none is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).replace(microsecond=0)

"""Compare an object's metadata with what it should have."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.header import decode_header, make_header

from exporters.bucket_api import Fetched
from exporters.lossless_text import latin_1_text
from migrate.storage.s3.metadata.object_metadata import (
    LEGAL_HOLD,
    LOCK_MODE,
    LOCK_UNTIL,
    Description,
    sendable,
)

_META = "x-amz-meta-"


def has_headers(fetched: Fetched, expected: Description) -> bool:
    """Tell whether an object has the headers and metadata that it is to have."""
    headers, expected_headers = sendable(fetched.headers), sendable(expected.headers)
    if any(headers.get(name, "") != value for name, value in expected_headers.items()):
        return False
    return _equal(user_metadata(fetched.headers), expected.metadata)


def has_tags(fetched: Fetched, expected: Description) -> bool:
    """Tell whether an object has the tags that it is to have, and no others."""
    return _equal(fetched.tags, expected.tags)


def has_locks(fetched: Fetched, expected: Description) -> bool:
    """Tell whether an object has the locks that it is to have, or any others in their place."""
    headers = fetched.headers
    if expected.legal_hold and headers.get(LEGAL_HOLD) != "ON":
        return False
    if not expected.lock_mode:
        return True
    until = moment_of(headers.get(LOCK_UNTIL, ""))
    return headers.get(LOCK_MODE) == expected.lock_mode and until == moment_of(expected.lock_until)


def _equal(left: Mapping[str, str], right: Mapping[str, str]) -> bool:
    return {name: as_text(value) for name, value in left.items()} == {
        name: as_text(value) for name, value in right.items()
    }


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

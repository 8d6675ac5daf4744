"""What S3's answers say, and errors of the client as errors of a source, where a bucket is lent to an exporter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET

import botocore.exceptions as boto_errors

from exporters.errors import (
    SourceChangedError,
    SourceDamagedError,
    SourceError,
    SourceGoneError,
    SourceNotAllowedError,
    SourceUnreachableError,
    SourceUsageError,
)
from migrate.errors import (
    ChangedError,
    DamageError,
    GoneError,
    MoveoutError,
    NotAllowedError,
    UnreachableError,
    UsageError,
)
from migrate.storage.api import Parts, UploadedPart
from migrate.storage.checksums import from_header

_INSTEAD = "check the endpoint, and what is on the way to it; then run the same command again"


def needed(answer: Mapping[str, Any], name: str, what: str) -> Any:
    """Return a field that every S3 server sends. Raises ``UnreachableError`` where it is missing: something on the
    way has answered instead.
    """
    if name not in answer:
        raise UnreachableError(f"{what}: the answer has no {name}, so it is not S3's", next_step=_INSTEAD)
    return answer[name]


def spoken(answer: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """Return an answer that has any content: an empty one would pass for an empty list, or for no lock. Raises
    ``UnreachableError``.
    """
    if not answer.keys() - {"ResponseMetadata"}:
        raise UnreachableError(f"{what}: the answer is empty, so it is not S3's", next_step=_INSTEAD)
    return answer


def asked_range(start: int, length: int | None) -> dict[str, str]:
    """Return the header that asks for a range; none for all."""
    if length is None:
        return {"Range": f"bytes={start}-"} if start else {}
    return {"Range": f"bytes={start}-{start + length - 1}"}


def part_of(row: Mapping[str, Any]) -> UploadedPart:
    """Return a part of a row of ListParts."""
    checksum = row.get("ChecksumCRC64NVME")
    return UploadedPart(
        int(row["PartNumber"]),
        int(row["Size"]),
        row["ETag"].strip('"'),
        from_header(checksum) if checksum else None,
    )


def as_listed(parts: Parts, listed: Parts) -> Parts:
    """Return parts with the ETags that the server lists, where what it has is the same by size and CRC64NVME."""
    listed_by_number = {part.number: part for part in listed}
    matched = [listed_by_number.get(part.number, part) for part in parts]
    return [
        listed_part
        if listed_part.crc64nvme is not None
        and (listed_part.crc64nvme, listed_part.size_bytes) == (sent_part.crc64nvme, sent_part.size_bytes)
        else sent_part
        for sent_part, listed_part in zip(parts, matched, strict=True)
    ]


def is_invalid_part(error: MoveoutError) -> bool:
    """Tell whether a server did not know a part by its ETag or checksum when it was to make a file."""
    cause = error.__cause__
    return isinstance(cause, boto_errors.ClientError) and code_of(cause) == "InvalidPart"


def code_of(exc: boto_errors.ClientError) -> str:
    """Return S3's code of an error."""
    return str(exc.response.get("Error", {}).get("Code", ""))


def as_utc(moment: datetime) -> datetime:
    """Return a moment in UTC."""
    return moment.astimezone(UTC)


def http_date(text: str) -> datetime:
    """Return the moment of a Date header, now where it cannot be read."""
    try:
        return datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return datetime.now(UTC)


def source_error(exc: MoveoutError) -> SourceError:
    """Return an error of the same kind that says that the source is the side that failed."""
    if isinstance(exc, SourceError):
        return exc
    if isinstance(exc, ChangedError):
        return SourceChangedError(f"{exc}: it has changed since it was listed", next_step=exc.next_step)
    for error_class, source_class in (
        (DamageError, SourceDamagedError),
        (UsageError, SourceUsageError),
        (NotAllowedError, SourceNotAllowedError),
        (UnreachableError, SourceUnreachableError),
        (GoneError, SourceGoneError),
    ):
        if isinstance(exc, error_class):
            return source_class(str(exc), next_step=exc.next_step)
    return SourceError(str(exc), next_step=exc.next_step)


@contextmanager
def as_source_errors(what: str) -> Iterator[None]:
    """Raise errors of the client, and of pages that cannot be read, as errors of a source."""
    try:
        yield
    except MoveoutError as exc:
        raise source_error(exc) from exc
    except (UnicodeDecodeError, ET.ParseError, KeyError) as exc:
        raise SourceError(f"{what}: the listing cannot be read: {exc}") from exc

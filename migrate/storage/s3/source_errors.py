"""Errors of the S3 client as errors of a source, where a bucket is lent to an exporter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree as ET

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


def source_error(exc: MoveoutError) -> SourceError:
    """Return an error of the same kind that says that the source is the side that failed."""
    if isinstance(exc, SourceError):
        return exc
    if isinstance(exc, ChangedError):
        return SourceChangedError(f"{exc}: it has changed since it was listed", next_step=exc.next_step)
    for ours, theirs in (
        (DamageError, SourceDamagedError),
        (UsageError, SourceUsageError),
        (NotAllowedError, SourceNotAllowedError),
        (UnreachableError, SourceUnreachableError),
        (GoneError, SourceGoneError),
    ):
        if isinstance(exc, ours):
            return theirs(str(exc), next_step=exc.next_step)
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

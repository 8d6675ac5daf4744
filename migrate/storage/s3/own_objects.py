"""What moveout itself keeps in a destination bucket: objects that are nobody's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from exporters.bucket_api import ObjectSummary
from migrate.storage.s3.capability_probe import is_probe_object
from migrate.storage.s3.destination_bucket import DestinationBucket

SYNC_RECORDS = ".moveout-sync/"
"""What lies below, in the bucket, is the record of a sync."""
RESTORES = ".moveout-restore/"
"""What lies below, in the destination, is what a restore keeps there while it is under way."""
_RECORD = re.compile(re.escape(SYNC_RECORDS) + "[0-9a-f]{16}/.")
"""Where a record lies unless another location is named for it."""


def is_record(key: str) -> bool:
    """Tell whether a key is that of a record, and not of an object that somebody else has put there."""
    return _RECORD.match(key) is not None


def is_own(destination: DestinationBucket, key: str) -> bool:
    """Tell whether an object is moveout's own: a record, a lease, or what a killed run has tried the destination out
    with.
    """
    folders = SYNC_RECORDS, destination.prefix + RESTORES
    return key.startswith(folders) or is_probe_object(destination, key)


def of_others(destination: DestinationBucket, summaries: Iterable[ObjectSummary]) -> Iterator[ObjectSummary]:
    """Leave out what is moveout's own."""
    return (summary for summary in summaries if not is_own(destination, summary.key))

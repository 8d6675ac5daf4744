"""When a source that does not answer for one object does not answer at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from exporters.bucket import Bucket, Fetched
from exporters.errors import SourceUnreachableError

OUTAGE = 20
"""So many objects in a row without an answer are an outage of the source, even if it lists its objects."""


def unless(bucket: Bucket, fetched: Iterable[Fetched]) -> Iterator[Fetched]:
    """Pass on what was fetched; raise where the source itself does not answer, so that an outage does not
    become a gap for each object.
    """
    silent = 0
    for found in fetched:
        if isinstance(found.error, SourceUnreachableError):
            silent += 1
            next(iter(bucket.list()), None)  # raises where not even this is answered
            if silent == OUTAGE:
                raise found.error
        else:
            silent = 0
        yield found

"""The version without an id: the one that a bucket which keeps no versions (yet, or any more) replaces with each write.
No answer to a read tells it from what was there before with the same bytes, and where it is a delete marker by now a
read is refused; its listing tells.
"""

from __future__ import annotations

from exporters.bucket_api import NULL_VERSION, ObjectSummary
from migrate.storage.s3.errors import as_source_errors
from migrate.storage.s3.source_bucket import S3Bucket
from migrate.sync.record.column_pages import is_moment

REPLACED = "replaced at the source after it was listed; the next run adds what it is now, on top"


def is_null(summary: ObjectSummary | None) -> bool:
    """Tell whether this is the version without an id of some key."""
    return summary is not None and summary.version_id == NULL_VERSION


def is_replaced(source: S3Bucket, was: ObjectSummary) -> bool:
    """Tell whether the version without an id is another one by now, or gone. Raises ``SourceError``."""
    now = _listed(source, was.key)
    if now is None:
        return True
    before, after = ((summary.etag, summary.size_bytes, summary.is_delete_marker) for summary in (was, now))
    return before != after or not is_moment(was.modified, now.modified)


def _listed(source: S3Bucket, key: str) -> ObjectSummary | None:
    with as_source_errors(source.url):
        for page in source.listing.versions(key):
            for version in page.rows():
                if version.key == key and version.version_id == NULL_VERSION:
                    return version
                if source.lists_in_order and version.key > key:
                    return None
    return None

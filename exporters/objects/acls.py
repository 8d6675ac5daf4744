"""ACLs of the objects of a unit, asked for after their bytes; only where objects have any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from exporters.api import Loss
from exporters.bucket_api import Bucket
from exporters.errors import SourceGoneError
from exporters.objects.outage_detection import OutageDetector


def fill(bucket: Bucket, rows: Iterable[dict[str, Any]], outage: OutageDetector) -> Iterator[Loss]:
    """Put the ACLs into work rows, and yield those that cannot be had. Raises ``SourceUnreachableError`` when the
    source does not answer.
    """
    exported_rows = [row for row in rows if row["disposition"] == "exported" and not row["is_delete_marker"]]
    if not exported_rows or not bucket.has_acls:
        return
    names = ((row["key"], row["version_id"] or "") for row in exported_rows)
    for row, (acl, error) in zip(exported_rows, bucket.acls(names), strict=True):
        row["acl"] = acl
        outage.note(error)
        if error is not None and not isinstance(error, SourceGoneError):
            yield Loss(row["key"], "ACL", f"it could not be read: {error}")

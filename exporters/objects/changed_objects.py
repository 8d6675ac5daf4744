"""Objects that have changed since they were listed: read as they are now, or recorded as deleted.

The inventory is taken once, but its bucket lives on. A read that is pinned to a version that is gone would fail in
every run. So the object is asked what it is now, and the pin moves to that: what is read is always one version, whole.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime

from msgspec.structs import replace

from exporters.api import Gap
from exporters.bucket_api import Bucket, Fetched, ObjectSummary
from exporters.errors import SourceChangedError, SourceError, SourceGoneError

ATTEMPTS = 5
"""How often an object may change while it is read before it becomes a gap."""
_REPLACEMENT = "\ufffd"
_OTHER_NAME = (
    "the server lists it with U+FFFD in place of characters that XML cannot carry: rename it at the source"
)
DELETED = "deleted at the source after it was listed"


def has_changed(error: SourceError | None) -> bool:
    """Tell whether a read failed because the object is not what was listed."""
    return isinstance(error, SourceChangedError | SourceGoneError)


def current(bucket: Bucket, summary: ObjectSummary) -> Fetched:
    """Return what the key names now: summary, headers and tags, no body; or the error that asking ended in,
    ``SourceGoneError`` where it names nothing.
    """
    head = bucket.head(replace(summary, etag=""))
    if head.error is not None:
        return Fetched(summary, error=head.error)
    return Fetched(_summary(summary, head), headers=head.headers, tags=head.tags)


def pinned(fetched: Fetched) -> ObjectSummary:
    """Return an object to be read by several requests: with the ETag that came with its headers, where its listing has
    none.
    """
    etag = fetched.headers.get("etag", "").strip('"')
    return fetched.summary if fetched.summary.etag else replace(fetched.summary, etag=etag)


def read_current(bucket: Bucket, fetched: Fetched, small_bytes: int) -> Fetched:
    """Read an object that is not what was listed; one that has grown beyond ``small_bytes`` comes without its body."""
    for _ in range(ATTEMPTS):
        now = current(bucket, fetched.summary)
        if now.error is not None or now.summary.size_bytes > small_bytes:
            return now
        fetched = next(iter(bucket.fetch([now.summary], window_bytes=small_bytes)))
        if not has_changed(fetched.error):
            break
    return fetched


def still_listed(bucket: Bucket, summaries: Collection[ObjectSummary], *, ordered: bool) -> set[str]:
    """Return the names of those that the bucket still lists. An object that cannot be read but is listed was not
    deleted: some servers list names that they cannot read. Raises ``SourceError``: the bucket may be gone.
    """
    last = max(summary.key for summary in summaries)
    names, listed_names = {summary.name for summary in summaries}, set[str]()
    begin = min(_before(summary.key) for summary in summaries) if ordered else ""
    if any(summary.version_id for summary in summaries):
        listing = bucket.list_versions(after=(begin, ""))
    else:
        listing = bucket.list(start_after=begin)
    for summary in listing:
        if ordered and summary.key > last:
            break
        if summary.name in names:
            listed_names.add(summary.name)
            if listed_names == names:
                break
    return listed_names


def _before(key: str) -> str:
    """Return a text after which a key is listed. What is shown as U+FFFD is listed where its own characters stand."""
    head, is_replaced, _ = key.partition(_REPLACEMENT)
    return head if is_replaced else key[:-1]


def gap(bucket: Bucket, listed: ObjectSummary, error: SourceError, *, ordered: bool) -> Gap:
    """Return the gap that an object leaves: excluded where it was deleted since, else failed."""
    return gaps(bucket, [(listed, error)], ordered=ordered)[0]


def gaps(
    bucket: Bucket, failures: Sequence[tuple[ObjectSummary, SourceError]], *, ordered: bool
) -> list[Gap]:
    """Return the gaps of many objects, in order."""
    gone = [summary for summary, error in failures if isinstance(error, SourceGoneError)]
    listed_names = still_listed(bucket, gone, ordered=ordered) if gone else set()
    deleted = {summary.name for summary in gone} - listed_names
    return [
        Gap(summary.name, "excluded", DELETED)
        if summary.name in deleted
        else Gap(summary.name, "failed", _reason(summary, error))
        for summary, error in failures
    ]


def _reason(summary: ObjectSummary, error: SourceError) -> str:
    """Return why an object that is listed cannot be read."""
    if isinstance(error, SourceGoneError) and _REPLACEMENT in summary.key:
        return f"{error}; {_OTHER_NAME}"
    return str(error)


def _summary(listed: ObjectSummary, head: Fetched) -> ObjectSummary:
    headers, modified = head.headers, listed.modified
    with suppress(ValueError):  # what some proxy has made of it
        modified = parsedate_to_datetime(headers.get("last-modified", ""))
    return replace(
        listed,
        size_bytes=int(headers.get("content-length", listed.size_bytes)),
        etag=headers.get("etag", "").strip('"'),
        modified=modified,
        storage_class=headers.get("x-amz-storage-class") or "STANDARD",
    )

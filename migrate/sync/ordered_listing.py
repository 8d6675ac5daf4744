"""Listings by key, also of servers that list in another order, and without what is no object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

from exporters.bucket_api import Page
from exporters.objects.scratch_table import scratch_table
from migrate.storage.s3.listing.ordered_listing import SYNC_RECORDS
from migrate.sync.record.column_pages import microseconds

_PAGE_ROWS = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BEHIND = SYNC_RECORDS[:-1] + chr(ord(SYNC_RECORDS[-1]) + 1)
"""No key below it comes behind this one."""


def without_records(pages: Iterable[Page], prefix: str) -> Iterator[Page]:
    """Leave out the records of syncs, where the listing of a prefix can hold them."""
    if not SYNC_RECORDS.startswith(prefix):
        yield from pages
        return
    for page in pages:
        if not page.keys or max(page.keys) < SYNC_RECORDS or min(page.keys) >= _BEHIND:
            yield page
            continue
        kept_indexes = [index for index, key in enumerate(page.keys) if not key.startswith(SYNC_RECORDS)]
        yield page if len(kept_indexes) == len(page.keys) else page.choose(kept_indexes)


def begun(pages: Iterator[Page]) -> Iterator[Page]:
    """Yield pages, of which the first is asked for now, by a thread: so both sides list at the same time."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="moveout-listing")
    first: Future[Page | None] = thread.submit(next, pages, None)
    thread.shutdown(wait=False)
    return _behind(first, pages)


def _behind(first: Future[Page | None], pages: Iterator[Page]) -> Iterator[Page]:
    page = first.result()
    if page is not None:
        yield page
        yield from pages


def in_order(pages: Iterable[Page]) -> Iterator[Page]:
    """Sort a listing by key, through a private file that SQLite removes."""
    rows_listed = (
        (
            summary.key,
            summary.size_bytes,
            summary.etag,
            microseconds(summary.modified),
            summary.storage_class,
        )
        for page in pages
        for summary in page.rows()
    )
    table = scratch_table(
        "CREATE TABLE listed (key TEXT PRIMARY KEY, size INTEGER, etag TEXT, modified INTEGER, class TEXT)"
        " WITHOUT ROWID",
        "INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?, ?)",
        rows_listed,
    )
    with closing(table) as rows:
        ordered = rows.execute("SELECT * FROM listed ORDER BY key")
        while piece := ordered.fetchmany(_PAGE_ROWS):
            keys, sizes, etags, modified, classes = map(list, zip(*piece, strict=True))
            times = [_EPOCH + timedelta(microseconds=summary) for summary in modified]
            yield Page(keys, sizes, etags, times, classes)

"""The second, independent enumeration: the bucket listed again at the end, compared with the inventory in
passing. Where the inventory is a listing of versions, so is this one, and the plain listing is compared with it.
"""

from __future__ import annotations

import queue
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from functools import partial
from itertools import chain, groupby
from typing import Protocol

from exporters.api import Gap, Loss
from exporters.bucket_api import Bucket, ObjectSummary, Page, no_end
from exporters.errors import SourceError, SourceGoneError, SourceNotAllowedError
from exporters.objects.listing.inventory import Totals
from exporters.objects.scratch_table import scratch_table


class Relisting:
    """Both listings are walked side by side by key; memory holds one shard, one page and what is new.

    ``count`` is what the first listing should have found: what the second found, without the objects that
    were written after the first began, with those that have vanished since. It differs from the first
    listing's count only if that one has overlooked objects.
    """

    def __init__(
        self,
        bucket: Bucket,
        totals: Totals,
        ahead: PagesAhead | None = None,
        refusal: SourceError | None = None,
    ) -> None:
        self._bucket = bucket
        self._since = datetime.fromisoformat(totals.listed_from)
        self.refusal = refusal
        """Why there is no second listing: the source may have been shut since the first."""
        self._files = ExitStack()
        if refusal is None:
            with self._unless_shut():
                self._second = _second_listing(bucket, totals, ahead, self._files)
        method = "a second listing of versions with a plain one" if totals.versions else "a second listing"
        self.how = f"{method}, less what was written since the first began, plus what was deleted"
        self.same = self.changed = self.vanished = self.added = self.overlooked = 0
        self._overlooked_names: list[str] = []

    @property
    def count(self) -> int:
        """Return the number of objects, see the class."""
        return self.same + self.changed + self.vanished + self.overlooked

    def compare(
        self,
        keys: Sequence[str],
        versions: Sequence[str],
        etags: Sequence[str | None],
        listed: Sequence[str],
    ) -> None:
        """Go on to the end of these rows of the inventory. ``versions`` are empty in a plain listing. ``etags``
        are those of what was read, None for what was found to be deleted; ``listed`` are the inventory's.
        """
        if self.refusal is not None:
            return
        with self._unless_shut():
            position = 0
            while position < len(keys):
                run = self._second.run(keys, versions, etags, position)
                self.same += run
                position += run
                if position == len(keys):
                    break
                etag, current_etag = etags[position], self._second.take(keys[position], versions[position])
                # The second listing may have passed here before the last units read what had been changed since.
                before = listed[position]
                position += 1
                if etag is None:
                    self.vanished += 1
                    self.added += current_etag not in {None, before}
                elif current_etag is None:
                    self.vanished += 1
                elif current_etag in {etag, before}:
                    self.same += 1
                else:
                    self.changed += 1

    def end(self) -> None:
        """Count what only the second listing has."""
        if self.refusal is None:
            with self._unless_shut():
                for summary in self._second.others():
                    self._see_new(summary)

    def close(self) -> None:
        """Drop its files."""
        self._files.close()

    @contextmanager
    def _unless_shut(self) -> Iterator[None]:
        try:
            yield
        except (SourceNotAllowedError, SourceGoneError) as exc:
            self.refusal = exc

    def gaps(self) -> Iterator[Gap]:
        """Yield what could not be looked at."""
        if self.refusal is not None:
            yield Gap(f"a second listing of {self._bucket.name}", "failed", str(self.refusal))

    def losses(self) -> Iterator[Loss]:
        """Yield what the bucket's users did meanwhile, which the bundle does not hold."""
        name = self._bucket.name
        for count, change in (
            (self.added, "objects were written after the listing and are not in the bundle"),
            (
                self.changed,
                "objects were overwritten after they were read; the bundle holds the older content",
            ),
            (self.vanished, "objects were deleted since the listing"),
        ):
            if count:
                yield Loss(name, "changes during the export", f"{count} {change}")
        for name in self._overlooked_names:
            yield Loss(name, "object", "the first listing did not show it, though it was there")

    def _see_new(self, summary: ObjectSummary) -> None:
        # Whole seconds: some servers round the times in listings.
        if summary.modified.timestamp() >= int(self._since.timestamp()):
            self.added += 1
            return
        if isinstance(self._bucket.head(summary).error, SourceGoneError):
            return  # deleted between one page and the other
        self.overlooked += 1
        if len(self._overlooked_names) < 1000:
            self._overlooked_names.append(summary.name)


class _SecondListing(Protocol):
    """The second listing."""

    def run(
        self, keys: Sequence[str], versions: Sequence[str], etags: Sequence[str | None], start: int
    ) -> int:
        """Take the rows from ``start`` on that equal those of the current page, compared as slices. Return how many."""
        ...

    def take(self, key: str, version: str) -> str | None:
        """Return the ETag of a version of a key, or None where it is not listed."""
        ...

    def others(self) -> Iterator[ObjectSummary]:
        """Yield what was listed and not taken; at the end."""
        ...


class _InOrder:
    """Both listings by key, read in step. New objects are few and are collected."""

    def __init__(self, pages: Iterator[Page]) -> None:
        self._pages = pages
        self._page = Page((), (), (), (), ())
        self._at = 0
        self._new: list[ObjectSummary] = []

    def run(
        self, keys: Sequence[str], versions: Sequence[str], etags: Sequence[str | None], start: int
    ) -> int:
        del versions
        if not self._is_there():
            return 0
        position, page = self._at, self._page
        count = min(len(page.keys) - position, len(keys) - start)
        same_keys = page.keys[position : position + count] == keys[start : start + count]
        if not same_keys or page.etags[position : position + count] != etags[start : start + count]:
            return 0
        self._at += count
        return count

    def take(self, key: str, version: str) -> str | None:
        del version
        while self._is_there() and self._page.keys[self._at] < key:
            self._new.append(self._pass())
        if not self._is_there() or self._page.keys[self._at] != key:
            return None
        return self._pass().etag

    def others(self) -> Iterator[ObjectSummary]:
        yield from self._new
        while self._is_there():
            yield self._pass()

    def _pass(self) -> ObjectSummary:
        self._at += 1
        return next(self._page.cut(self._at - 1, self._at).rows())

    def _is_there(self) -> bool:
        """Go on to the next page where this one is at its end; return whether there is a row."""
        while self._at == len(self._page.keys):
            page = next(self._pages, None)
            if page is None:
                return False
            self._page, self._at = page, 0
        return True


class _VersionsInOrder:
    """Both listings of versions by key, read in step. Within a key new versions come first, and deleted ones are
    missing.
    """

    def __init__(self, listing: Iterable[ObjectSummary]) -> None:
        self._keys = groupby(listing, key=lambda summary: summary.key)
        self._key = ""
        self._versions: dict[str, ObjectSummary] = {}
        self._new: list[ObjectSummary] = []
        self._ended = False

    def run(self, *_: object) -> int:
        return 0

    def take(self, key: str, version: str) -> str | None:
        while not self._ended and self._key < key:
            self._next_key()
        match = self._versions.pop(version, None) if self._key == key else None
        return None if match is None else match.etag

    def others(self) -> Iterator[ObjectSummary]:
        while not self._ended:
            yield from self._new
            self._new = []
            self._next_key()
        yield from self._new

    def _next_key(self) -> None:
        self._new += self._versions.values()
        self._key, group = next(self._keys, ("", iter(())))
        self._versions = {version.version_id: version for version in group}
        self._ended = not self._versions


class _AnyOrder:
    """A server that does not list by key: the second listing is in a temporary database, looked up by key."""

    def __init__(self, listing: Iterable[ObjectSummary]) -> None:
        rows = (
            (summary.key, summary.version_id, summary.etag, summary.modified.isoformat())
            for summary in listing
        )
        self._rows = scratch_table(
            "CREATE TABLE again (key TEXT, version TEXT, etag TEXT, modified TEXT, PRIMARY KEY (key, version))",
            "INSERT OR REPLACE INTO again VALUES (?, ?, ?, ?)",
            rows,
        )

    def run(self, *_: object) -> int:
        return 0

    def take(self, key: str, version: str) -> str | None:
        query = "DELETE FROM again WHERE key = ? AND version = ? RETURNING etag"
        match = self._rows.execute(query, (key, version)).fetchone()
        return None if match is None else str(match[0])

    def others(self) -> Iterator[ObjectSummary]:
        query = "SELECT key, version, etag, modified FROM again ORDER BY key"
        for key, version, etag, modified in self._rows.execute(query):
            yield ObjectSummary(key, 0, etag, datetime.fromisoformat(modified), version_id=version)

    def close(self) -> None:
        self._rows.close()


class PagesAhead:
    """The pages of a second listing in the order of keys, fetched from now on in the background."""

    def __init__(self, bucket: Bucket, totals: Totals) -> None:
        kinds = (True, False) if totals.versions else (False,)
        self._listings = {of: Background(_pages(bucket, totals, versions=of)) for of in kinds}

    def pages(self, *, versions: bool) -> Iterator[Page]:
        """Yield the pages of one of the listings; once."""
        return iter(self._listings[versions])

    def close(self) -> None:
        """Fetch no more."""
        for listing in self._listings.values():
            listing.close()


def _second_listing(
    bucket: Bucket, totals: Totals, ahead: PagesAhead | None, files: ExitStack
) -> _SecondListing:
    """Begin it. ``files`` closes what it keeps on disk."""
    if not totals.ordered:
        listing = bucket.pages(versions=bool(totals.versions), until=no_end, other_pages=True)
        rows = chain.from_iterable(page.rows() for page in listing)
        return files.enter_context(closing(_AnyOrder(rows)))
    pages = ahead.pages if ahead else partial(_pages, bucket, totals)
    if not totals.versions:
        return _InOrder(pages(versions=False))
    both = (chain.from_iterable(page.rows() for page in pages(versions=of)) for of in (True, False))
    return _VersionsInOrder(_with_plain(*both))


def _pages(bucket: Bucket, totals: Totals, *, versions: bool) -> Iterator[Page]:
    return pages_in_parts(bucket, totals.ends, totals.at_once, versions=versions)


def _with_plain(versions: Iterable[ObjectSummary], plain: Iterable[ObjectSummary]) -> Iterator[ObjectSummary]:
    """Yield the listing of versions, and what only the plain listing has, without a version. Both by key."""
    current = iter(plain)
    plain_row = next(current, None)
    for key, group in groupby(versions, key=lambda summary: summary.key):
        rows = list(group)
        while plain_row is not None and plain_row.key < key:
            yield plain_row
            plain_row = next(current, None)
        if plain_row is not None and plain_row.key == key:
            if all(row.is_delete_marker or row.etag != plain_row.etag for row in rows):
                rows.append(plain_row)
            plain_row = next(current, None)
        yield from rows
    while plain_row is not None:
        yield plain_row
        plain_row = next(current, None)


_BEHIND = 4
"""Pages that wait for their reader: few, but behind the first ones servers are quick."""
_TICK_SECONDS = 0.1


def pages_in_parts(bucket: Bucket, ends: Sequence[str], at_once: int, *, versions: bool) -> Iterator[Page]:
    """Yield all pages, in parts that end with these keys; ``at_once`` parts are in memory. Raises ``SourceError``."""
    if at_once <= 1 or not ends:
        yield from bucket.pages(versions=versions, until=no_end, other_pages=True)
        return
    with ThreadPoolExecutor(at_once, thread_name_prefix="moveout-listing") as executor:
        pending: deque[Future[list[Page]]] = deque()
        try:
            for after, until in zip(("", *ends), (*ends, None), strict=True):
                pending.append(executor.submit(_part, bucket, after, until, versions=versions))
                while len(pending) >= at_once:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _part(bucket: Bucket, after: str, until: str | None, *, versions: bool) -> list[Page]:
    pages = []
    for page in bucket.pages(versions=versions, after=(after, ""), until=lambda: until, other_pages=True):
        end = len(page.keys) if until is None else bisect_right(page.keys, until)
        pages.append(page if end == len(page.keys) else page.cut(0, end))
    return pages


class Background:
    """Pages that a thread fetches from now on, in order. For one reader; what goes wrong is raised to it."""

    def __init__(self, pages: Iterator[Page]) -> None:
        self._pages = pages
        self._queue: queue.Queue[Page | BaseException | None] = queue.Queue(_BEHIND)
        self._stop = threading.Event()
        threading.Thread(target=self._fetch, name="moveout-listing", daemon=True).start()

    def __iter__(self) -> Iterator[Page]:
        """Yield the pages; once."""
        while (page := self._queue.get()) is not None:
            if isinstance(page, BaseException):
                raise page
            yield page

    def close(self) -> None:
        """Fetch no more."""
        self._stop.set()

    def _fetch(self) -> None:
        try:
            for page in self._pages:
                self._put(page)
                if self._stop.is_set():
                    return
        except Exception as exc:
            self._put(exc)
        else:
            self._put(None)

    def _put(self, item: Page | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_TICK_SECONDS)
            except queue.Full:
                continue
            return

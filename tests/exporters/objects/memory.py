"""A listing in memory that keeps S3's rules: order by UTF-8 bytes, start-after, delimiter. For trying out how listings
are cut, with keys that no server here takes.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from exporters.bucket_api import Bound, ObjectSummary, Page, Position

_SECONDS = 0.0002
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryListing:
    """``rows`` in the order of the listing: a key and the ids of its versions, newest first; without versions one empty
    id. ``at_once`` is how many listings were under way together at most. ``shuffled``: not by key.
    """

    name, prefix, url, server = "memory", "", "s3://memory", "memory"
    lists_in_order = lists_from_anywhere = True
    not_utf_8 = ()

    def __init__(
        self, rows: dict[str, Sequence[str]], *, page_rows: int, shuffled: Sequence[str] | None = None
    ) -> None:
        self._keys = sorted(rows) if shuffled is None else list(shuffled)
        self._rows = [(key, version) for key in self._keys for version in rows[key]]
        self._versions = any(version for _, version in self._rows)
        self._page_rows = page_rows
        self._shuffled = shuffled is not None
        self._lock = threading.Lock()
        self._now = self.at_once = self.requests = 0

    def keeps_versions(self) -> bool:
        return self._versions

    def pages(
        self, *, versions: bool, after: Position = ("", ""), until: Bound, other_pages: bool = False
    ) -> Iterator[Page]:
        del other_pages
        assert versions == self._versions
        with self._lock:
            self._now += 1
            self.at_once = max(self.at_once, self._now)
        try:
            start = self._start(after)
            while True:
                self.requests += 1
                time.sleep(_SECONDS)
                rows = self._rows[start : start + self._page_rows]
                start += len(rows)
                yield self._page(rows)
                bound = until()
                beyond = bound is not None and rows and rows[-1][0] > bound
                if start >= len(self._rows) or beyond:
                    return
        finally:
            with self._lock:
                self._now -= 1

    def _start(self, after: Position) -> int:
        if after == ("", ""):
            return 0
        if after[1] and after in self._rows:
            return self._rows.index(after) + 1
        if self._shuffled:
            return max((at for at, row in enumerate(self._rows) if row[0] == after[0]), default=-1) + 1
        keys = [key for key, _ in self._rows]
        if after[1]:  # the version is gone
            return keys.index(after[0])
        return bisect_right(keys, after[0])

    def _page(self, rows: Sequence[Position]) -> Page:
        page = Page.of([ObjectSummary(key, 1, "etag", MOMENT, version_id=version) for key, version in rows])
        return (
            page if self._versions else Page(page.keys, page.sizes, page.etags, page.modified, page.classes)
        )

    def names(self, directory: str, after: str) -> tuple[Sequence[str], bool]:
        self.requests += 1
        inside = {
            key[len(directory) :] for key in self._keys if key.startswith(directory) and key != directory
        }
        entries = {directory + (one.partition("/")[0] + "/" if "/" in one else one) for one in inside}
        behind = sorted(one for one in entries if one > after)
        return behind[: self._page_rows], len(behind) <= self._page_rows

    def first_behind(self, after: str, until: str | None) -> str | None:
        self.requests += 1
        at = bisect_right(self._keys, after)
        key = self._keys[at] if at < len(self._keys) else None
        return key if key is not None and (until is None or key <= until) else None

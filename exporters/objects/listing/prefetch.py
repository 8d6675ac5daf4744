"""Listings taken ahead of their reader: several parts at once where they are known beforehand, or in the background."""

from __future__ import annotations

import queue
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from exporters.bucket_api import Bucket, Page

_BEHIND = 4
"""Pages that wait for their reader: few, but behind the first ones servers are quick."""
_TICK_SECONDS = 0.1


def pages(bucket: Bucket, ends: Sequence[str], at_once: int, *, versions: bool) -> Iterator[Page]:
    """Yield all pages, in parts that end with these keys; ``at_once`` parts are in memory. Raises ``SourceError``."""
    if at_once <= 1 or not ends:
        yield from bucket.pages(versions=versions, until=lambda: None)
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
    for page in bucket.pages(versions=versions, after=(after, ""), until=lambda: until):
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

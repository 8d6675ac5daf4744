"""A listing whose parts are known beforehand, taken several parts at once and yielded in order."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from exporters.bucket import Bucket, Page


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
    found = []
    for page in bucket.pages(versions=versions, after=(after, ""), until=lambda: until):
        end = len(page.keys) if until is None else bisect_right(page.keys, until)
        found.append(page if end == len(page.keys) else page.cut(0, end))
    return found

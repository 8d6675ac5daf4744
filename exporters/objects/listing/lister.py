"""A bucket listed into shards, in as many parallel parts as raise the rate.

It begins as one listing. Where that goes on for a while, what is left of it is cut, and the parts are listed at once.
When one of them ends, the rest of another is cut again. Parts do not overlap: each begins behind the key with which the
one before it ends. A server that turns out not to list by key is listed once more, in one part.
"""

from __future__ import annotations

import string
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from operator import le, lt
from typing import Protocol

import pyarrow as pa
from msgspec import Struct, field

from exporters.api import Workspace
from exporters.bucket_api import Bucket, Page, Position, beginning
from exporters.objects.listing import shards
from exporters.objects.listing.shards import ShardRange
from exporters.selection import Selection

PAGES = 8
"""How many pages of each listing are looked at before it is tried whether more of them bring more."""
_GROWS = 1.2


MOST_AT_ONCE = 16
_TICK_SECONDS = 0.05


class OutOfOrderError(Exception):
    """The server does not list by key."""


class Counter(Protocol):
    """Called with the table of every shard."""

    def add(self, shard: pa.Table) -> None:
        """Count the rows of a shard."""
        ...


class Range(Struct):
    """A part of the bucket: keys behind ``after``, up to and with ``until``, which may become an earlier one as long as
    that lies behind ``cursor``, where its listing stands. ``known``: versions of the first key that an earlier run has
    listed.
    """

    after: Position
    until: str | None
    known: frozenset[str] = frozenset()
    cursor: str = ""
    pages: int = 0
    ended: bool = False
    whole: bool = False
    """Whether nothing was found where it could be cut."""

    def __post_init__(self) -> None:
        self.cursor = self.after[0]


class Listing(Struct):
    """Lists one bucket into shards. ``in_order``: whether the server is assumed to list by key."""

    bucket: Bucket
    workspace: Workspace
    counter: Counter
    selection: Selection
    versions: bool
    in_order: bool
    shard_rows: int
    concurrency: ListingConcurrency = field(default_factory=lambda: ListingConcurrency(MOST_AT_ONCE))
    shard_ranges: list[ShardRange] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _number: int = 0

    def run(self, shard_ranges: Sequence[ShardRange], ranges: Iterable[Range]) -> list[ShardRange]:
        """List these ranges in addition to the shards of an earlier run; return all shards in order. Raises
        ``OutOfOrderError``, ``SourceError`` and what the workspace raises.
        """
        self.shard_ranges = list(shard_ranges)
        self._number = max((shard_range.number for shard_range in shard_ranges), default=-1) + 1
        waiting, active = list(ranges)[::-1], list[Range]()
        pending: set[Future[None]] = set()
        with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="moveout-listing") as executor:
            try:
                while waiting or pending:
                    while waiting and len(pending) < max(self.concurrency.target, 1):
                        active.append(waiting.pop())
                        pending.add(executor.submit(self._list, active[-1]))
                    finished, pending = wait(pending, timeout=_TICK_SECONDS, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                    active = [key_range for key_range in active if not key_range.ended]
                    if self.in_order and not waiting:
                        with self._lock:
                            at_once = self.concurrency.reconsider(len(pending))
                        waiting = self._cut(active, at_once - len(pending))
            finally:
                self._stop.set()
        return shards.ordered(self.shard_ranges) if self.in_order else self.shard_ranges

    def _cut(self, active: Sequence[Range], count: int) -> list[Range]:
        """Cut the range that has been listed for longest. Return ``count`` new ranges at most."""
        if count <= 0:
            return []
        divisible = [key_range for key_range in active if not key_range.whole and key_range.pages]
        if not divisible:
            return []
        longest = max(divisible, key=lambda key_range: key_range.pages)
        cuts = split_points(self.bucket, longest.cursor, longest.until, count)
        with self._lock:
            new_starts = [
                key for key in cuts if key > longest.cursor and (longest.until is None or key < longest.until)
            ]
            longest.pages = 1  # of what is left nothing is known yet
            if not new_starts or longest.ended:
                longest.whole = not cuts
                return []
            ends = [*new_starts[1:], longest.until]
            longest.until = new_starts[0]
        return [Range((key, ""), end) for key, end in zip(new_starts, ends, strict=True)][::-1]

    def _list(self, key_range: Range) -> None:
        held_rows = _Held(self.shard_rows, whole_keys=self.versions)
        after = key_range.after
        try:
            for page in self.bucket.pages(
                versions=self.versions, after=key_range.after, until=lambda: key_range.until
            ):
                if self._stop.is_set():
                    return
                held_rows.add(self._take(key_range, page))
                while (upto := held_rows.full()) is not None:
                    self._write(held_rows.drain(), after, upto)
                    after = upto
                if key_range.ended:
                    break
            if held_rows.rows:
                until = key_range.until
                self._write(held_rows.drain(everything=True), after, None if until is None else (until, ""))
        finally:
            key_range.ended = True

    def _take(self, key_range: Range, page: Page) -> Page:
        """Return what of a page belongs to the range."""
        keys = page.keys
        self.workspace.listed(len(keys))
        with self._lock:
            self.concurrency.note(len(keys))
            key_range.pages += 1
            if not self.in_order or not keys:
                return page
            if not all(map(le if self.versions else lt, [key_range.cursor, *keys], keys)):
                raise OutOfOrderError
            end = len(keys) if key_range.until is None else bisect_right(keys, key_range.until)
            key_range.ended = end < len(keys)
            key_range.cursor = keys[end - 1] if end else key_range.cursor
        page = page.cut(0, end) if key_range.ended else page
        return _without(page, key_range.after[0], key_range.known) if key_range.known else page

    def _write(self, pages: Sequence[Page], after: Position, upto: Position | None) -> None:
        with self._lock:
            shard_range = ShardRange(self._number, after, upto)
            self._number += 1
        table, data = shards.encode(pages, shard_range, self.selection, len(self.bucket.prefix))
        self.workspace.write(shards.name(shard_range.number), data)
        with self._lock:
            self.shard_ranges.append(shard_range)
            self.counter.add(table)


def _without(page: Page, key: str, versions: frozenset[str]) -> Page:
    """Return a page without these versions of a key: where the version after which a listing continues was deleted,
    servers begin with the key.
    """
    rows = [row for row in page.rows() if row.key != key or row.version_id not in versions]
    return Page.of(rows)


class _Held:
    """Rows that are not in a shard yet. ``whole_keys``: all versions of a key in one, unless they are very many."""

    def __init__(self, shard_rows: int, *, whole_keys: bool) -> None:
        self.rows = 0
        self._shard_rows, self._whole_keys = shard_rows, whole_keys
        self._pages: list[Page] = []
        self._end = 0

    def add(self, page: Page) -> None:
        if page.keys:
            self._pages.append(page)
            self.rows += len(page.keys)

    def full(self) -> Position | None:
        """Return where a shard ends, if there are enough rows for one; ``drain`` takes them."""
        if self.rows < self._shard_rows:
            return None
        self._end = self._shard_rows
        if self._whole_keys:
            last, _ = self._row(self._end - 1)
            most = 2 * self._shard_rows
            while self._end < min(self.rows, most) and self._row(self._end)[0] == last:
                self._end += 1
            if self._end == self.rows < most:
                return None  # the key may go on
            goes_on = self._end < self.rows and self._row(self._end)[0] == last
            return self._row(self._end - 1) if goes_on or self._end == self.rows else (last, "")
        return self._row(self._end - 1)[0], ""

    def drain(self, *, everything: bool = False) -> list[Page]:
        """Take the rows of the shard, or all that are left."""
        left = self.rows if everything else self._end
        self.rows -= left
        pages = []
        while left:
            page = self._pages[0]
            size = len(page.keys)
            if size <= left:
                pages.append(self._pages.pop(0))
            else:
                pages.append(page.cut(0, left))
                self._pages[0] = page.cut(left, size)
            left -= min(size, left)
        return pages

    def _row(self, number: int) -> tuple[str, str]:
        for page in self._pages:
            if number < len(page.keys):
                return page.keys[number], page.versions[number] if page.versions else ""
            number -= len(page.keys)
        raise IndexError(number)


class ListingConcurrency:
    """How many ranges are listed at once: doubled as long as the rate grows with it, then the last number that raised
    it. Not thread-safe: it is used under a lock.
    """

    def __init__(self, most: int) -> None:
        self.target = 1
        self._most = most
        self.worth = 1
        """The largest number so far that has raised the rate."""
        self._best_rate = 0.0
        self._settled = False
        self._restart()

    def note(self, rows: int) -> None:
        """Count a page."""
        self._rows += rows
        self._pages += 1

    def reconsider(self, active: int) -> int:
        """Return how many listings to run at once, where ``active`` are running."""
        if active < self.target or self._settled:
            self._restart()
        elif self._pages >= PAGES * self.target:
            rate = self._rows / max(time.monotonic() - self._since, 1e-9)
            if rate > self._best_rate * _GROWS:
                self._best_rate = rate
                self.worth = self.target
                self._settled = self.target == self._most
                self.target = min(2 * self.target, self._most)
            else:
                self.target //= 2
                self._settled = True
            self._restart()
        return self.target

    def _restart(self) -> None:
        self._rows = self._pages = 0
        self._since = time.monotonic()


# Where a listing can be cut. S3 lists only forwards and counts nothing beforehand, but it can begin anywhere.
# Directories are found by listing with a delimiter; within one that has too many entries for that, by asking which key
# comes first behind a guessed one.
_LAST = "\U0010ffff"
"""The last character there is."""
_LETTERS = sorted("-.=_~" + string.digits + string.ascii_letters)
_DEPTH = 8


def split_points(bucket: Bucket, cursor: str, until: str | None, count: int) -> list[str]:
    """Return at most ``count`` keys or directories between a key that was listed and the end of its range (None: of the
    bucket), in order. What is left of the range may be cut behind each of them. A few requests; nothing where nothing
    was found. Raises ``SourceError``.
    """
    common = bucket.prefix if until is None else beginning(cursor, until)
    name_start = common.rfind("/") + 1
    for _ in range(_DEPTH):
        directory = cursor[:name_start]
        names, is_complete = bucket.names(directory, cursor)
        names = [name for name in names if until is None or name < until]
        if not is_complete and names:
            return _between(bucket, names[-1], until, count) or _evenly_spaced(names, count)
        if names:
            return _evenly_spaced(names, count)
        following = cursor.find("/", name_start) + 1
        if not following:
            return []
        name_start = following
    return []


def _evenly_spaced(names: Sequence[str], most: int) -> list[str]:
    """Return so many of the names, at even distances."""
    count = min(most, len(names))
    return [names[len(names) * number // (count + 1)] for number in range(1, count + 1)]


def _between(bucket: Bucket, low: str, until: str | None, count: int) -> list[str]:
    """Cut a directory by characters: at the first position at which the keys behind ``low`` differ from it, at those
    characters that occur there.
    """
    difference = _first_difference(bucket, low, until)
    if difference is None:
        return []
    stem = low[:difference]
    above = [letter for letter in _LETTERS if letter > low[difference]]
    known = _count_existing(bucket, stem, above, until)
    return _evenly_spaced([stem + letter for letter in above[:known]], count)


def _first_difference(bucket: Bucket, low: str, until: str | None) -> int | None:
    """Return the first position at which some key behind differs from ``low``, by halving. If there are keys behind all
    that begin like ``low`` up to some position, there are also keys behind those that begin like it for longer.
    """
    least, most = len(beginning(low, until)) if until is not None else 0, len(low)
    if _first(bucket, low[:most], until) is None:
        return None
    while least + 1 < most:
        middle = (least + most) // 2
        if _first(bucket, low[:middle], until) is None:
            least = middle
        else:
            most = middle
    return most - 1


def _count_existing(bucket: Bucket, stem: str, above: Sequence[str], until: str | None) -> int:
    """Return how many of the characters come before the last one behind which there is a key."""
    least, most = 0, len(above)
    while least < most:
        middle = (least + most) // 2
        if bucket.first_behind(stem + above[middle], until) is None or (
            until is not None and stem + above[middle] >= until
        ):
            most = middle
        else:
            least = middle + 1
    return least


def _first(bucket: Bucket, stem: str, until: str | None) -> str | None:
    """Return the first key behind all that begin so."""
    behind = stem + _LAST
    return None if until is not None and behind >= until else bucket.first_behind(behind, until)

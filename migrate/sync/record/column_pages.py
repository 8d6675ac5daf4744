"""Listings and the record as columns, read page by page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from operator import lt

from msgspec import Struct

from exporters.bucket_api import ObjectSummary, Page

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_RUN = 16


class Known(Struct, frozen=True):
    """What the record says of a key: what was copied (times in microseconds since 1970), and which ETag it got at the
    destination. ``begun``: a run that did not end may have written it, so what lies there may be ours.
    """

    key: str
    etag: str = ""
    size_bytes: int = -1
    modified: int = -1
    destination_etag: str = ""
    begun: bool = False

    def is_of(self, source: ObjectSummary) -> bool:
        """Tell whether this is what the source has now. A time that differs is a change, too: of metadata."""
        if self.etag != source.etag or self.size_bytes != source.size_bytes:
            return False
        return is_moment(from_microseconds(self.modified), source.modified)

    def is_at(self, destination: ObjectSummary) -> bool:
        """Tell whether the destination has what was written there."""
        return self.destination_etag == destination.etag and self.size_bytes == destination.size_bytes


class KnownPage(Struct, frozen=True):
    """What the record says of many keys, by columns; see ``Known``. ``begun`` is empty where no key is."""

    keys: Sequence[str]
    etags: Sequence[str]
    sizes: Sequence[int]
    modified: Sequence[int]
    destination_etags: Sequence[str]
    begun: Sequence[bool] = ()

    @staticmethod
    def of(rows: Sequence[Known]) -> KnownPage:
        """Return the page of these rows."""
        columns = zip(
            *(
                (known.key, known.etag, known.size_bytes, known.modified, known.destination_etag, known.begun)
                for known in rows
            ),
            strict=True,
        )
        return KnownPage(*columns)

    def row(self, index: int) -> Known:
        """Return a row."""
        has_begun = bool(self.begun) and self.begun[index]
        return Known(
            self.keys[index],
            self.etags[index],
            self.sizes[index],
            self.modified[index],
            self.destination_etags[index],
            has_begun,
        )


class UnorderedError(Exception):
    """A listing is not by key; ``side`` says which. It must be sorted first."""

    def __init__(self, side: str) -> None:
        super().__init__(f"the {side}'s listing is not by key")
        self.side = side


class Listed:
    """A listing on its way. ``key`` is that of the row at hand, without the prefix; None after the end. Raises
    ``UnorderedError``.
    """

    def __init__(self, pages: Iterable[Page], skip: int, side: str) -> None:
        self._pages = iter(pages)
        self._skip, self._side = skip, side
        self.keys: Sequence[str] = ()
        self.at = 0
        self.key: str | None = None
        self.page = Page((), (), (), (), ())
        self._times: Sequence[int] | None = None
        self._last: str | None = None
        self._load()

    @property
    def times(self) -> Sequence[int]:
        """The times of the page in microseconds since 1970."""
        if self._times is None:
            self._times = [(moment - _EPOCH) // _MICROSECOND for moment in self.page.modified]
        return self._times

    def go(self, count: int) -> None:
        """Go on by so many rows of the page."""
        self.at += count
        if self.at < len(self.keys):
            self.key = self.keys[self.at]
        else:
            self._load()

    def row(self) -> ObjectSummary:
        """Return the row at hand, and go on."""
        page, index = self.page, self.at
        summary = ObjectSummary(
            page.keys[index], page.sizes[index], page.etags[index], page.modified[index], page.classes[index]
        )
        self.go(1)
        return summary

    def take(self, count: int) -> Page:
        """Return so many rows, keys without the prefix, and go on."""
        page, index, end = self.page, self.at, self.at + count
        taken_page = Page(
            self.keys[index:end],
            page.sizes[index:end],
            page.etags[index:end],
            page.modified[index:end],
            page.classes[index:end],
        )
        self.go(count)
        return taken_page

    def _load(self) -> None:
        for page in self._pages:
            if not page.keys:
                continue
            skip = self._skip
            keys = [key[skip:] for key in page.keys] if skip else page.keys
            if (self._last is not None and keys[0] <= self._last) or not all(map(lt, keys, keys[1:])):
                raise UnorderedError(self._side)
            self.page, self.keys, self.at, self.key, self._last = page, keys, 0, keys[0], keys[-1]
            self._times = None
            return
        self.keys, self.at, self.key = (), 0, None


class Noted:
    """The record on its way, like ``Listed``."""

    def __init__(self, pages: Iterable[KnownPage]) -> None:
        self._pages: Iterator[KnownPage] = (page for page in pages if page.keys)
        self.page = KnownPage((), (), (), (), ())
        self.at = 0
        self.key: str | None = None
        self._load()

    def go(self, count: int) -> None:
        """Go on by so many rows of the page."""
        self.at += count
        if self.at < len(self.page.keys):
            self.key = self.page.keys[self.at]
        else:
            self._load()

    def row(self) -> Known:
        """Return the row at hand, and go on."""
        summary = self.page.row(self.at)
        self.go(1)
        return summary

    def _load(self) -> None:
        page = next(self._pages, None)
        self.at = 0
        self.key = None if page is None else page.keys[0]
        self.page = page or KnownPage((), (), (), (), ())


def run_of_same(source_rows: Listed, destination_rows: Listed, recorded_rows: Noted) -> int:
    """Return how many rows, from the current ones on, are the same in both listings and the record, by comparing slices
    of columns. 0 where the current row has to be compared by itself.
    """
    known = recorded_rows.page
    if source_rows.key != destination_rows.key or source_rows.key != recorded_rows.key or known.begun:
        return 0
    most = min(
        len(source_rows.keys) - source_rows.at,
        len(destination_rows.keys) - destination_rows.at,
        len(known.keys) - recorded_rows.at,
    )
    same_count, size = 0, 1
    while same_count < most:
        size = min(size, most - same_count)
        source_start, destination_start, recorded_start = (
            source_rows.at + same_count,
            destination_rows.at + same_count,
            recorded_rows.at + same_count,
        )
        source_slice, destination_slice, recorded_slice = (
            slice(source_start, source_start + size),
            slice(destination_start, destination_start + size),
            slice(recorded_start, recorded_start + size),
        )
        is_same = (
            source_rows.keys[source_slice]
            == destination_rows.keys[destination_slice]
            == known.keys[recorded_slice]
            and source_rows.page.etags[source_slice] == known.etags[recorded_slice]
            and destination_rows.page.etags[destination_slice] == known.destination_etags[recorded_slice]
            and source_rows.page.sizes[source_slice]
            == destination_rows.page.sizes[destination_slice]
            == known.sizes[recorded_slice]
            and source_rows.times[source_slice] == known.modified[recorded_slice]
        )
        if is_same:
            same_count += size
            size = max(size * 4, _FIRST_RUN)
        elif size == 1:
            return same_count
        else:
            size = 1 if size <= _FIRST_RUN else size // 8
    return same_count


def microseconds(moment: datetime) -> int:
    """Return a moment in microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def is_moment(recorded: datetime, listed: datetime) -> bool:
    """Tell whether a recorded time is the listed one. The record has the time of the headers, in whole seconds, for an
    object that had changed since it was listed; listings are more precise.
    """
    return recorded in {listed, listed.replace(microsecond=0)}


def from_microseconds(moment: int) -> datetime:
    """Return what ``microseconds`` was given."""
    return _EPOCH + moment * _MICROSECOND

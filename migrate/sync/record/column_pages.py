"""Listings and the record as columns, gone through from page to page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import lt

from exporters.bucket_api import ObjectSummary, Page

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_RUN = 16


@dataclass(frozen=True, slots=True)
class Known:
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


@dataclass(frozen=True, slots=True)
class KnownPage:
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
            *((it.key, it.etag, it.size_bytes, it.modified, it.destination_etag, it.begun) for it in rows),
            strict=True,
        )
        return KnownPage(*columns)

    def row(self, at: int) -> Known:
        """Return a row."""
        begun = bool(self.begun) and self.begun[at]
        return Known(
            self.keys[at],
            self.etags[at],
            self.sizes[at],
            self.modified[at],
            self.destination_etags[at],
            begun,
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
            self._times = [(one - _EPOCH) // _MICROSECOND for one in self.page.modified]
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
        page, at = self.page, self.at
        found = ObjectSummary(
            page.keys[at], page.sizes[at], page.etags[at], page.modified[at], page.classes[at]
        )
        self.go(1)
        return found

    def take(self, count: int) -> Page:
        """Return so many rows, keys without the prefix, and go on."""
        page, at, end = self.page, self.at, self.at + count
        found = Page(
            self.keys[at:end],
            page.sizes[at:end],
            page.etags[at:end],
            page.modified[at:end],
            page.classes[at:end],
        )
        self.go(count)
        return found

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
        found = self.page.row(self.at)
        self.go(1)
        return found

    def _load(self) -> None:
        page = next(self._pages, None)
        self.at = 0
        self.key = None if page is None else page.keys[0]
        self.page = page or KnownPage((), (), (), (), ())


def run_of_same(ours: Listed, theirs: Listed, noted: Noted) -> int:
    """Return of how many rows from those at hand it can be seen at once that they are the same on both sides, as the
    record says; 0 where the row itself has to be looked at. Columns that are no lists are not seen through.
    """
    known = noted.page
    if ours.key != theirs.key or ours.key != noted.key or known.begun:
        return 0
    most = min(len(ours.keys) - ours.at, len(theirs.keys) - theirs.at, len(known.keys) - noted.at)
    done, size = 0, 1
    while done < most:
        size = min(size, most - done)
        one, other, third = ours.at + done, theirs.at + done, noted.at + done
        mine, its, last = slice(one, one + size), slice(other, other + size), slice(third, third + size)
        same = (
            ours.keys[mine] == theirs.keys[its] == known.keys[last]
            and ours.page.etags[mine] == known.etags[last]
            and theirs.page.etags[its] == known.destination_etags[last]
            and ours.page.sizes[mine] == theirs.page.sizes[its] == known.sizes[last]
            and ours.times[mine] == known.modified[last]
        )
        if same:
            done += size
            size = max(size * 4, _FIRST_RUN)
        elif size == 1:
            return done
        else:
            size = 1 if size <= _FIRST_RUN else size // 8
    return done


def microseconds(moment: datetime) -> int:
    """Return a moment in microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def is_moment(kept: datetime, listed: datetime) -> bool:
    """Tell whether a time that was kept is the one that is listed. Headers tell whole seconds, listings more: of what
    had changed since it was listed only the former is known.
    """
    return kept in {listed, listed.replace(microsecond=0)}


def from_microseconds(moment: int) -> datetime:
    """Return what ``microseconds`` was given."""
    return _EPOCH + moment * _MICROSECOND

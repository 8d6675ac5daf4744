"""What there is to do about whole histories: every version and delete marker of a key, oldest first, on both sides and
in the record. Pure, and streamed by key. Which versions are wanted was decided before (``choice``).

A server only ever adds versions on top, so what the destination has of a key must be the beginning of what the source
has,
but for what was deleted at the source since. What is new is added in its order; what cannot be in its place any more is
never put elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Generic, TypeVar

from exporters.bucket_api import NULL_VERSION, ObjectSummary, Page
from migrate.restore.objects.versions import Markers
from migrate.storage.s3.listing.ordered_listing import ListedVersions
from migrate.sync.diff import AGAIN, Do, OnSame, SyncStep
from migrate.sync.record.column_pages import UnorderedError, from_microseconds, is_moment
from migrate.sync.versions.version_filter import Judged

ANOTHER = "a version of its own"
"""Why the destination has a version of a key that the source has, too: nothing is known of where it came from."""
MARKER = "-"
"""What stands in digests instead of the ETag of a delete marker."""
OTHERS = "the destination has another history of this key, which this sync did not write; --overwrite goes on above it"
NOT_CURRENT = "; what is current at the destination is older"
"""What it comes to where the newest version of a key is not wanted, and others are."""
_LATE = "a later version is at the destination already; a version can only be added on top"

Histories = Iterable[tuple[str, Sequence[ObjectSummary]]]
"""Keys in order, without the prefix, each with its versions, oldest first."""


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """What the record says of a version: what was copied, and which version it became."""

    version_id: str
    etag: str
    size_bytes: int
    modified: int
    is_delete_marker: bool
    destination_version: str

    def is_of(self, source: ObjectSummary) -> bool:
        """Tell whether this is a version of the source. The one without an id of its own can be replaced; of all others
        the id is enough, and not every server keeps their times.
        """
        ours = (self.version_id, self.etag, self.size_bytes)
        if ours != (source.version_id, source.etag, source.size_bytes):
            return False
        return self.version_id != NULL_VERSION or is_moment(from_microseconds(self.modified), source.modified)

    def summary(self, key: str) -> ObjectSummary:
        """Return the version as the source had it."""
        return ObjectSummary(
            key,
            self.size_bytes,
            self.etag,
            from_microseconds(self.modified),
            version_id=self.version_id,
            is_delete_marker=self.is_delete_marker,
        )


T = TypeVar("T")
KnownHistories = Iterable[tuple[str, Sequence[KnownVersion]]]


def by_key(pages: Iterable[Page], skip: int, side: str) -> Iterator[tuple[str, Sequence[ObjectSummary]]]:
    """Gather a listing of versions, newest first, into histories. Raises ``UnorderedError``."""
    last: str | None = None
    rows = (row for page in pages for row in page.rows())
    for key, group in groupby(rows, key=attrgetter("key")):
        if last is not None and key <= last:
            raise UnorderedError(side)
        last = key
        yield key[skip:], list(group)[::-1]


def in_order(pages: Iterable[Page], skip: int) -> Iterator[tuple[str, Sequence[ObjectSummary]]]:
    """Gather a listing that is not by key."""
    listed = ListedVersions(row for page in pages for row in page.rows())
    try:
        for key in listed.unmarked():
            yield key[skip:], listed.of(key)[0]
    finally:
        listed.close()


@dataclass(slots=True)
class Decision:
    """``same``: versions of the source, each with what it is at the destination; and the steps about all others."""

    same: list[tuple[ObjectSummary, ObjectSummary]] = field(default_factory=list)
    steps: list[SyncStep] = field(default_factory=list)


def decide(
    key: str,
    judged: Sequence[Judged],
    destination: Sequence[ObjectSummary],
    known: Sequence[KnownVersion],
    markers: Markers,
    *,
    overwrite: bool = False,
) -> Decision:
    """Decide about one key of which something is wanted. What is not stays as it is on both sides."""
    found = Decision()
    there = {one.version_id: one for one in destination}
    ours = {one.destination_version: one for one in known}
    versions = [one for one, _ in judged]
    became = list(_in_place(versions, [_at_destination(one, known, there) for one in versions], destination))
    source = _told(judged, became)
    pairs = zip(source, became, strict=True)
    found.same = [(one, its) for (one, why), its in pairs if its is not None and not why]
    paired = {its.version_id for its in became if its is not None}
    top = max((at for at, its in enumerate(became) if its is not None), default=-1)
    found.steps += _below(key, source[: top + 1], became, markers)
    begun = _begun(destination, ours)
    tail, left_out = _tail(key, source[top + 1 :], destination[: len(destination) - len(begun)], markers)
    found.steps += left_out
    fits = len(begun) <= len(tail) and all(map(_is_alike, begun, tail))
    if fits:
        found.steps += [_look(key, *pair) for pair in zip(tail, begun, strict=False)]
        tail = tail[len(begun) :]
    if fits or overwrite:
        found.steps += [_copy(key, one, len(destination) + number, known) for number, one in enumerate(tail)]
    else:
        found.steps += [SyncStep(Do.STUCK, key, OTHERS, one) for one in tail]
    adopted = {one.version_id for one in begun} if fits else set()
    for one in destination:
        if one.version_id not in paired | adopted:
            found.steps.append(_extra(key, one, ours.get(one.version_id), versions))
    found.steps += [
        SyncStep(Do.FORGET, key, "", one.summary(key), known=True)
        for one in known
        if one.destination_version not in there and not any(one.is_of(it) for it in versions)
    ]
    return found


def _at_destination(
    one: ObjectSummary, known: Sequence[KnownVersion], there: dict[str, ObjectSummary]
) -> ObjectSummary | None:
    """Return the version that a version of the source has become, None where none is there."""
    found = (there.get(row.destination_version) for row in known if row.is_of(one))
    return next((its for its in found if its is not None), None)


def _in_place(
    source: Sequence[ObjectSummary],
    became: Sequence[ObjectSummary | None],
    destination: Sequence[ObjectSummary],
) -> Iterator[ObjectSummary | None]:
    """Yield what the versions have become. The one without an id comes to stand on top each time that it is replaced;
    where it lies below what is older, it is not in its place.
    """
    locations = {one.version_id: number for number, one in enumerate(destination)}
    top = -1
    for one, its in zip(source, became, strict=True):
        at = -1 if its is None else locations[its.version_id]
        moved = one.version_id == NULL_VERSION and at < top
        yield None if moved else its
        top = max(top, at)


def _told(judged: Sequence[Judged], became: Sequence[ObjectSummary | None]) -> Sequence[Judged]:
    """Say of a newest version that is not wanted what that comes to where others are."""
    if not judged or not judged[-1][1] or became[-1] is not None or all(why for _, why in judged):
        return judged
    one, why = judged[-1]
    return [*judged[:-1], (one, why + NOT_CURRENT)]


def _below(
    key: str, source: Sequence[Judged], became: Sequence[ObjectSummary | None], markers: Markers
) -> Iterator[SyncStep]:
    """Yield steps about what is not wanted up to the last version that is there, and what is missing below it."""
    before: ObjectSummary | None = None
    for (one, why), its in zip(source, became, strict=False):
        if its is None and (said := why or markers.refuse(one, before)):
            yield SyncStep(Do.EXCLUDED, key, said, one)
            continue
        if its is None:
            yield SyncStep(Do.STUCK, key, _LATE, one)
        elif why:
            yield SyncStep(Do.EXCLUDED, key, why, one, its, known=True)
        before = one


def _tail(
    key: str, source: Sequence[Judged], destination: Sequence[ObjectSummary], markers: Markers
) -> tuple[list[ObjectSummary], list[SyncStep]]:
    """Return what is to be added on top, and steps about what is not wanted, and delete markers that the destination
    does
    not make.
    """
    kept: list[ObjectSummary] = []
    left_out = []
    before = destination[-1] if destination else None
    for one, unwanted in source:
        if why := unwanted or markers.refuse(one, before):
            left_out.append(SyncStep(Do.EXCLUDED, key, why, one))
        else:
            kept.append(one)
            before = one
    return kept, left_out


def _begun(destination: Sequence[ObjectSummary], ours: dict[str, KnownVersion]) -> Sequence[ObjectSummary]:
    """Return what lies above all that the record knows: a run that was killed may have written it."""
    last = max((at for at, one in enumerate(destination) if one.version_id in ours), default=-1)
    return destination[last + 1 :]


def _is_alike(one: ObjectSummary, other: ObjectSummary) -> bool:
    return one.is_delete_marker == other.is_delete_marker and one.size_bytes == other.size_bytes


def _look(key: str, one: ObjectSummary, its: ObjectSummary) -> SyncStep:
    return SyncStep(Do.LOOK, key, "there already", one, its)


def _copy(key: str, one: ObjectSummary, before: int, known: Sequence[KnownVersion]) -> SyncStep:
    is_known = any(row.is_of(one) for row in known)
    return SyncStep(
        Do.COPY, key, "missing" if is_known else "new", one, ours=True, known=is_known, before=before
    )


def _extra(
    key: str, its: ObjectSummary, known: KnownVersion | None, versions: Sequence[ObjectSummary]
) -> SyncStep:
    if known is None:
        return SyncStep(Do.EXTRA, key, ANOTHER if versions else "", None, its)
    moved = any(known.is_of(one) for one in versions)  # which the source has, in another location
    return SyncStep(Do.EXTRA, key, ANOTHER if moved else "", known.summary(key), its, known=True)


@dataclass(slots=True)
class HistoryComparison:
    """One walk; see ``compare.Comparison``, of which this is the like for histories. Counted are versions."""

    foreign: Callable[[str], bool]
    markers: Markers
    overwrite: bool = False
    see: Callable[[Sequence[str]], object] | None = None
    recheck: bool = False
    on_same: OnSame | None = None
    listed: int = 0
    listed_bytes: int = 0
    same: int = 0

    def steps(
        self, source: Iterable[tuple[str, Sequence[Judged]]], destination: Histories, known: KnownHistories
    ) -> Iterator[SyncStep | int]:
        """Yield what is to be done, by key, and between that how many versions are the same. Raises
        ``UnorderedError``.
        """
        ours, theirs, noted = _Stream(iter(source)), _Stream(iter(destination)), _Stream(iter(known))
        while (key := _least(ours.key, theirs.key, noted.key)) is not None:
            yield from self._steps(key, ours.take(key), theirs.take(key), noted.take(key))

    def _steps(
        self,
        key: str,
        source: Sequence[Judged],
        destination: Sequence[ObjectSummary],
        known: Sequence[KnownVersion],
    ) -> Iterator[SyncStep | int]:
        if not source and destination and self.foreign(key):
            return
        self.listed += len(source)
        self.listed_bytes += sum(one.size_bytes for one, _ in source)
        if source and all(why for _, why in source):
            yield from (SyncStep(Do.EXCLUDED, key, why, one) for one, why in source)
            return
        if source and self.see is not None:
            self.see([key])
        decided = decide(key, source, destination, known, self.markers, overwrite=self.overwrite)
        again = [pair for pair in decided.same if self.recheck and not pair[0].is_delete_marker]
        same = [pair for pair in decided.same if not self.recheck or pair[0].is_delete_marker]
        self._take(key, same)
        if same:
            yield len(same)
        for one, its in again:
            yield SyncStep(Do.LOOK, key, AGAIN, one, its, ours=True, known=True)
        yield from decided.steps

    def _take(self, key: str, same: Sequence[tuple[ObjectSummary, ObjectSummary]]) -> None:
        self.same += len(same)
        if same and self.on_same is not None:
            sizes = [one.size_bytes for one, _ in same]
            ours, theirs = ([_etag(one) for one in side] for side in zip(*same, strict=True))
            self.on_same([key] * len(same), sizes, ours, theirs)


def _etag(one: ObjectSummary) -> str:
    return MARKER if one.is_delete_marker else one.etag


def _least(*keys: str | None) -> str | None:
    return min((key for key in keys if key is not None), default=None)


class _Stream(Generic[T]):
    """Histories on their way. ``key`` is the one at hand, None after the end."""

    def __init__(self, histories: Iterator[tuple[str, Sequence[T]]]) -> None:
        self._histories = histories
        self.key: str | None = None
        self._rows: Sequence[T] = ()
        self._go_on()

    def _go_on(self) -> None:
        self.key, self._rows = next(self._histories, (None, ()))

    def take(self, key: str) -> Sequence[T]:
        """Return what there is of a key that is at hand, or nothing."""
        if self.key != key:
            return ()
        rows = self._rows
        self._go_on()
        return rows

"""What there is to do about whole histories: every version and delete marker of a key, oldest first, on both sides and
in the record. Pure, and streamed by key. Which versions are selected was decided before (``version_filter``).

A server only ever adds versions on top. So what the destination has of a key must be the beginning of what the source
has, but for what was deleted at the source since. What is new is added in its order; what cannot be in its place any
more is never put elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Generic, TypeVar

from msgspec import Struct, field

from exporters.bucket_api import NULL_VERSION, ObjectSummary, Page
from migrate.restore.objects.destination_terms import Markers
from migrate.storage.s3.listing.ordered_listing import ListedVersions
from migrate.sync.diff import AGAIN, Action, OnSame, SyncStep
from migrate.sync.record.column_pages import UnorderedError, from_microseconds, is_moment
from migrate.sync.versions.version_filter import Judged

ANOTHER = "a version of its own"
"""Why the destination has a version of a key that the source has, too: nothing is known of where it came from."""
MARKER = "-"
"""A delete marker has this in digests, in place of an ETag."""
OTHERS = "the destination has another history of this key, which this sync did not write; --overwrite goes on above it"
NOT_CURRENT = "; what is current at the destination is older"
"""What it comes to where the newest version of a key is not selected, and others are."""
_LATE = "a later version is at the destination already; a version can only be added on top"

Histories = Iterable[tuple[str, Sequence[ObjectSummary]]]
"""Keys in order, without the prefix, each with its versions, oldest first."""


class KnownVersion(Struct, frozen=True):
    """What the record says of a version: what was copied, and which version it became."""

    version_id: str
    etag: str
    size_bytes: int
    modified: int
    is_delete_marker: bool
    destination_version: str

    def is_of(self, source: ObjectSummary) -> bool:
        """Tell whether this is a version of the source. A version without an id can be replaced, so its time counts,
        too. Not every server keeps the times of the others.
        """
        recorded = (self.version_id, self.etag, self.size_bytes)
        if recorded != (source.version_id, source.etag, source.size_bytes):
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


class Decision(Struct):
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
    """Decide about one key of which some version is selected. Versions that are not selected stay on both sides."""
    decision = Decision()
    destination_versions = {version.version_id: version for version in destination}
    known_versions = {version.destination_version: version for version in known}
    versions = [version for version, _ in judged]
    counterparts = list(
        _in_place(
            versions,
            [_at_destination(version, known, destination_versions) for version in versions],
            destination,
        )
    )
    source = _mark_not_current(judged, counterparts)
    pairs = zip(source, counterparts, strict=True)
    decision.same = [
        (version, counterpart)
        for (version, reason), counterpart in pairs
        if counterpart is not None and not reason
    ]
    paired = {counterpart.version_id for counterpart in counterparts if counterpart is not None}
    top = max(
        (number_ for number_, counterpart in enumerate(counterparts) if counterpart is not None), default=-1
    )
    decision.steps += _below(key, source[: top + 1], counterparts, markers)
    begun_versions = _begun(destination, known_versions)
    tail, left_out = _tail(
        key, source[top + 1 :], destination[: len(destination) - len(begun_versions)], markers
    )
    decision.steps += left_out
    fits = len(begun_versions) <= len(tail) and all(map(_is_alike, begun_versions, tail))
    if fits:
        decision.steps += [_look(key, *pair) for pair in zip(tail, begun_versions, strict=False)]
        tail = tail[len(begun_versions) :]
    if fits or overwrite:
        decision.steps += [
            _copy(key, version, len(destination) + number, known) for number, version in enumerate(tail)
        ]
    else:
        decision.steps += [SyncStep(Action.STUCK, key, OTHERS, version) for version in tail]
    adopted = {version.version_id for version in begun_versions} if fits else set()
    for version in destination:
        if version.version_id not in paired | adopted:
            decision.steps.append(_extra(key, version, known_versions.get(version.version_id), versions))
    decision.steps += [
        SyncStep(Action.FORGET, key, "", version.summary(key), known=True)
        for version in known
        if version.destination_version not in destination_versions
        and not any(version.is_of(version_) for version_ in versions)
    ]
    return decision


def _at_destination(
    version: ObjectSummary, known: Sequence[KnownVersion], destination_versions: dict[str, ObjectSummary]
) -> ObjectSummary | None:
    """Return the version that a version of the source has become, None where none is there."""
    counterparts = (destination_versions.get(row.destination_version) for row in known if row.is_of(version))
    return next((counterpart for counterpart in counterparts if counterpart is not None), None)


def _in_place(
    source: Sequence[ObjectSummary],
    counterparts: Sequence[ObjectSummary | None],
    destination: Sequence[ObjectSummary],
) -> Iterator[ObjectSummary | None]:
    """Yield what the versions have become. The one without an id comes to stand on top each time that it is replaced;
    where it lies below what is older, it is not in its place.
    """
    locations = {version.version_id: number for number, version in enumerate(destination)}
    top = -1
    for version, counterpart in zip(source, counterparts, strict=True):
        location = -1 if counterpart is None else locations[counterpart.version_id]
        is_moved = version.version_id == NULL_VERSION and location < top
        yield None if is_moved else counterpart
        top = max(top, location)


def _mark_not_current(
    judged: Sequence[Judged], counterparts: Sequence[ObjectSummary | None]
) -> Sequence[Judged]:
    """Extend the reason of a newest version that is not selected, while older ones are: see ``NOT_CURRENT``."""
    if not judged or not judged[-1][1] or counterparts[-1] is not None or all(reason for _, reason in judged):
        return judged
    version, reason = judged[-1]
    return [*judged[:-1], (version, reason + NOT_CURRENT)]


def _below(
    key: str, source: Sequence[Judged], counterparts: Sequence[ObjectSummary | None], markers: Markers
) -> Iterator[SyncStep]:
    """Yield steps about what is not selected up to the last version that is there, and what is missing below it."""
    before: ObjectSummary | None = None
    for (version, reason), counterpart in zip(source, counterparts, strict=False):
        if counterpart is None and (refusal := reason or markers.refuse(version, before)):
            yield SyncStep(Action.EXCLUDED, key, refusal, version)
            continue
        if counterpart is None:
            yield SyncStep(Action.STUCK, key, _LATE, version)
        elif reason:
            yield SyncStep(Action.EXCLUDED, key, reason, version, counterpart, known=True)
        before = version


def _tail(
    key: str, source: Sequence[Judged], destination: Sequence[ObjectSummary], markers: Markers
) -> tuple[list[ObjectSummary], list[SyncStep]]:
    """Return what is to be added on top, and steps about what is not selected, and delete markers that the destination
    does not make.
    """
    kept_versions: list[ObjectSummary] = []
    left_out = []
    before = destination[-1] if destination else None
    for version, unwanted in source:
        if reason := unwanted or markers.refuse(version, before):
            left_out.append(SyncStep(Action.EXCLUDED, key, reason, version))
        else:
            kept_versions.append(version)
            before = version
    return kept_versions, left_out


def _begun(
    destination: Sequence[ObjectSummary], known_versions: dict[str, KnownVersion]
) -> Sequence[ObjectSummary]:
    """Return what lies above all that the record has: a run that was killed may have written it."""
    last = max(
        (number for number, version in enumerate(destination) if version.version_id in known_versions),
        default=-1,
    )
    return destination[last + 1 :]


def _is_alike(version: ObjectSummary, other: ObjectSummary) -> bool:
    return version.is_delete_marker == other.is_delete_marker and version.size_bytes == other.size_bytes


def _look(key: str, version: ObjectSummary, counterpart: ObjectSummary) -> SyncStep:
    return SyncStep(Action.LOOK, key, "there already", version, counterpart)


def _copy(key: str, version: ObjectSummary, before: int, known: Sequence[KnownVersion]) -> SyncStep:
    is_known = any(row.is_of(version) for row in known)
    return SyncStep(
        Action.COPY, key, "missing" if is_known else "new", version, ours=True, known=is_known, before=before
    )


def _extra(
    key: str, counterpart: ObjectSummary, known: KnownVersion | None, versions: Sequence[ObjectSummary]
) -> SyncStep:
    if known is None:
        return SyncStep(Action.EXTRA, key, ANOTHER if versions else "", None, counterpart)
    is_moved = any(known.is_of(version) for version in versions)  # which the source has, in another location
    return SyncStep(
        Action.EXTRA, key, ANOTHER if is_moved else "", known.summary(key), counterpart, known=True
    )


class HistoryComparison(Struct):
    """One walk over whole histories, as ``diff.Comparison`` is over current objects. It counts versions."""

    is_unselected: Callable[[str], bool]
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
        source_rows, destination_rows, recorded_rows = (
            _Stream(iter(source)),
            _Stream(iter(destination)),
            _Stream(iter(known)),
        )
        while (key := _least(source_rows.key, destination_rows.key, recorded_rows.key)) is not None:
            yield from self._steps(
                key, source_rows.take(key), destination_rows.take(key), recorded_rows.take(key)
            )

    def _steps(
        self,
        key: str,
        source: Sequence[Judged],
        destination: Sequence[ObjectSummary],
        known: Sequence[KnownVersion],
    ) -> Iterator[SyncStep | int]:
        if not source and destination and self.is_unselected(key):
            return
        self.listed += len(source)
        self.listed_bytes += sum(version.size_bytes for version, _ in source)
        if source and all(reason for _, reason in source):
            yield from (SyncStep(Action.EXCLUDED, key, reason, version) for version, reason in source)
            return
        if source and self.see is not None:
            self.see([key])
        decided = decide(key, source, destination, known, self.markers, overwrite=self.overwrite)
        pairs_to_inspect = [pair for pair in decided.same if self.recheck and not pair[0].is_delete_marker]
        same_pairs = [pair for pair in decided.same if not self.recheck or pair[0].is_delete_marker]
        self._take(key, same_pairs)
        if same_pairs:
            yield len(same_pairs)
        for version, counterpart in pairs_to_inspect:
            yield SyncStep(Action.LOOK, key, AGAIN, version, counterpart, ours=True, known=True)
        yield from decided.steps

    def _take(self, key: str, same_pairs: Sequence[tuple[ObjectSummary, ObjectSummary]]) -> None:
        self.same += len(same_pairs)
        if same_pairs and self.on_same is not None:
            sizes = [version.size_bytes for version, _ in same_pairs]
            source_page, destination_page = (
                [_etag(version) for version in side] for side in zip(*same_pairs, strict=True)
            )
            self.on_same([key] * len(same_pairs), sizes, source_page, destination_page)


def _etag(version: ObjectSummary) -> str:
    return MARKER if version.is_delete_marker else version.etag


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

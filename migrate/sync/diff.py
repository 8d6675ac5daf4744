"""What a sync has to do: walks the source's listing, the destination's and the record side by side, by key. Pure, and
streamed: memory holds one page of each.

Nearly all rows are the same on all three nearly always. So runs of them are compared as columns, at the speed of
comparing lists. Only where they differ are rows compared one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum

from msgspec import Struct

from exporters.bucket_api import ObjectSummary, Page
from migrate.sync.record.column_pages import Known, KnownPage, Listed, Noted, run_of_same

AGAIN = "looked at again"
"""Why there is a step about an object that is the same as far as listings show."""


class Action(StrEnum):
    """The action that a key needs."""

    COPY = "copy"
    LOOK = "look"
    """The destination has an object of that key. The record does not say whether it is the same."""
    EXTRA = "extra"
    """Only the destination has it."""
    FORGET = "forget"
    """Only the record has it. It was copied, and both sides deleted it."""
    STUCK = "stuck"
    """A version that can no longer be placed in its order at the destination."""
    EXCLUDED = "excluded"
    """The filters exclude it. Both sides stay as they are."""


class SyncStep(Struct, frozen=True):
    """One action on one key, relative to both prefixes, with its reason. ``ours``: what lies at the destination was
    written by this sync. ``odd``: see ``exporters.objects.key_oddities``. ``known``: the record has a row of it.
    ``before``: how many versions of the key the destination has, where the step is about one more.
    """

    do: Action
    key: str
    why: str
    source: ObjectSummary | None = None
    destination: ObjectSummary | None = None
    ours: bool = False
    known: bool = False
    odd: tuple[str, ...] = ()
    before: int = 0

    @property
    def name(self) -> str:
        """The key, and which version of the source where the step is about one."""
        version = self.source.version_id if self.source is not None else ""
        return f"{self.key} (version {version})" if version else self.key

    @property
    def marks(self) -> bool:
        """Whether the step is about a delete marker of the source."""
        return self.source is not None and self.source.is_delete_marker


def source_of(step: SyncStep) -> ObjectSummary:
    """Return the object of the source that ``COPY`` and ``LOOK`` are about."""
    assert step.source is not None
    return step.source


def destination_of(step: SyncStep) -> ObjectSummary:
    """Return the object of the destination that ``LOOK`` and ``EXTRA`` are about."""
    assert step.destination is not None
    return step.destination


OnSame = Callable[[Sequence[str], Sequence[int], Sequence[str], Sequence[str]], object]
"""Called with objects that are the same: keys, sizes, ETags of both sides."""


class Comparison(Struct):
    """One walk. ``excludes`` returns why a key of the source is not selected. ``is_unselected`` tells whether a key
    that only the destination has is not. ``chooses``: a key of the record may be unselected, too. It counts the
    source's objects, and those that are the same.
    """

    source_prefix: str
    destination_prefix: str
    excludes: Callable[[str, ObjectSummary], str | None]
    is_unselected: Callable[[str], bool]
    chooses: bool = False
    recheck: bool = False
    """Whether what seems the same is to be looked at, too: listings do not show tags."""
    see: Callable[[Sequence[str]], object] | None = None
    """Called with all keys of the source that are selected, some at a time."""
    on_same: OnSame | None = None
    listed: int = 0
    listed_bytes: int = 0
    same: int = 0

    def steps(
        self, source: Iterable[Page], destination: Iterable[Page], known: Iterable[KnownPage]
    ) -> Iterator[SyncStep | int]:
        """Yield what is to be done, by key, and between that how many keys in a row are the same everywhere. Raises
        ``UnorderedError``.
        """
        source_rows = Listed(source, len(self.source_prefix), "source")
        destination_rows = Listed(destination, len(self.destination_prefix), "destination")
        recorded_rows = Noted(known)
        while True:
            keys = [
                rows.key for rows in (source_rows, destination_rows, recorded_rows) if rows.key is not None
            ]
            if not keys:
                return
            if (
                not (self.chooses or self.recheck)
                and len(keys) == 3
                and (count := run_of_same(source_rows, destination_rows, recorded_rows))
            ):
                self._take(source_rows.take(count), destination_rows.take(count))
                recorded_rows.go(count)
                yield count
                continue
            key = min(keys)
            source_object = source_rows.row() if source_rows.key == key else None
            destination_object = destination_rows.row() if destination_rows.key == key else None
            before = recorded_rows.row() if recorded_rows.key == key else None
            yield self._step(key, source_object, destination_object, before) or 1

    def _take(self, source_page: Page, destination_page: Page) -> None:
        """Count objects that are the same."""
        self.listed += len(source_page.keys)
        self.listed_bytes += sum(source_page.sizes)
        if self.see is not None:
            self.see(source_page.keys)
        self.same += len(source_page.keys)
        if self.on_same is not None:
            self.on_same(source_page.keys, source_page.sizes, source_page.etags, destination_page.etags)

    def _step(
        self, key: str, source: ObjectSummary | None, destination: ObjectSummary | None, known: Known | None
    ) -> SyncStep | None:
        has_row = known is not None and known.size_bytes >= 0
        if source is None:
            if destination is not None:
                return (
                    None
                    if self.is_unselected(key)
                    else SyncStep(Action.EXTRA, key, "", None, destination, known=has_row)
                )
            return SyncStep(Action.FORGET, key, "", known=True) if has_row else None
        self.listed += 1
        self.listed_bytes += source.size_bytes
        reason = self.excludes(key, source)
        if reason is not None:
            return SyncStep(Action.EXCLUDED, key, reason, source, destination, known=has_row)
        if self.see is not None:
            self.see([key])
        step = decide(key, source, destination, known)
        if step is None and self.recheck:
            return SyncStep(Action.LOOK, key, AGAIN, source, destination, ours=True, known=True)
        if step is None:
            self.same += 1
            if self.on_same is not None and destination is not None:
                self.on_same([key], [source.size_bytes], [source.etag], [destination.etag])
        return step


def decide(
    key: str, source: ObjectSummary, destination: ObjectSummary | None, known: Known | None
) -> SyncStep | None:
    """Return what to do about an object of the source; None where the destination has it as it is."""
    has_row = known is not None and known.size_bytes >= 0
    if destination is None:
        reason = "missing" if has_row else "new"
        return SyncStep(Action.COPY, key, reason, source, None, ours=True, known=has_row)
    if known is None:
        return SyncStep(Action.LOOK, key, "there already", source, destination)
    if has_row and known.is_at(destination):
        if known.is_of(source):
            return None
        return SyncStep(Action.COPY, key, "changed", source, destination, ours=True, known=True)
    reason = "begun" if known.begun else "changed at the destination"
    return SyncStep(Action.LOOK, key, reason, source, destination, ours=known.begun, known=has_row)

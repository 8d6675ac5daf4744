"""What there is to do: the source's listing, the target's and the record, walked side by side by key. Pure, and
streamed: memory holds one row of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from exporters.bucket import ObjectSummary

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Do(StrEnum):
    """What is to be done about a key."""

    COPY = "copy"
    LOOK = "look"
    """The target has an object of that key, and the record does not say that it is the same."""
    EXTRA = "extra"
    """Only the target has it."""
    FORGET = "forget"
    """Only the record has it: it was copied, and is gone from both sides."""
    EXCLUDED = "excluded"
    """Not wanted: left as it is on both sides."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the record says of a key: what was copied (times in microseconds since 1970), and which ETag it got at the
    target. ``begun``: a run that did not end may have written it, so what lies there may be ours.
    """

    key: str
    etag: str = ""
    size_bytes: int = -1
    modified: int = -1
    target_etag: str = ""
    begun: bool = False

    def is_of(self, source: ObjectSummary) -> bool:
        """Tell whether this is what the source has now. A time that differs is a change, too: of metadata."""
        if self.etag != source.etag or self.size_bytes != source.size_bytes:
            return False
        modified = microseconds(source.modified)
        # Headers tell whole seconds, listings more: of what had changed since it was listed only the former is known.
        return self.modified in {modified, modified // 1_000_000 * 1_000_000}

    def is_at(self, target: ObjectSummary) -> bool:
        """Tell whether the target has what was written there."""
        return self.target_etag == target.etag and self.size_bytes == target.size_bytes


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do about one key, relative to both prefixes, and why. ``ours``: what lies at the target was written
    by this sync. ``odd``: see ``exporters.objects.oddities``. ``known``: the record has a row of it.
    """

    do: Do
    key: str
    why: str
    source: ObjectSummary | None = None
    target: ObjectSummary | None = None
    ours: bool = False
    known: bool = False
    odd: tuple[str, ...] = ()


class UnorderedError(Exception):
    """A listing is not by key; ``side`` says which. It must be sorted first."""

    def __init__(self, side: str) -> None:
        super().__init__(f"the {side}'s listing is not by key")
        self.side = side


def _nothing(_: str) -> None:
    """Do nothing."""


@dataclass(slots=True)
class Comparison:
    """One walk. ``excludes`` tells of a key that the source lists why it is not wanted, ``foreign`` of one that only
    the target has whether it is none of our business. Counted are the source's objects, and those that are the same.
    """

    source_prefix: str
    target_prefix: str
    excludes: Callable[[str, ObjectSummary], str | None]
    foreign: Callable[[str], bool]
    see: Callable[[str], object] = _nothing
    """Called with every key that the source lists and that is wanted."""
    on_same: Callable[[str, ObjectSummary, ObjectSummary], object] | None = None
    """Called with every key that is the same on both sides."""
    listed: int = 0
    listed_bytes: int = 0
    same: int = 0
    excluded: int = 0

    def steps(
        self, source: Iterable[ObjectSummary], target: Iterable[ObjectSummary], known: Iterable[Known]
    ) -> Iterator[Step | None]:
        """Yield what is to be done, by key; None for a key that is the same everywhere. Raises ``UnorderedError``."""
        ours = _by_key(source, len(self.source_prefix), "source")
        theirs = _by_key(target, len(self.target_prefix), "target")
        noted = iter(known)
        (s_key, s), (t_key, t), k = next(ours, _END), next(theirs, _END), next(noted, None)
        while s is not None or t is not None or k is not None:
            key = min(one for one in (s_key, t_key, None if k is None else k.key) if one is not None)
            here = s if s_key == key else None
            there = t if t_key == key else None
            before = k if k is not None and k.key == key else None
            yield self._step(key, here, there, before)
            if here is not None:
                s_key, s = next(ours, _END)
            if there is not None:
                t_key, t = next(theirs, _END)
            if before is not None:
                k = next(noted, None)

    def _step(
        self, key: str, source: ObjectSummary | None, target: ObjectSummary | None, known: Known | None
    ) -> Step | None:
        has_row = known is not None and known.size_bytes >= 0
        if source is None:
            if target is not None:
                return None if self.foreign(key) else Step(Do.EXTRA, key, "", None, target, known=has_row)
            return Step(Do.FORGET, key, "", known=True) if has_row else None
        self.listed += 1
        self.listed_bytes += source.size_bytes
        reason = self.excludes(key, source)
        if reason is not None:
            self.excluded += 1
            return Step(Do.EXCLUDED, key, reason, source, target, known=has_row)
        self.see(key)
        step = decide(key, source, target, known)
        if step is None:
            self.same += 1
            if self.on_same is not None and target is not None:
                self.on_same(key, source, target)
        return step


def decide(key: str, source: ObjectSummary, target: ObjectSummary | None, known: Known | None) -> Step | None:
    """Return what to do about an object of the source; None where the target has it as it is."""
    has_row = known is not None and known.size_bytes >= 0
    if target is None:
        why = "missing" if has_row else "new"
        return Step(Do.COPY, key, why, source, None, ours=True, known=has_row)
    if known is None:
        return Step(Do.LOOK, key, "there already", source, target)
    if has_row and known.is_at(target):
        if known.is_of(source):
            return None
        return Step(Do.COPY, key, "changed", source, target, ours=True, known=True)
    why = "begun" if known.begun else "changed at the target"
    return Step(Do.LOOK, key, why, source, target, ours=known.begun, known=has_row)


def microseconds(moment: datetime) -> int:
    """Return a moment in microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


_END: tuple[str | None, ObjectSummary | None] = (None, None)


def _by_key(
    listing: Iterable[ObjectSummary], skip: int, side: str
) -> Iterator[tuple[str | None, ObjectSummary | None]]:
    previous = None
    for one in listing:
        key = one.key[skip:]
        if previous is not None and key <= previous:
            raise UnorderedError(side)
        previous = key
        yield key, one

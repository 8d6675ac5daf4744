"""That both sides were equal at one moment.

Two walks over both listings, one after the other. In each of them every object of the source is what was copied,
every one of the destination is what was written, and neither side has anything else. Between the two walks lies a
moment: what a listing showed before it and again after it, with the same ETag and time, was so at that moment, on
both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from operator import eq
from typing import Any

from msgspec import Struct, field

from migrate.bundle.export_state import now
from migrate.number_text import things
from migrate.runtime.progress import Progress
from migrate.sync.diff import Action, SyncStep
from migrate.sync.outcome import EqualityProof
from migrate.sync.plan import Sides
from migrate.sync.record.column_pages import UnorderedError
from migrate.sync.record.sync_record import Record


class Walk(Struct):
    """What one walk found. ``different`` counts what is to be done by its kind, ``example`` is a key of it."""

    began: str = ""
    ended: str = ""
    objects: int = 0
    size_bytes: int = 0
    by_etag: int = 0
    excluded: int = 0
    source_digest: str = ""
    destination_digest: str = ""
    different: dict[Action, int] = field(default_factory=dict)
    example: str = ""
    noun: str = "object"

    @property
    def changes(self) -> bool:
        """Whether another run can make both sides equal: something is to be copied."""
        return bool({Action.COPY, Action.LOOK} & self.different.keys())

    @property
    def sentence(self) -> str:
        """What is not equal."""
        if self.changes:
            count = self.different.get(Action.COPY, 0) + self.different.get(Action.LOOK, 0)
            return f"{self._counted(count)} not the same on both sides ({self.example!r})"
        extra = self.different.get(Action.EXTRA, 0)
        if stuck := self.different.get(Action.STUCK, 0):
            return f"{things(stuck, 'version')} cannot be put in their order at the destination ({self.example!r})"
        return f"{self._counted(extra)} only at the destination ({self.example!r}); --delete removes them"

    def _counted(self, count: int) -> str:
        return f"{things(count, self.noun)} {'is' if count == 1 else 'are'}"


def prove(sides: Sides, record: Record, progress: Progress) -> tuple[EqualityProof | None, Walk]:
    """Walk twice; return the proof, or None with the walk that found a difference."""
    progress.begin("prove", items=2 * record.header.rows, size_bytes=0)
    first = _walk(sides, record, progress)
    if first.different:
        progress.end()
        return None, first
    moment = now()
    second = _walk(sides, record, progress)
    progress.end()
    if second.different:
        return None, second
    digests = (first.source_digest, first.destination_digest)
    if digests != (second.source_digest, second.destination_digest):
        second.different, second.example = {Action.COPY: 1}, "its listing"
        return None, second
    return (
        EqualityProof(
            moment=moment,
            walks=((first.began, first.ended), (second.began, second.ended)),
            objects=second.objects,
            size_bytes=second.size_bytes,
            source_digest=second.source_digest,
            destination_digest=second.destination_digest,
            by_etag=second.by_etag,
            by_record=second.objects - second.by_etag,
            excluded=second.excluded,
            choice=sides.selection.describe(),
            history=sides.history,
        ),
        second,
    )


def _walk(sides: Sides, record: Record, progress: Progress) -> Walk:
    unordered: frozenset[str] = frozenset()
    while True:
        try:
            return _walked(sides, record, progress, unordered)
        except UnorderedError as exc:
            unordered |= {exc.side}


def _walked(sides: Sides, record: Record, progress: Progress, unordered: frozenset[str]) -> Walk:
    noun = "version" if sides.history else "object"
    walk, source, destination = Walk(began=now(), noun=noun), _Digest(), _Digest()
    comparison = sides.comparison()

    def on_same(
        keys: Sequence[str],
        sizes: Sequence[int],
        source_etags: Sequence[str],
        destination_etags: Sequence[str],
    ) -> None:
        source.add(keys, sizes, source_etags)
        destination.add(keys, sizes, destination_etags)
        walk.size_bytes += sum(sizes)
        walk.by_etag += sum(map(eq, source_etags, destination_etags))
        progress.advance(items=len(keys))

    comparison.on_same = on_same
    for step in sides.walk(comparison, record, unordered, sides.listings(other_pages=True)):
        walk.excluded += isinstance(step, SyncStep) and step.do == Action.EXCLUDED
        if isinstance(step, SyncStep) and step.do in {Action.COPY, Action.LOOK, Action.EXTRA, Action.STUCK}:
            walk.different[step.do] = walk.different.get(step.do, 0) + 1
            if not walk.example or step.do != Action.EXTRA:
                walk.example = step.key
    walk.ended, walk.objects = now(), comparison.same
    walk.source_digest, walk.destination_digest = source.end(), destination.end()
    return walk


class _Digest:
    """SHA-256 over a line ``size etag key`` for each object, or version, by key."""

    def __init__(self) -> None:
        self._hash: Any = hashlib.sha256()

    def add(self, keys: Sequence[str], sizes: Sequence[int], etags: Sequence[str]) -> None:
        rows = zip(sizes, etags, keys, strict=True)
        lines = "".join([f"{size} {etag} {key}\n" for size, etag, key in rows])
        self._hash.update(lines.encode("utf-8", "surrogatepass"))

    def end(self) -> str:
        digest: str = self._hash.hexdigest()
        return digest

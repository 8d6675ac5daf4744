"""What a sync came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from exporters.api import Gap
from exporters.structs import as_dict
from migrate.errors import OK, DamageError, IncompleteError

SETTING_WRITTEN, SETTING_REMOVED = "written", "removed"
_SHOWN_GAPS = 1000
"""Gaps that the report names one by one; ``gaps.parquet`` has all."""


class EqualityProof(Struct, frozen=True):
    """Both sides were equal at ``moment`` (UTC), between two walks over both listings. In each walk every object of the
    source was unchanged since it was copied, the destination's was as it was written, and there was nothing else.
    ``digest``: SHA-256 over the lines ``size etag key`` of each side, both times the same. ``by_etag`` objects have the
    same ETag on both sides, ``by_record`` others are known by the record to have arrived with their checksums.
    ``excluded`` objects were not selected (``choice``): the proof says nothing of them. ``history``: it counts versions
    and delete markers, oldest first; a delete marker has ``-`` for its ETag.
    """

    moment: str
    walks: Sequence[tuple[str, str]]
    objects: int
    size_bytes: int
    source_digest: str
    destination_digest: str
    by_etag: int
    by_record: int
    excluded: int
    choice: str
    history: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as it is kept."""
        return as_dict(self)


class Removed(Struct, frozen=True):
    """An object that was removed at the destination, or a version of one."""

    key: str
    size_bytes: int
    etag: str
    version_id: str = ""

    @property
    def which(self) -> tuple[str, str]:
        """What tells it apart."""
        return self.key, self.version_id


class SyncOutcome(Struct, frozen=True):
    """``listed`` objects of the source ended in one of these ways. ``same``: as before. ``copied``: now, ``newer`` of
    them in a version that came after the listing. ``adopted``: the destination had them already. ``amended``: versions
    that are there, whose tags, locks or ACL were brought in step. ``excluded`` or ``failed``: see ``gaps``. ``extra``
    objects only the destination has, of which ``deleted`` were removed. ``damaged`` are sentences about objects that
    did not arrive as they were, ``reasons`` about what does not add up. ``rows``: objects that the record has.
    ``unproven`` says why there is no ``proof`` where one was asked for; ``planned``: what would be done. ``history``:
    all counts are of versions. ``settings`` of the bucket that were not the same: ``written``, ``removed``, or why the
    destination has them not.
    """

    source: str
    destination: str
    record: str
    listed: int
    listed_bytes: int
    same: int
    copied: int
    copied_bytes: int
    adopted: int
    newer: int
    excluded: int
    failed: int
    extra: int
    deleted: int
    losses: int
    rows: int
    runs: int = 1
    gaps: Sequence[Gap] = ()
    damaged: Sequence[str] = ()
    removed: Sequence[Removed] = ()
    extras: Sequence[str] = ()
    reasons: Sequence[str] = ()
    proof: EqualityProof | None = None
    unproven: str = ""
    planned: Mapping[str, Any] | None = None
    history: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    amended: int = 0

    @property
    def noun(self) -> str:
        """What one of the things that are counted is called."""
        return "version" if self.history else "object"

    @property
    def complete(self) -> bool:
        """Whether every selected object is at the destination."""
        return not (self.failed or self.damaged or self.reasons or self.unproven)

    @property
    def other_settings(self) -> Mapping[str, str]:
        """The settings that the destination has not as the source has them, with the reasons."""
        return {
            name: result
            for name, result in sorted(self.settings.items())
            if result not in {SETTING_WRITTEN, SETTING_REMOVED}
        }

    @property
    def exit_code(self) -> int:
        """6 where something did not arrive as it was, 3 where something is missing or was not proven."""
        if self.damaged:
            return DamageError.exit_code
        return OK if self.complete else IncompleteError.exit_code

    def then(self, later: SyncOutcome) -> SyncOutcome:
        """Return the outcome of both runs: what was done adds up, what is so is as the later one found it."""
        return replace(
            later,
            copied=self.copied + later.copied,
            copied_bytes=self.copied_bytes + later.copied_bytes,
            adopted=self.adopted + later.adopted,
            amended=self.amended + later.amended,
            newer=self.newer + later.newer,
            extra=self.deleted + later.extra,
            deleted=self.deleted + later.deleted,
            runs=self.runs + later.runs,
            removed=(*self.removed, *later.removed),
            settings={**self.settings, **later.settings},
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as it is kept and printed; of gaps and removed objects the first thousand."""
        all_fields = as_dict(replace(self, gaps=self.gaps[:_SHOWN_GAPS], removed=self.removed[:_SHOWN_GAPS]))
        return all_fields | {"complete": self.complete}

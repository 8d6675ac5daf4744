"""What a restore of one source came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestoreOutcome:
    """``items`` rows or objects of the source in the target now, of them ``skipped_items`` there already from
    an earlier run; ``size_bytes`` of payload written now. ``findings`` are sentences about what is not as in
    the bundle (none: it is equal); ``notes`` what the user should know.
    """

    source: str
    items: int
    size_bytes: int
    skipped_items: int = 0
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

"""How deep a verification looks, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from migrate.bundle.findings import Finding, only_extra
from migrate.bundle.table_comparison import TableDigest


class Level(StrEnum):
    """Each level checks all that the one before it does."""

    QUICK = "quick"
    """Tag files by SHA-256; payload by names, sizes and Payload-Oxum."""
    COMPLETE = "complete"
    """Every file is there, and nothing else is, inside and outside of ``data/``; the summary adds up."""
    FULL = "full"
    """Every byte is hashed; objects in packs against the index; the values in tables against the catalog's
    digests.
    """


class VerifyOutcome(Struct, frozen=True):
    """``findings``: what is wrong, ordered by file. ``files`` and ``size_bytes`` of the payload that was
    looked at. ``tables``: rows and digests as Parquet gives them back, where every value was read (``full``).
    ``bundle``: its id, where that can be believed. ``values``: whether the values in tables were compared, as ``full``
    does.
    """

    findings: Sequence[Finding]
    files: int
    size_bytes: int
    tables: Sequence[TableDigest]
    bundle: str
    values: bool

    @property
    def is_whole(self) -> bool:
        """Whether all that the bundle names is as it says. Files that it does not name may lie there, too."""
        return only_extra(self.findings)

"""A restore that has not ended, seen from its destination: what it keeps there, for ``clean``."""

from __future__ import annotations

from msgspec import Struct


class UnfinishedRestore(Struct, frozen=True):
    """Which restore it is, as far as that is written: it goes on by what it keeps. ``objects``: what that is, for
    people. ``removal``: the statement that removes them, for a restore that never goes on; all else stays.
    """

    bundle: str
    source: str
    objects: str
    removal: str

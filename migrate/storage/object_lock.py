"""What holds and erasure need of a location beyond files: all versions of them, their locks, and the end of each.

A bucket with Object Lock can hold a version until a day (retention) and without an end (legal hold). A directory has
one version of everything, and no locks.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

Mode: TypeAlias = Literal["GOVERNANCE", "COMPLIANCE"]
"""GOVERNANCE can be lifted with a permission of its own; COMPLIANCE by nobody (S3 user guide, "Object Lock")."""


class FileVersion(Struct, frozen=True):
    """One version of a file, or a delete marker. ``id`` is the server's, "" where there are no versions. ``is_link``:
    it is a symbolic link, and its bytes lie elsewhere.
    """

    key: str
    id: str
    size_bytes: int
    is_latest: bool
    is_marker: bool
    is_link: bool = False


class Lock(Struct, frozen=True):
    """What protects a version: ``until`` is None where there is no retention; ``legal`` whether a legal hold is on."""

    mode: Mode | None
    until: datetime | None
    legal: bool


class ObjectLock(Protocol):
    """All versions at a location. Thread-safe; raises only errors of ``migrate.errors``."""

    location: str
    """The location as a URL, without secrets."""

    def check_lock(self) -> None:
        """Raise ``NotAllowedError`` where this location cannot lock what lies there."""
        ...

    def is_firm(self, mode: Mode) -> bool:
        """Tell whether a retention of this mode holds here against whoever has no right to end it."""
        ...

    def now(self) -> datetime:
        """Return the time by the clock of the location, which is the one that its locks end by."""
        ...

    def versions(self) -> Iterator[FileVersion]:
        """Yield every version and every delete marker, ordered by key."""
        ...

    def lock(self, version: FileVersion) -> Lock:
        """Read what protects a version."""
        ...

    def retain(
        self, version: FileVersion, until: datetime | None, mode: Mode, *, firmer: bool = False
    ) -> None:
        """Set the retention; None takes one of mode GOVERNANCE away. ``firmer``: it replaces one of that mode by
        another mode, for which a server wants the right to end the former. Raises ``NotAllowedError``.
        """
        ...

    def set_legal(self, version: FileVersion, *, on: bool) -> None:
        """Set or lift the legal hold."""
        ...

    def remove(self, version: FileVersion) -> None:
        """Remove this version for good. Raises ``NotAllowedError`` where it is locked."""
        ...

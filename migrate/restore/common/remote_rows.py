"""The contracts of a restore whose rows are copied by several machines.

The machine that leads makes the tables and holds the destination's lock. The others copy parts as long as it is held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from migrate.bundle.reader import BundleReader
from migrate.restore.common.table_parts import PartFile
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress
from migrate.runtime.worker_pool import WorkerPool

OpenRowPool = Callable[[str, int, Progress], WorkerPool[PartFile, bool]]
"""Makes the pool of other machines that copies parts of a source (its name in the bundle), as ``PartLoader.write``
does. It works as long as the session of the server's process (the number) holds the lock.
"""


class PartLoader(Protocol):
    """Loads parts into one database, from several threads."""

    def write(self, part: PartFile) -> bool:
        """Copy a part unless it is there already; False where the database refuses some of its rows. Raises
        ``Cancelled``.
        """
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class RowDestination(Protocol):
    """A database that any machine can copy parts into. Its class is made from the URL and its secrets."""

    def __init__(self, url: str, secrets: Mapping[str, str]) -> None: ...

    def is_led(self, lead: int) -> bool:
        """Tell whether the session of the server's process ``lead`` still holds the restore's lock."""
        ...

    def writer(self, reader: BundleReader, *, workers: int, cancellation: CancellationToken) -> PartLoader:
        """Return what copies parts of a bundle. ``cancellation`` ends what is under way."""
        ...

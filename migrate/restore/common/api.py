"""The contract of restores: what shall be restored, who does it, and what it came to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from exporters.errors import SourceGoneError
from exporters.structs import as_dict
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.reader import BundleReader, LiveSource
from migrate.bundle.table_comparison import TableDigest
from migrate.errors import GoneError
from migrate.restore.common.left_out import FinishedRestore
from migrate.restore.common.table_parts import PartFile
from migrate.runtime.cancellation import CancellationToken
from migrate.runtime.progress import Progress
from migrate.runtime.worker_pool import WorkerPool
from migrate.storage.api import MultipartStore

OpenRowPool = Callable[[str, int, Progress], WorkerPool[PartFile, bool]]
"""Makes the pool of other machines that copies parts of a source (its name in the bundle), as ``PartLoader.write``
does. It works as long as the session of the server's process (the number) holds the lock.
"""


class RestoreRequest(LiveSource, frozen=True, kw_only=True):
    """What shall be restored, and where to.

    ``merge``: into a destination that is not empty. ``only``: of a database ``schema``, ``data`` or tables. ``report``
    is where the restore writes what the destination cannot hold. ``open_pool`` makes the pool of a cluster that writes
    instead of the threads of this process; None where the engine has no use for one. ``pack_small_objects``: to MinIO,
    many objects in one request. ``earlier``: restores of this bundle, or of bundles that it continues; in addition to
    ``only``, the definitions that they left out are made, and their records are replaced. ``others``: further
    databases of the destination's server that the same command restores.
    """

    merge: bool = False
    only: Sequence[str] = ()
    report: MultipartStore | None = None
    open_pool: Any = None
    pack_small_objects: bool = False
    earlier: Sequence[FinishedRestore] = ()
    others: Sequence[str] = ()


class Retry(Struct, frozen=True):
    """What earlier restores left out: their records, and the tables and views that the destination lacks."""

    records: Sequence[FinishedRestore]
    absent: Sequence[CatalogRow]


class RestoreOutcome(Struct, frozen=True):
    """``items``: rows or objects of the source in the destination now; ``skipped_items`` of them were there already
    from an earlier run. ``computed_items``: rows of materialized views, which the destination computes. ``size_bytes``:
    payload written now. ``findings`` are sentences about what is not as in the bundle (none: it is equal); ``notes``
    what the user should know; ``routine`` what goes without saying where many sources are restored: that the
    destination was made as the source was, or held all of it already. ``losses``: rows of the restore's own loss
    ledger, which is stored with its report at ``report``; ``lost``: their properties. ``left_out``: what could not be
    made because the destination refuses it, or the bundle, incomplete as it is, lacks what it needs. ``tables``: what
    was read back from the destination at the end. ``is_equal``: every table and materialized view of the source was
    read back, and no other was there; each has the bundle's rows. ``retry``: where nothing was done, what can be tried
    again. ``needs_others``: something was left out that may need the ``others``.
    """

    source: str
    items: int
    size_bytes: int
    skipped_items: int = 0
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    losses: int = 0
    report: str = ""
    left_out: tuple[str, ...] = ()
    tables: tuple[TableDigest, ...] = ()
    retry: Retry | None = None
    computed_items: int = 0
    is_equal: bool = False
    lost: tuple[str, ...] = ()
    routine: tuple[str, ...] = ()
    needs_others: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as it is stored in the report."""
        fields = as_dict(replace(self, retry=None, tables=()))
        del fields["retry"], fields["is_equal"], fields["lost"], fields["routine"], fields["needs_others"]
        tables = tuple(table.as_json() for table in self.tables)
        notes = [*self.routine, *self.notes]
        return fields | {"findings": list(self.findings), "notes": notes, "tables": tables}


class Restorer(Protocol):
    """Restores sources of one engine.

    - A destination that holds something else is refused (``NotEmptyError``), and not touched.
    - The same request after an interruption goes on; after success it changes nothing.
    - What is restored is read back and compared with the bundle. What differs is a finding of the outcome.
    - What the destination cannot hold is named in the outcome's ``left_out``.
    """

    def restore(self, request: RestoreRequest) -> RestoreOutcome:
        """Restore one source. Raises errors of ``migrate.errors`` and ``exporters.errors``."""
        ...

    def finished(
        self, reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
    ) -> Sequence[FinishedRestore]:
        """Return what earlier restores of a source left out of a destination, as it is recorded there."""
        ...


class Created(Struct, frozen=True):
    """A destination that was made. ``sentence`` says what it is; where it is not ``as_source``, also what it lacks."""

    sentence: str
    as_source: bool = True


class CreateDestination(Protocol):
    """Makes the database or bucket that a restore names, as the source was, where the destination allows it."""

    def __call__(
        self, reader: BundleReader, source: str, url: str, *, secrets: Mapping[str, str]
    ) -> Created | None:
        """Return what was made; None where the destination exists. Raises errors of ``migrate.errors`` and
        ``exporters.errors``.
        """
        ...


class _Closes(Protocol):
    def close(self) -> None: ...


def is_missing(connect: Callable[[], _Closes]) -> bool:
    """Tell whether a destination does not exist, by a connection to it. Raises ``SourceError``."""
    try:
        connect().close()
    except SourceGoneError:
        return True
    return False


class UnfinishedRestore(Struct, frozen=True):
    """A restore that has not ended, seen from its destination, for ``clean``: which it is, as far as that is written.
    It goes on by what it keeps there. ``objects``: what that is, for people. ``removal``: the statement that removes
    them, for a restore that never goes on; all else stays.
    """

    bundle: str
    source: str
    objects: str
    removal: str


@contextmanager
def naming_create() -> Iterator[None]:
    """Name ``--create`` as the next step of a ``GoneError``."""
    try:
        yield
    except GoneError as exc:
        next_step = (
            "add --create (moveout restore, run and sync take it), and it is made as the source was;"
            " or check the name in the URL"
        )
        raise type(exc)(exc.explanation, about=exc.about, next_step=next_step) from exc


class PartLoader(Protocol):
    """Loads parts into one database, from several threads."""

    def write(self, part: PartFile) -> bool:
        """Copy a part unless it is there; False where the database refuses some rows. Raises ``Cancelled``."""
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

"""What one kind of source brings to moveout, declared once.

An engine joins by one entry in the entry-point group ``moveout.engines``, which names its ``Engine`` object. Everything
else asks the registry of engines (``migrate.engines.registry``) by URL scheme, and names no engine.

The parts of an engine are dotted references (``"package.module:name"``). They are imported when they are used first, so
that a command waits for no driver that it does not need. Only ``exporter`` is required. The protocols of parts that
read are here; those that write are with their users:

==================== ===========================================================
``restorer``         ``migrate.restore.common.api.Restorer``
``create``           ``migrate.restore.common.api.CreateDestination``
``row_writer``       ``migrate.restore.common.api.RowDestination``
``hold``             ``migrate.custody.source_holds.contract.OpenHold``
``comparison``       ``migrate.verify.compare.Compare``
``row_repair``       ``migrate.repair.repair.OpenRepair``
``change_writer``    ``migrate.changes.apply.ChangeWriter``
``remainder``        ``migrate.changes.remainder.CarryRemainder``
==================== ===========================================================
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from msgspec import Struct

if TYPE_CHECKING:  # every command asks which engines there are; few use one
    from exporters.api import DoneUnit, Exporter, Sink, SourceSummary, Workspace
    from exporters.discovery import Discover
    from exporters.errors import SourceError
    from exporters.limits import Note
    from exporters.row_digest import Advance, RowsDigest
    from exporters.touched_rows import RowKey

ENTRY_POINTS = "moveout.engines"

Texts = Sequence[bytes]
"""The texts of some rows: what is digested."""
TableName = tuple[str, str]
"""The schema and the name of a table."""


class Engine(Struct, frozen=True):
    """One kind of database or bucket. A part that an engine lacks is ``""``; the command that needs it says so.

    ``name`` is for people. ``schemes`` are the URL schemes that mean this engine; the first one is preferred.
    ``contents`` says what a bundle keeps of a source: rows of tables in Parquet, or objects with an index.
    ``secrets`` are the names of the secrets that open a URL; a case file may give them.
    """

    name: str
    schemes: tuple[str, ...]
    exporter: str
    """The class of an ``Exporter``, made without arguments."""
    contents: Literal["tables", "objects"] = "tables"
    url_names: Literal["database", "bucket", "file"] = "database"
    """What a URL names: a database of a server (``scheme://host/NAME``), a bucket (``scheme://NAME``), or a file or
    directory (``scheme:///path/NAME``).
    """
    secrets: tuple[str, ...] = ("password",)
    secret_variables: tuple[str, ...] = ()
    """The environment variables that hold a secret. No log has their values."""
    contact: str = ""
    """A function ``(url, secrets)`` that returns once the server has answered it, and raises ``UnreachableError`` where
    it does not: for the sentence that it is silent.
    """
    summary_of_gone: str = ""
    """A ``SummaryOfGone``: for ``export`` and ``seal``, where a source is gone before it was read to its end."""
    part_reader: str = ""
    """The class of a ``PartReader``: for ``verify --level full`` and ``export --prove``."""
    live_reader: str = ""
    """The class of a ``LiveReader``: for ``verify --against``."""
    comparison: str = ""
    """A function that compares a bundle with a live source whose contents are no tables: for ``verify --against``."""
    restorer: str = ""
    """The class of a ``Restorer``: for ``restore``."""
    create: str = ""
    """A function that makes a destination that does not exist: for ``restore --create``."""
    unfinished_restore: str = ""
    """A function ``(url, secrets)`` that returns what a restore that has not ended keeps at a destination
    (``migrate.restore.common.api.UnfinishedRestore``), or None: for ``clean``.
    """
    row_repair: str = ""
    """A function that opens a destination whose rows are made equal to others: for ``verify --repair``."""
    row_writer: str = ""
    """The class of a ``RowDestination``: for ``restore`` by several machines."""
    hold: str = ""
    """A function that opens a source to be held: for ``hold source``."""
    discovery: str = ""
    """A function that lists what a whole server holds (``exporters.discovery.Discover``): for ``discover``, and for
    URLs that end with ``/*``.
    """
    doctor: str = ""
    """A function that examines a source (``exporters.doctor.Examine``): for ``doctor``."""
    destination_doctor: str = ""
    """A function that examines a destination (``exporters.doctor.Examine``): for ``doctor`` and ``plan``."""
    change_log: str = ""
    """A function ``(url, secrets, name)`` that opens a source's ``exporters.changes.ChangeLog``: for ``follow``."""
    change_base: str = ""
    """The Struct of what ``exporters.changes.ChangeBase.log`` has. A bundle in which that is of other types is damaged.
    """
    change_writer: str = ""
    """A function ``(url, secrets, source)`` that opens what writes changes to a destination: for ``follow``."""
    change_mark: str = ""
    """A function ``(url, secrets, source)`` that returns how far changes were applied at a destination, or None: for
    ``status``.
    """
    definition_gaps: str = ""
    """A function ``(sides, skipped, log)`` that returns the objects which only the source defines, such as ``index
    public.by_day``, or otherwise since the base, but for the tables ``skipped``: for ``follow``, ``status`` and
    ``cutover``. ``sides``: see ``migrate.changes.remainder.BothSides``. ``log`` is that of the ``ChangeBase``.
    """
    definition_state: str = ""
    """A function ``(url, secrets, reader, source)`` that returns, as plain JSON, what is to be known of a source's
    definitions so that later changes of them are seen: for delta passes. As of the newest snapshot of the ``source`` in
    the bundle of ``reader``; now, where that is None. The ``log`` of a ``ChangeBase`` has the same.
    """
    remainder: str = ""
    """A function that brings over what the change log does not carry: for ``cutover``."""
    note_running: str = ""
    """A function ``(sides, source)`` that notes at a destination what runs at its source by itself, before that is
    held: ``activation`` starts it. For ``cutover``.
    """
    activation: str = ""
    """A function ``(url, secrets, source)`` that starts at a destination what must not run while changes are applied,
    and waits until all of it is durable: for ``cutover``.
    """
    deactivation: str = ""
    """A function ``(url, secrets, source)`` that stops these again: for ``cutover --undo``."""


def load_part(reference: str) -> Any:
    """Import what a reference ``"package.module:name"`` names."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


class SummaryOfGone(Protocol):
    """A function that describes what was exported of a source that cannot be asked any more."""

    def __call__(
        self, workspace: Workspace, done: Iterator[DoneUnit], sink: Sink, error: SourceError
    ) -> SourceSummary | None:
        """Write what belongs to the whole source, and return the summary; None where too little was noted. ``error``:
        why the source cannot be asked. Raises ``SourceStateError``.
        """
        ...


class LiveRows(Protocol):
    """The rows of a live database, all as of one moment. Methods raise ``SourceError``."""

    def columns(self, schema: str, name: str) -> Sequence[str] | None:
        """Return the names of a table's columns in the order of the row's text; None where there is no such table."""
        ...

    def key(self, schema: str, name: str) -> Sequence[str]:
        """Return the columns that identify a table's rows, none where there are no such."""
        ...

    def each(self, schema: str, name: str, take: Callable[[Texts], None]) -> None:
        """Hand all rows of a table over, some at a time, in any order."""
        ...


@runtime_checkable
class HashedRows(Protocol):
    """The rows of a live database whose server hashes them, so that only rows that may differ leave it. Methods raise
    ``SourceError``.
    """

    def hash_name(self, schema: str, name: str) -> str:
        """Return how the rows of a table are hashed: where two sides return the same name, equal rows have the same
        hash. "" where the server cannot hash them.
        """
        ...

    def bucket_sums(self, schema: str, name: str, buckets: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield bucket, rows, sum of hashes and bytes of each bucket with rows. ``buckets``: how many there are, a
        power of two.
        """
        ...

    def each_in_buckets(
        self,
        schema: str,
        name: str,
        take: Callable[[Texts, Texts], None],
        buckets: int,
        among: frozenset[int],
    ) -> None:
        """Hand over the texts of the rows in some buckets, and their places; see ``LocatedRows``."""
        ...


@runtime_checkable
class VersionedRows(Protocol):
    """The rows of a live database whose server tells cheaply which tables were written to."""

    def changed_since(self, schema: str, name: str, state: str) -> tuple[bool, str]:
        """Return whether rows of a table may have changed since it was in a state, and its state now. ``state``: what
        an earlier call has returned, "" for none. Raises ``SourceError``.
        """
        ...


class LocatedRows(LiveRows, Protocol):
    """The rows of a live database with what finds each of them there. The ``live_rows`` of an engine that has the part
    ``row_repair`` are such.
    """

    def tables(self) -> Mapping[tuple[str, str], int]:
        """Return about how many rows each table has, by schema and name."""
        ...

    def each_located(self, schema: str, name: str, take: Callable[[Texts, Texts], None]) -> None:
        """Hand all rows of a table over, some at a time: their texts, and their places; none where a row's text is
        enough to find it.
        """
        ...


KEYED_READERS = 4
"""How many threads read rows by their keys at once."""


@runtime_checkable
class KeyedRows(LocatedRows, Protocol):
    """The rows of a live database of which single ones are read by their keys. Methods raise ``SourceError``."""

    def digests(self, request: TablesRequest) -> LiveTables:
        """Return the digests of all tables, as of the same moment; see ``LiveReader.live_tables``."""
        ...

    def has_exact_keys(self, schema: str, name: str, columns: Sequence[str]) -> bool:
        """Tell whether the rows of a table are found by what the log has of these columns, and equal values of each
        column are the same in the log.
        """
        ...

    def digest_with_keys(
        self, schema: str, name: str, columns: Sequence[str], keys: Sequence[RowKey]
    ) -> RowsDigest:
        """Return the digest of the rows that have one of these keys. The columns must be exact keys. Thread-safe."""
        ...

    def key_text(self, schema: str, name: str, columns: Sequence[str], key: RowKey) -> str:
        """Return a key for people. The columns must be exact keys."""
        ...


@runtime_checkable
class KeyedReader(Protocol):
    """A ``LiveReader`` of an engine whose changes are followed."""

    def keyed_rows(
        self, url: str, *, secrets: Mapping[str, str], is_one_moment: bool
    ) -> AbstractContextManager[KeyedRows]:
        """Open a live database to compare rows of it. ``is_one_moment``: all is read as of the same moment; else as of
        several ones since it was opened, none before that. Raises ``SourceError``.
        """
        ...


class RereadSnapshot(NamedTuple):
    """A snapshot by which tables are taken up again: what was committed before the ``position`` of the log is in its
    ``rows``. ``tables`` by (schema, name): the one that was asked for first, then those that have to be read with it.
    """

    position: int
    rows: LocatedRows
    tables: Sequence[tuple[str, str]]


@runtime_checkable
class RereadableLog(Protocol):
    """A change log (``exporters.changes``) of which a table can be taken up again at a later snapshot."""

    def reread(
        self, log: Mapping[str, Any], schema: str, name: str, note: Note = ...
    ) -> AbstractContextManager[RereadSnapshot]:
        """See to it that the changes of a table are in the log, and take a snapshot at an exact position of it. Raises
        ``SourceUsageError`` where the table cannot be followed, ``SourceError``.
        """
        ...


class TablesRequest(Struct, frozen=True):
    """Which tables of a live database are read: all but those ``without``. Of materialized views and tables of
    extensions only those that ``also`` names. ``advance`` is called with rows and bytes, from each of the ``workers``.
    ``tolerant``: a table that the server does not read is no error.
    """

    workers: int
    advance: Advance
    also: Collection[TableName] = ()
    without: Collection[TableName] = ()
    tolerant: bool = False


_Value = TypeVar("_Value")


class LiveTables(Struct, frozen=True):
    """The digests of tables, and why others could not be read. ``columns``: the names of their columns, in the order in
    which a row's values are read; empty where an engine does not say that. ``folds``: the server keeps the names of
    tables in lower case.
    """

    digests: Mapping[TableName, RowsDigest]
    unread: Mapping[TableName, str] = {}
    columns: Mapping[TableName, Sequence[str]] = {}
    folds: bool = False

    def named_as(self, names: Iterable[TableName]) -> LiveTables:
        """Return the same tables by these names, where the server has them in lower case."""
        if not self.folds:
            return self
        spelled: dict[TableName, TableName] = {}
        for schema, name in sorted(names):
            spelled.setdefault((schema, name.lower()), (schema, name))

        def named(values: Mapping[TableName, _Value]) -> Mapping[TableName, _Value]:
            return {spelled.get(name, name): value for name, value in values.items()}

        return LiveTables(named(self.digests), named(self.unread), named(self.columns))


class LiveReader(Protocol):
    """Reads live databases, to compare them with a bundle. Texts of rows are those of the ``PartReader``."""

    def live_tables(self, url: str, request: TablesRequest, *, secrets: Mapping[str, str]) -> LiveTables:
        """Return the digests of tables of a live database, as of one moment. Raises ``SourceError``:
        ``SourceSnapshotLostError`` where a session has ended in the middle.
        """
        ...

    def live_rows(self, url: str, *, secrets: Mapping[str, str]) -> AbstractContextManager[LiveRows]:
        """Open a live database to look at single rows. Raises ``SourceError``."""
        ...


class WriteState(NamedTuple):
    """What a server says of the writes to a table. ``identity`` is another text once its rows may have another text, or
    the server has begun to count anew. ``rows``: how many rows were written to it since then, None where the server
    does not count them by table. ``of_server``: what it counts of the writes to any of its tables besides that, None
    where it does not count all writes. ``last_write`` is another text after each write, "" where the server does not
    have its time. ``rewrites``: how many statements the server has run that give a table other rows without such a time
    (TRUNCATE). None where the time may have been forgotten, too, so that a write does not show.
    """

    identity: str
    rows: int | None
    of_server: int | None = 0
    last_write: str = ""
    rewrites: int | None = None


@runtime_checkable
class WriteCounters(Protocol):
    """A ``LiveReader`` whose servers know what is written to each table."""

    def write_states(
        self, url: str, *, secrets: Mapping[str, str], is_settled: bool = False
    ) -> Mapping[tuple[str, str], WriteState]:
        """Return the state of each table by (schema, name); not of the tables of which the server does not know that.
        ``is_settled``: what the states count has been committed or rolled back when this returns. Raises
        ``SourceError``.
        """
        ...

    def uncounted_sessions(self, url: str, *, secrets: Mapping[str, str]) -> Sequence[str]:
        """Return the sessions, but for moveout's, that may have written what the states do not have yet. Raises
        ``SourceError``.
        """
        ...


class PartReader(Protocol):
    """Reads the Parquet parts of tables. A row has one text: the same from the server, from Parquet and from a restored
    copy.
    """

    read_errors: tuple[type[Exception], ...]
    """What the methods raise where a part is damaged."""

    def digest_part(self, file: Any, rows: int) -> RowsDigest:
        """Return rows and digest of one part, from its values. ``file`` is a path or a random-access file; ``rows`` is
        what the catalog says of the part, for tables whose parts have no columns.
        """
        ...

    def part_columns(self, file: Any) -> Sequence[str]:
        """Return the names of the columns in the order of the row's text."""
        ...

    def part_texts(self, file: Any) -> Iterator[Texts]:
        """Yield the texts of a part's rows, a few thousand at a time, in its order."""
        ...

    def split(self, text: bytes) -> list[bytes | None]:
        """Return a row's values as people may read them, None for NULL. Equal values have equal results, and different
        ones different.
        """
        ...

    def label(self, schema: str, name: str) -> str:
        """Return a table's name as people write it in this engine's SQL."""
        ...


def exporter_of(engine: Engine) -> Exporter:
    """Return the engine's exporter."""
    return cast("Exporter", load_part(engine.exporter)())


def part_reader_of(engine: Engine) -> PartReader:
    """Return what reads the engine's Parquet parts; the engine has to bring it."""
    return cast("PartReader", load_part(engine.part_reader)())


def live_reader_of(engine: Engine) -> LiveReader:
    """Return what reads the engine's live databases; the engine has to bring it."""
    return cast("LiveReader", load_part(engine.live_reader)())


def discovery_of(engine: Engine) -> Discover:
    """Return what lists a server of the engine; the engine has to bring it."""
    return cast("Discover", load_part(engine.discovery))

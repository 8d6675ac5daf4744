"""Row counts and digests of a live database, under one snapshot, in parallel."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from msgspec import Struct
from msgspec.structs import replace

from exporters.engine import LiveTables, TablesRequest
from exporters.errors import SourceError, SourceNotAllowedError
from exporters.postgres import large_objects
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.chunk_plan import cut, largest_chunk
from exporters.postgres.errors import has_ended
from exporters.postgres.rows.chunk_export import digest_rows
from exporters.postgres.rows.copy_feed import BATCH, Chunk, Feeds
from exporters.postgres.sessions.connection import PostgresAddress, parse_url
from exporters.postgres.sessions.snapshot_session import PostgresSession, open_snapshot
from exporters.row_digest import Advance, RowsDigest
from exporters.sql.snapshots import lost_with_sessions

Name = tuple[str, str]
"""The schema and the name of a table."""


class TablesToRead(Struct, frozen=True):
    """Which tables of a database are read, and what of them."""

    names: Collection[Name] | None = None
    """Only these; None: all, and the large objects. Materialized views and tables of extensions: see ``also``."""
    also: Collection[Name] = ()
    """Those materialized views and tables of extensions that are read, too."""
    without: Collection[Name] = ()
    """These are not read, whatever the others say."""
    large_objects: Collection[int] | None = None
    """The numbers of those large objects that are read; None: all."""
    generated: bool = True
    """Whether values are read that the server computes."""
    orders: Mapping[Name, Sequence[str]] = {}
    """In which order the columns of a table are taken, where it has them in another one."""

    def chosen(self, tables: Sequence[PostgresTable]) -> Iterator[PostgresTable]:
        """Yield those of a database's tables that are read, with the columns that are."""
        for table in tables:
            name = table.schema, table.name
            is_optional = table.view or table.extension
            is_chosen = name in self.also if is_optional else self.names is None or name in self.names
            if table.foreign or table.out_of_reach or not is_chosen or name in self.without:
                continue
            columns = [column for column in table.columns if self.generated or not column.generated]
            order = {column: position for position, column in enumerate(self.orders.get(name, ()))}
            if order.keys() == {column.name for column in table.columns}:
                columns.sort(key=lambda column: order[column.name])
            yield table if columns == list(table.columns) else replace(table, columns=tuple(columns))


def digest_tables(
    address: PostgresAddress,
    to_read: TablesToRead,
    *,
    workers: int,
    advance: Advance,
    tolerant: bool = False,
) -> LiveTables:
    """Return the digest of every table that is to be read; large objects count as ``pg_catalog.pg_largeobject``, where
    there are any. ``tolerant``: a table that the server does not read is among the ``unread``, with the reason.
    Raises ``SourceError``.
    """
    with open_snapshot(address) as (session, tables), lost_with_sessions(address.url, has_ended):
        return digests_in(session, tables, to_read, workers=workers, advance=advance, tolerant=tolerant)


def digests_in(
    session: PostgresSession,
    tables: Sequence[PostgresTable],
    to_read: TablesToRead,
    *,
    workers: int,
    advance: Advance,
    tolerant: bool = False,
) -> LiveTables:
    """Like ``digest_tables``, in a snapshot that is open, and shows these ``tables``."""
    feeds = Feeds(session, workers=workers)
    chosen = list(to_read.chosen(tables))
    most_bytes = largest_chunk(chosen, workers)
    work = [(table, pages) for table in chosen for pages in cut(table, most_bytes)]
    if session.large_objects and to_read.names is None:
        numbers = to_read.large_objects
        condition = "" if numbers is None else large_objects.only(numbers)
        work.append((large_objects.table(session.large_objects, condition), (0, None)))
    table_digests: dict[Name, RowsDigest] = {}
    unread: dict[Name, str] = {}
    try:
        with ThreadPoolExecutor(max(1, workers)) as pool:
            batches = pool.map(
                lambda batch: _digests(feeds, batch, advance, tolerant=tolerant), _batches(feeds, work)
            )
            for table, digest in chain.from_iterable(batches):
                name = table.schema, table.name
                if isinstance(digest, str):
                    unread.setdefault(name, digest)
                else:
                    table_digests[name] = table_digests.get(name, RowsDigest()) + digest
    finally:
        feeds.close()
    whole = {name: digest for name, digest in table_digests.items() if name not in unread}
    columns = {(table.schema, table.name): [column.name for column in table.columns] for table in chosen}
    return LiveTables(whole, unread, columns)


def live_tables(
    url: str | PostgresAddress,
    to_read: TablesToRead | None = None,
    *,
    workers: int = 2,
    advance: Advance = lambda _rows, _size_bytes: None,
) -> Mapping[Name, RowsDigest]:
    """Return the digests alone, of all tables unless ``to_read`` says which; see ``digest_tables``."""
    address = parse_url(url) if isinstance(url, str) else url
    return digest_tables(address, to_read or TablesToRead(), workers=workers, advance=advance).digests


def digests_requested(
    session: PostgresSession, tables: Sequence[PostgresTable], request: TablesRequest
) -> LiveTables:
    """Return the digests of the tables that a request names; see ``digests_in``."""
    return digests_in(
        session,
        tables,
        TablesToRead(also=request.also, without=request.without),
        workers=request.workers,
        advance=request.advance,
        tolerant=request.tolerant,
    )


def _batches(feeds: Feeds, chunks: Sequence[Chunk]) -> list[list[Chunk]]:
    """Return the chunks, small ones in batches that can be read by one request."""
    small: list[Chunk] = []
    others: list[Chunk] = []
    for chunk in chunks:
        (small if feeds.is_small(chunk[0]) else others).append(chunk)
    batches = [[chunk] for chunk in others]
    return [*batches, *(small[start : start + BATCH] for start in range(0, len(small), BATCH))]


def _digests(
    feeds: Feeds, chunks: Sequence[Chunk], advance: Advance | None, *, tolerant: bool
) -> list[tuple[PostgresTable, RowsDigest | str]]:
    """Return the digest of each chunk, or, if ``tolerant``, why it cannot be read. Where they cannot be read by one
    request, each is read by one of its own.
    """
    read = feeds.read_all(chunks) if len(chunks) > 1 else []
    if read:
        return [
            (table, digest_rows(rows.blocks(), advance, has_columns=bool(table.columns)))
            for (table, _), rows in zip(chunks, read, strict=True)
        ]
    digests: list[tuple[PostgresTable, RowsDigest | str]] = []
    for table, pages in chunks:
        try:
            digest = digest_rows(feeds.rows(table, pages), advance, has_columns=bool(table.columns))
        except SourceError as exc:
            if not tolerant or type(exc) not in {SourceError, SourceNotAllowedError}:
                raise
            digests.append((table, str(exc)))
        else:
            digests.append((table, digest))
    return digests

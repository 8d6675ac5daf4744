"""Blocks of COPY output from one connection that sees the shared snapshot.

What has arrived is cut at the protocol's messages, by the compiled core or by asyncpg, and the server sends one message
a row: so every block ends at a row's end. Where asyncpg cannot log in as libpq does (Kerberos, say),
psycopg's COPY does the same, a row a call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import psycopg
from msgspec import Struct

from exporters import _rows
from exporters.errors import SourceError
from exporters.postgres import large_objects
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.charset.encodings import Codec, may_change
from exporters.postgres.charset.raw_rows import converted
from exporters.postgres.charset.server_conversion import (
    conversions,
    is_unconvertible,
    read_conversions,
    refused,
)
from exporters.postgres.chunk_plan import (
    Range,
    canonical_select,
    changing,
    copy_statement,
    is_replaced,
    longest_query,
    may_have_long_rows,
)
from exporters.postgres.errors import replaced_since, translate
from exporters.postgres.identifiers import quote_name
from exporters.postgres.rows.csv_rows import csv_values, split_lines
from exporters.postgres.rows.unplannable_tables import as_selected, copied
from exporters.postgres.sessions.connection import (
    PostgresAddress,
    connect,
    needs_libpq,
    row_connection_options,
)
from exporters.postgres.sessions.gentle_pace import GentleReads, ServerLoad, read_load
from exporters.postgres.sessions.session_limits import SessionLimits, explained
from exporters.postgres.sessions.snapshot_session import PostgresSession
from exporters.postgres.sessions.snapshot_transaction import Transaction
from exporters.sql.large_values.long_values import LONG_BYTES, PIECE_BYTES
from exporters.sql.row_blocks import LongRowText, RowBlocks, SentRows

if TYPE_CHECKING:
    from typing_extensions import Buffer

Chunk = tuple[PostgresTable, Range]
"""A table, and a range of its pages."""
BATCH = 32
"""How many small chunks are read by one request: their locks are held together."""
_SMALL_TABLE_BYTES = 128 * 2**10
_BLOCK_BYTES = 2**20
"""Text that is parsed at once: fits the processor's cache (splitting 8 MB costs nearly twice as much a row)."""


class Feed(Protocol):
    """A connection. One thread at a time, and one COPY."""

    def copy(self, sources: Sequence[str], encoding: str, *, in_pieces: bool) -> RowBlocks:
        """Run ``COPY source TO STDOUT (FORMAT csv)`` in an encoding for queries in brackets, or tables, by one request.
        Yield the rows; behind those of each source comes their count. ``in_pieces``: long rows come in pieces. Without
        the compiled core that costs something for all other rows. A table is read by its name in pieces only. What is
        not in pieces may be read as ``FORMAT text``, which takes the server a tenth less, and made CSV here.
        """
        ...

    def execute(self, statements: str) -> None:
        """Run statements that return nothing."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class PsycopgFeed:
    """Runs COPY by libpq: slower than ``AsyncpgFeed``."""

    def __init__(self, address: PostgresAddress, session_limits: SessionLimits) -> None:
        self._where = address.url
        self._connection = session_limits.connect(address)

    def copy(self, sources: Sequence[str], encoding: str, *, in_pieces: bool) -> RowBlocks:
        """See ``Feed``. By a request each; libpq holds a whole row all the same."""
        try:
            with self._connection.cursor() as cursor:
                for source in sources:
                    with cursor.copy(copy_statement(source, encoding).encode()) as copy:
                        for row in copy:
                            if in_pieces and len(row) > LONG_BYTES:
                                yield LongRowText(_pieces(row))
                            else:
                                yield bytes(row)
                    yield SentRows(cursor.rowcount)
        except psycopg.Error as exc:
            raise translate(exc, self._where) from exc

    def execute(self, statements: str) -> None:
        """See ``Feed``."""
        try:
            self._connection.execute(statements.encode())
        except psycopg.Error as exc:
            raise translate(exc, self._where) from exc

    def close(self) -> None:
        """See ``Feed``."""
        self._connection.close()


def _source_of(table: PostgresTable, pages: Range) -> str:
    """Return what stands behind COPY to read a chunk. It is the table's name where its lines are those of the canonical
    query: to plan a query of a small table takes the server as long as to read it. COPY reads neither materialized
    views nor generated columns by name.
    """
    names = [quote_name(column.name) for column in table.columns if not column.generated]
    is_plain = bool(names) and names == [column.expression for column in table.columns]
    if is_plain and pages == (0, None) and not (table.view or table.condition):
        return copied(table)
    return f"({canonical_select(table, pages)})"


def _replaced(*tables: PostgresTable) -> str:
    """Return a query for one row where one of these tables was replaced."""
    return f"(SELECT 1 WHERE {' OR '.join(map(is_replaced, tables))})"


def _pieces(row: Buffer) -> Iterator[bytes]:
    """Yield a line in pieces, without the newline at its end."""
    view = memoryview(row)[:-1]
    for start in range(0, len(view), PIECE_BYTES):
        yield bytes(view[start : start + PIECE_BYTES])


def copy_encoding(database: str) -> str:
    """Return the encoding of COPY for a database's own: UTF-8, but bytes as they are where it has none
    (SQL_ASCII).
    """
    return "SQL_ASCII" if database == "SQL_ASCII" else "UTF8"


def open_feed(session: PostgresSession) -> Feed:
    """Return a feed from the session's server, in no transaction yet."""
    from exporters.postgres.rows.asyncpg_feed import (  # noqa: PLC0415  meanwhile the server counts
        FEED_ERRORS,
        AsyncpgFeed,
    )

    address, session_limits = session.address, session.session_limits
    for _ in range(0 if needs_libpq(session.holder) else 2):
        try:
            feed = AsyncpgFeed(address, row_connection_options(session.holder), session_limits.timeouts())
            if feed.is_at(session.holder.info.hostaddr):
                return feed
            feed.close()  # the name has several addresses, and only libpq takes one of them along with the name
            break
        except TimeoutError:
            connect(
                address, session_limits.application
            ).close()  # it waits for a silent server, if anybody does
        except (*FEED_ERRORS, ValueError, RuntimeError):
            break
    try:
        return PsycopgFeed(address, session_limits)
    except psycopg.Error as exc:
        raise translate(exc, address.url) from exc


class Feeds:
    """Feeds of one snapshot, opened as they are needed and used again; never more than the limits allow."""

    def __init__(self, session: PostgresSession, *, workers: int) -> None:
        self._session = session
        self._encoding = str(session.position["encoding"])
        self._copied_as = copy_encoding(self._encoding)
        self._may_change = may_change(self._encoding)
        self._codec = Codec(self._encoding, self._conversions)
        self._room = threading.BoundedSemaphore(session.session_limits.workers(workers))
        self._idle: list[tuple[Feed, Transaction]] = []
        self._gentle = GentleReads(self._load) if session.session_limits.limits.gentle else None

    def numbers(self, query: str, table: PostgresTable | None = None) -> list[int]:
        """Run a query for one row of numbers. ``table``: see ``copy``."""
        return [int(number) for number in text_of(self.copy(f"({query})", table)).split(b",")]

    def rows(self, table: PostgresTable, pages: Range) -> RowBlocks:
        """Yield a chunk's rows; by many statements in a gentle export."""
        if self._gentle is None:
            return self._rows(table, pages)
        return _as_one_query(self._rows(table, part) for part in self._gentle.ranges(table, pages))

    def _load(self) -> ServerLoad:
        return read_load(self._session.session_limits.application, self._run, self.numbers)

    def _run(self, statement: str) -> None:
        with self._lent() as (feed, transaction):
            transaction.run(lambda: feed.execute(statement))

    def _rows(self, table: PostgresTable, pages: Range) -> RowBlocks:
        """Yield the rows of a range of pages. In some encodings the server is asked first whether their text comes
        through UTF-8 as it is.
        """
        if table.oid == large_objects.OID:
            return self.copy(f"({large_objects.SELECT} {table.condition})")
        if table.refusal:  # nothing can be asked of its rows before
            source, in_pieces, is_converted = copied(table), True, self._may_change
        else:
            source = f"({canonical_select(table, pages)})"
            # With the compiled core long rows in pieces cost the others less than the question whether there are any,
            # which the server answers by one more scan.
            in_pieces = self._has_long_rows(table, pages) if _rows.core is None else may_have_long_rows(table)
            is_converted = self._may_change and self._changes(table, pages)
        if is_converted:
            rows = self.copy(source, table, in_pieces=in_pieces, encoding=self._encoding)
            rows = converted(rows, self._codec)
        else:
            rows = self.copy(source, table, in_pieces=in_pieces)
        return as_selected(table, rows) if table.refusal else rows

    def is_plannable(self, table: PostgresTable) -> bool:
        """Tell whether the server can compute with the rows of a table, none of which is long."""
        return self._is_ordinary(table) and not self._has_long_rows(table, (0, None))

    def is_small(self, table: PostgresTable) -> bool:
        """Tell whether a table is for ``read_all``: it has few rows, none of them long, and nothing has to be asked
        before they are read.
        """
        is_small = table.size_bytes <= _SMALL_TABLE_BYTES
        return self._is_ordinary(table) and is_small and not may_have_long_rows(table)

    def read_all(self, chunks: Sequence[Chunk]) -> list[SmallRows]:
        """Return the rows of small chunks, read by one request; nothing where one of them cannot be read: each is for
        ``rows`` then.
        """
        sources = [_source_of(table, pages) for table, pages in chunks]
        sources.append(_replaced(*(table for table, _ in chunks)))
        try:
            with self._lent() as (feed, transaction):
                transaction.begin_for(len(sources))
                *queries, replaced = _small_rows(feed.copy(sources, self._copied_as, in_pieces=True))
        except SourceError:
            return []
        return [] if replaced.sent_rows else queries

    def _is_ordinary(self, table: PostgresTable) -> bool:
        """Tell whether queries read a table, and all of its text comes through UTF-8 as it is."""
        return not (table.oid == large_objects.OID or table.refusal or self._may_change)

    def _has_long_rows(self, table: PostgresTable, pages: Range) -> bool:
        """Tell whether some rows of a chunk may be long; the server is asked where it may have any."""
        return may_have_long_rows(table) and self.numbers(longest_query(table, pages))[0] > LONG_BYTES

    def _changes(self, table: PostgresTable, pages: Range) -> bool:
        """Tell whether a chunk has text that becomes another one, or nothing, by way of UTF-8."""
        query = changing(table, pages, self._encoding)
        if query is None:
            return False
        try:
            return self.numbers(query) != [0]
        except SourceError as exc:
            if not is_unconvertible(exc):
                raise
            return True

    def _conversions(self, codes: Sequence[bytes]) -> Sequence[tuple[bytes, bool]] | bytes:
        """See ``encodings.Ask``."""
        query = conversions(codes, self._encoding)
        with self._lent() as (feed, transaction):
            transaction.run(lambda: feed.execute("SAVEPOINT moveout"))
            try:
                lines = text_of(feed.copy([f"({query})"], "UTF8", in_pieces=False))
            except SourceError as exc:
                if not is_unconvertible(exc):
                    raise
                feed.execute("ROLLBACK TO SAVEPOINT moveout; RELEASE SAVEPOINT moveout")
                return refused(exc)
            feed.execute("RELEASE SAVEPOINT moveout")
        return read_conversions(map(csv_values, split_lines(lines)))

    def copy(
        self, source: str, table: PostgresTable | None = None, *, in_pieces: bool = False, encoding: str = ""
    ) -> RowBlocks:
        """Run one COPY of a query in brackets, or of a table by its name, on an idle feed. In UTF-8 unless another
        encoding is given. A feed that failed, or whose rows were not all read, is not used again. ``table``: raise
        ``SourceSnapshotLostError`` behind its rows where it was replaced since the snapshot. ``in_pieces``: see
        ``Feed``.
        """
        sources = [source] if table is None else [source, _replaced(table)]
        with self._lent() as (feed, transaction):
            copy = partial(feed.copy, sources, encoding or self._copied_as, in_pieces=in_pieces)
            transaction.begin_for(1)
            try:
                yield from self._blocks_of_first(copy())
            except SourceError as exc:
                if not transaction.begin_again_after(exc):
                    raise
            else:
                return
            yield from self._blocks_of_first(copy())

    def _blocks_of_first(self, source: RowBlocks) -> RowBlocks:
        """Yield the rows of the first query, joined until they are worth the work; long rows do not wait for them. A
        second query must have no rows: see ``_replaced``.
        """
        pieces: list[bytes | bytearray] = []
        size_bytes = 0
        with closing(source):
            for block in source:
                if isinstance(block, LongRowText):
                    yield block
                    continue
                if not isinstance(block, SentRows):
                    pieces.append(block)
                    size_bytes += len(block)
                if pieces and (size_bytes >= _BLOCK_BYTES or isinstance(block, SentRows)):
                    yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
                    pieces.clear()
                    size_bytes = 0
                if isinstance(block, SentRows):
                    yield block
                    break
            if any(isinstance(block, SentRows) and block.count for block in source):
                raise replaced_since(self._session.address.url)

    @contextmanager
    def _lent(self) -> Iterator[tuple[Feed, Transaction]]:
        with self._room:
            try:
                feed, transaction = self._idle.pop()
            except IndexError:
                feed = open_feed(self._session)
                transaction = Transaction(self._session.exported, feed.execute)
            try:
                yield feed, transaction
            except SourceError as exc:
                feed.close()
                raise explained(exc, self._session.watch) from exc.__cause__
            except BaseException:
                feed.close()
                raise
            self._idle.append((feed, transaction))

    def close(self) -> None:
        """Close the idle feeds."""
        while self._idle:
            self._idle.pop()[0].close()


def _as_one_query(sources: Iterable[RowBlocks]) -> RowBlocks:
    """Yield the rows of several queries as those of one: the sum of their counts comes last."""
    sent_rows = 0
    for source in sources:
        with closing(source):
            for block in source:
                if isinstance(block, SentRows):
                    sent_rows += block.count
                else:
                    yield block
    yield SentRows(sent_rows)


def text_of(source: RowBlocks) -> bytes:
    """Return the lines of few rows."""
    return b"".join(block for block in source if not isinstance(block, LongRowText | SentRows))


class SmallRows(Struct, frozen=True):
    """The rows of a query that has few: their lines, and how many the server says it sent."""

    block: bytes
    sent_rows: int

    def blocks(self) -> RowBlocks:
        """Yield the rows as a feed does."""
        yield self.block
        yield SentRows(self.sent_rows)


def _small_rows(source: RowBlocks) -> list[SmallRows]:
    """Return the rows of several queries of few rows, each of which ends with its count. Raises ``SourceError`` for a
    long row.
    """
    queries: list[SmallRows] = []
    blocks: list[bytes | bytearray] = []
    for block in source:
        if isinstance(block, LongRowText):
            raise SourceError("a row is longer than its table")
        if isinstance(block, SentRows):
            queries.append(SmallRows(b"".join(blocks), block.count))
            blocks.clear()
        else:
            blocks.append(block)
    return queries

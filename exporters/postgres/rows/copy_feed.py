"""Blocks of COPY output from one connection that sees the shared snapshot.

asyncpg hands over everything that has arrived, cut at the protocol's messages, and the server sends one
message a row: so every block ends at a row's end. Where asyncpg cannot log in as libpq does (Kerberos, say),
psycopg's COPY does the same, a row a call.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg
import psycopg

from exporters.errors import SourceError
from exporters.postgres import large_objects
from exporters.postgres.catalog import Table
from exporters.postgres.charset.encodings import Codec, may_change
from exporters.postgres.charset.raw_rows import convert
from exporters.postgres.charset.server_conversion import (
    conversions,
    is_unconvertible,
    read_conversions,
    refused,
)
from exporters.postgres.chunk_plan import Range, canonical_select, changing, longest_query
from exporters.postgres.errors import DRIVER_ERRORS, translate
from exporters.postgres.rows.copy_stream import copy_stream
from exporters.postgres.rows.unplannable_tables import as_selected, copied
from exporters.postgres.sessions.connection import (
    UNHURRIED,
    Address,
    connect,
    pin_statement,
    row_connection_options,
)
from exporters.postgres.sessions.session_settings import Manners, explained
from exporters.postgres.sessions.snapshot_session import Session
from exporters.postgres.sessions.snapshot_transaction import Transaction
from exporters.sql.blocks import OnBlock, OnLong
from exporters.sql.csv_lines import csv_values
from exporters.sql.large_values.long_values import LONG_BYTES, PIECE_BYTES
from exporters.sql.row_text import split_lines

if TYPE_CHECKING:
    from typing_extensions import Buffer

SMALL_BYTES = 128 * 2**10
PAUSE_SECONDS = 0.001
"""After a small block wait for more to arrive: to be woken for every few rows costs more than the rows. Not after the
first one: a small table has no other.
"""


class Feed(Protocol):
    """A connection. One thread at a time."""

    def copy(self, query: str, encoding: str, on_block: OnBlock, on_long: OnLong | None = None) -> int:
        """Run ``COPY (query) TO STDOUT (FORMAT csv)`` in an encoding; return the number of rows that the server says it
        sent. With ``on_long`` long rows go there, at some cost for all others.
        """
        ...

    def copy_table(self, table: str, encoding: str, on_block: OnBlock, on_long: OnLong) -> int:
        """Do the same for ``COPY table TO STDOUT``, which is not planned; ``table`` may have a list of columns."""
        ...

    def execute(self, statements: str) -> None:
        """Run statements that return nothing."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class AsyncpgFeed:
    """Blocks of up to what one read of the socket brings."""

    def __init__(self, address: Address, options: dict[str, Any], timeouts: str) -> None:
        self._where = address.url
        self._loop = asyncio.new_event_loop()
        try:
            self._connection = self._loop.run_until_complete(self._open(options, timeouts))
        except BaseException:
            self._loop.close()
            raise

    async def _open(self, options: dict[str, Any], timeouts: str) -> Any:
        connection = await asyncpg.connect(**options)
        try:
            await connection.execute(UNHURRIED)
            await connection.execute(pin_statement())
            await connection.execute(timeouts)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def copy(self, query: str, encoding: str, on_block: OnBlock, on_long: OnLong | None = None) -> int:
        """See ``Feed``."""
        if on_long is not None:
            return self._copy_long(_statement(query, encoding), on_block, on_long)
        failed: list[Exception] = []
        first = True

        async def take(block: bytes) -> None:
            nonlocal first
            try:
                on_block(block)
                if not first:
                    _pause(len(block))
                first = False
            except Exception as exc:  # asyncpg would wrap the cancellation around it
                failed.append(exc)
                raise

        task = self._connection.copy_from_query(query, output=take, format="csv", encoding=encoding)
        try:
            status = self._loop.run_until_complete(task)
        except Exception as exc:
            if failed:
                raise failed[0] from None
            if isinstance(exc, DRIVER_ERRORS):
                raise translate(exc, self._where) from exc
            raise
        return int(status.rpartition(" ")[2])

    def copy_table(self, table: str, encoding: str, on_block: OnBlock, on_long: OnLong) -> int:
        """See ``Feed``."""
        return self._copy_long(_statement_of(table, encoding), on_block, on_long)

    def _copy_long(self, statement: str, on_block: OnBlock, on_long: OnLong) -> int:
        try:
            return self._loop.run_until_complete(copy_stream(self._connection, statement, on_block, on_long))
        except DRIVER_ERRORS as exc:
            raise translate(exc, self._where) from exc

    def execute(self, statements: str) -> None:
        """See ``Feed``."""
        try:
            self._loop.run_until_complete(self._connection.execute(statements))
        except DRIVER_ERRORS as exc:
            raise translate(exc, self._where) from exc

    def close(self) -> None:
        """See ``Feed``."""
        if not self._loop.is_closed():
            self._connection.terminate()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()


class PsycopgFeed:
    """The same by libpq, slower."""

    def __init__(self, address: Address, manners: Manners) -> None:
        self._where = address.url
        self._connection = connect(address, manners.application)
        self._connection.execute(manners.timeouts().encode())

    def copy(self, query: str, encoding: str, on_block: OnBlock, on_long: OnLong | None = None) -> int:
        """See ``Feed``. libpq holds a whole row all the same."""
        return self._copy(_statement(query, encoding), on_block, on_long)

    def copy_table(self, table: str, encoding: str, on_block: OnBlock, on_long: OnLong) -> int:
        """See ``Feed``."""
        return self._copy(_statement_of(table, encoding), on_block, on_long)

    def _copy(self, statement: str, on_block: OnBlock, on_long: OnLong | None) -> int:
        try:
            with self._connection.cursor() as cursor:
                with cursor.copy(statement.encode()) as copy:
                    for row in copy:
                        if on_long is not None and len(row) > LONG_BYTES:
                            _in_pieces(row, on_long)
                        else:
                            on_block(bytes(row))
                return cursor.rowcount
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


def _pause(size_bytes: int) -> None:
    """Let more arrive after a small block. The loop serves this one connection, so nobody else is kept waiting."""
    if size_bytes < SMALL_BYTES:
        time.sleep(PAUSE_SECONDS)


def _statement(query: str, encoding: str) -> str:
    return _statement_of(f"({query})", encoding)


def _statement_of(table: str, encoding: str) -> str:
    return f"COPY {table} TO STDOUT WITH (FORMAT csv, ENCODING '{encoding}')"


def _in_pieces(row: Buffer, on_long: OnLong) -> None:
    text = on_long()
    with memoryview(row)[:-1] as view:
        for start in range(0, len(view), PIECE_BYTES):
            text.write(bytes(view[start : start + PIECE_BYTES]))
    text.close()


def copy_encoding(database: str) -> str:
    """Return the encoding of COPY for a database's own: UTF-8, but bytes as they are where it has none
    (SQL_ASCII).
    """
    return "SQL_ASCII" if database == "SQL_ASCII" else "UTF8"


def open_feed(session: Session) -> Feed:
    """Return a feed from the session's server, in no transaction yet."""
    address, manners = session.address, session.manners
    try:
        return AsyncpgFeed(address, row_connection_options(session.holder), manners.timeouts())
    except (*DRIVER_ERRORS, ValueError, RuntimeError):
        pass
    try:
        return PsycopgFeed(address, manners)
    except psycopg.Error as exc:
        raise translate(exc, address.url) from exc


class Feeds:
    """Feeds of one snapshot, opened as they are needed and used again; never more than the limits allow."""

    def __init__(self, session: Session, *, workers: int) -> None:
        self._session = session
        self._encoding = str(session.position["encoding"])
        self._codec = Codec(self._encoding, self._conversions)
        self._room = threading.BoundedSemaphore(session.manners.workers(workers))
        self._idle: list[tuple[Feed, Transaction]] = []

    def numbers(self, query: str) -> list[int]:
        """Run a query for one row of numbers."""
        pieces: list[bytes] = []
        self.copy(query, pieces.append)
        return [int(number) for number in b"".join(pieces).split(b",")]

    def rows(self, table: Table, pages: Range, on_block: OnBlock, on_long: OnLong) -> int:
        """Read a chunk's rows; return how many the server says they are. Whether some may be long is asked first, and
        in some encodings, whether their text comes through UTF-8 as it is.
        """
        if table.oid == large_objects.OID:
            return self.copy(f"{large_objects.SELECT} {table.condition}", on_block)
        if table.refusal:
            return self._unplanned_rows(table, on_block, on_long)
        asked = longest_query(table, pages)
        long = asked is not None and self.numbers(asked)[0] > LONG_BYTES
        query = canonical_select(table, pages)
        if not may_change(self._encoding) or not self._changes(table, pages):
            return self.copy(query, on_block, on_long if long else None)

        def as_stored(take: OnBlock, take_long: OnLong) -> int:
            return self.copy(query, take, take_long if long else None, encoding=self._encoding)

        return convert(as_stored, self._codec, on_block, on_long)

    def _unplanned_rows(self, table: Table, on_block: OnBlock, on_long: OnLong) -> int:
        """Read a table by its name. Nothing can be asked of its rows before."""
        take, take_long = as_selected(table, on_block, on_long)

        def read(take: OnBlock, take_long: OnLong, encoding: str = copy_encoding(self._encoding)) -> int:
            with self._lent() as (feed, transaction):
                return transaction.run(lambda: feed.copy_table(copied(table), encoding, take, take_long))

        if not may_change(self._encoding):
            return read(take, take_long)
        return convert(partial(read, encoding=self._encoding), self._codec, take, take_long)

    def _changes(self, table: Table, pages: Range) -> bool:
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
        pieces: list[bytes] = []
        query = conversions(codes, self._encoding)
        with self._lent() as (feed, transaction):
            transaction.run(lambda: feed.execute("SAVEPOINT moveout"))
            try:
                feed.copy(query, "UTF8", pieces.append)
            except SourceError as exc:
                if not is_unconvertible(exc):
                    raise
                feed.execute("ROLLBACK TO SAVEPOINT moveout; RELEASE SAVEPOINT moveout")
                return refused(exc)
            feed.execute("RELEASE SAVEPOINT moveout")
        return read_conversions(map(csv_values, split_lines(b"".join(pieces))))

    def copy(
        self, query: str, on_block: OnBlock, on_long: OnLong | None = None, *, encoding: str | None = None
    ) -> int:
        """Run one COPY on an idle feed, in UTF-8 unless it is said; a feed that failed is not used again."""
        wanted = encoding or copy_encoding(self._encoding)
        with self._lent() as (feed, transaction):
            return transaction.run(lambda: feed.copy(query, wanted, on_block, on_long))

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

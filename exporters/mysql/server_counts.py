"""The server's own count of every table, to compare with the rows that were exported."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import pymysql

from exporters.api import Loss
from exporters.errors import SourceError, SourceSnapshotLostError, SourceUnreachableError
from exporters.mysql.catalog import NOT_COUNTED, MysqlColumn, MysqlTable
from exporters.mysql.connection import MysqlAddress, connect, shut
from exporters.mysql.consistent_snapshot import MysqlSession
from exporters.mysql.errors import (
    DRIVER_ERRORS,
    has_ended,
    is_about_the_thing,
    last_session_error,
    message_of,
)
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.rows.row_feed import Feed
from exporters.sql.source_summary import GIVEN_UP, Counted

PROPERTY = "types within JSON"
_HIDDEN = ("DECIMAL", "UNSIGNED INTEGER", "DATE", "TIME", "DATETIME", "BLOB", "BIT", "OPAQUE")
_BELOW = ("$**.*", "$**[*]")
"""Members of objects, and cells of arrays, at any depth."""


Answer = TypeVar("Answer")
_Use = Callable[[Callable[[Feed], bytes | str]], bytes | str]

_SUM = "CAST(COALESCE(SUM({}*1e0),0) AS UNSIGNED)"
"""Adds up doubles, which are exact up to 2**53: the server adds integers up as decimals, which takes longer."""


class Counting:
    """Counts all tables (by number), the largest first. ``begin`` lets the holder of the snapshot count while the rows
    are read, because it has nothing else to do; it may be called again. ``on_holder`` lets it do something else between
    two tables. ``result`` lets the other sessions help, once they are free.
    """

    def __init__(self, session: MysqlSession, tables: Mapping[int, MysqlTable], *, workers: int) -> None:
        self._session = session
        self._tables = tables
        self._workers = max(1, workers)
        self._left = deque(sorted(tables, key=lambda number: -tables[number].size_bytes))
        self._counts: dict[int, Counted | str] = {}
        self._losses: dict[int, list[Loss]] = {}
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="moveout-count")
        self._holder_pool = ThreadPoolExecutor(1, thread_name_prefix="moveout-holder")
        self._lock = threading.Lock()
        self._counted_by_holder: Future[None] | None = None
        """The count of the last table that the holder was to count."""
        self._asked: Future[Any] | None = None
        """What it was to do last."""
        self._busy: set[int] = set()
        """The sessions that count just now, by the server's numbers of them."""
        self._is_given_up = False

    def begin(self) -> None:
        """Count on the holder of the snapshot."""
        with self._lock:
            if self._counted_by_holder is None:
                self._counted_by_holder = self._ask(self._count_by_holder)

    def on_holder(self, ask: Callable[[], Answer]) -> Future[Answer]:
        """Have the holder of the snapshot asked as soon as it has counted the table that it counts now."""
        with self._lock:
            return self._ask(ask)

    def _ask(self, ask: Callable[[], Answer]) -> Future[Answer]:
        """Have the holder asked by its own thread. The caller has the lock."""
        asked = self._holder_pool.submit(ask)
        self._asked = asked
        return asked

    def result(self) -> dict[int, Counted | str]:
        """Return the counts, or why a table could not be counted. From here on the holder is free, but for what it was
        asked by ``on_holder``. Raises ``SourceError`` where the server has gone away.
        """
        feeds = self._session.feeds
        work = [self._pool.submit(self._all, feeds.use) for _ in range(self._workers)]
        for future in work:
            self._wait_for(future)
        while (last := self._counted_by_holder) is not None:
            self._wait_for(last)
            if last is self._counted_by_holder:
                break
        return {number: self._counts.get(number, GIVEN_UP) for number in self._tables}

    def _wait_for(self, counted: Future[None]) -> None:
        try:
            counted.result()
        except SourceError:
            if not self._is_given_up:
                raise

    def give_up(self) -> None:
        """Count no more: ``result`` returns why. It may be called again."""
        self._is_given_up = True
        self._left.clear()
        with self._lock:
            busy = list(self._busy)
        for thread_id in busy:
            _end_query(self._session.address, thread_id)

    @property
    def losses(self) -> list[Loss]:
        """What was found on the way that the rows do not show; known with the result."""
        return [loss for number in self._tables for loss in self._losses.get(number, ())]

    def close(self) -> None:
        """End everything; what the holder still does is stopped, and its session with it."""
        self._left.clear()
        if self._asked is not None and not self._asked.done():
            _stop(self._session)
        self._holder_pool.shutdown(cancel_futures=True)
        self._pool.shutdown()

    def _count_by_holder(self) -> None:
        """Count a table on the holder. The next one comes after what it was asked meanwhile."""
        feed = Feed(self._session.holder)
        try:
            counted = self._count_one(lambda ask: ask(feed))
        except DRIVER_ERRORS as exc:
            raise last_session_error(exc, self._session.address.url) from exc
        if counted and self._left:
            with self._lock:
                self._counted_by_holder = self._ask(self._count_by_holder)

    def _all(self, use: _Use) -> None:
        """Count the tables that no other thread has begun to count."""
        while self._count_one(use):
            pass

    def _count_one(self, use: _Use) -> bool:
        """Count a table that no other thread has begun to count; return whether there was one."""
        try:
            number = self._left.popleft()
        except IndexError:
            return False
        table, used = self._tables[number], partial(self._used, use)
        self._counts[number] = _count(table, used)
        self._losses[number] = _hidden_types(table, used)
        return True

    def _used(self, use: _Use, ask: Callable[[Feed], bytes | str]) -> bytes | str:
        """Ask by a session, whose query ``give_up`` can end meanwhile; by another one where that session has ended. A
        snapshot's sessions are not opened again, so there is a last one.
        """

        def watched(feed: Feed) -> bytes | str:
            thread_id = feed.connection.raw.thread_id()
            with self._lock:
                self._busy.add(thread_id)
            try:
                return ask(feed)
            finally:
                with self._lock:
                    self._busy.discard(thread_id)

        while True:
            try:
                return use(watched)
            except SourceSnapshotLostError:
                raise
            except SourceUnreachableError as exc:
                if self._is_given_up or not has_ended(exc):
                    raise


def _count(table: MysqlTable, use: _Use) -> Counted | str:
    """Let the server count a table's rows and the bytes of its texts; return why not, where it is the table's."""
    measured = [column for column in table.columns if column.octets]
    sums = "".join(f",',',{_SUM.format(column.octets)}" for column in measured)
    query = f"SELECT CONCAT(COUNT(*){sums}) FROM {table.source}"
    totals = use(lambda feed: _ask(feed, query))
    if isinstance(totals, str):
        return totals
    rows, *octets = map(int, totals.split(b","))
    counted = zip(measured, octets, strict=True)
    return Counted(rows, {column.name: size for column, size in counted if size < NOT_COUNTED})


def _hidden_types(table: MysqlTable, use: _Use) -> list[Loss]:
    """Ask which types the JSON of a table has that its text does not show."""
    losses = []
    for column in json_columns(table):
        query = types_query(table, column)
        type_names = use(lambda feed, query=query: _ask(feed, query))  # type: ignore[misc]
        if type_names:
            types = type_names if isinstance(type_names, str) else type_names.decode()
            losses.append(loss_of(table, column, types))
    return losses


def _ask(feed: Feed, query: str) -> bytes | str:
    try:
        return feed.value(query)
    except pymysql.Error as exc:
        if not is_about_the_thing(exc):
            raise
        return message_of(exc)


def _stop(session: MysqlSession) -> None:
    """Stop the holder's query on the server, and wake the thread that waits for its result."""
    raw = session.holder.raw
    _end_query(session.address, raw.thread_id())
    with contextlib.suppress(OSError, AttributeError):
        shut(raw)  # closing it would wake no thread


def _end_query(address: MysqlAddress, thread_id: int) -> None:
    """End the query of a session on the server, as far as that answers."""
    with contextlib.suppress(SourceError, *DRIVER_ERRORS):
        killer = connect(address)
        try:
            killer.run(f"KILL QUERY {thread_id}")
        finally:
            killer.close()


def json_columns(table: MysqlTable) -> Sequence[MysqlColumn]:
    """Return the columns of MySQL's JSON type; MariaDB has none: its JSON is a text."""
    return [column for column in table.columns if column.sql_type == "json" and not column.generated]


def types_query(table: MysqlTable, column: MysqlColumn) -> str:
    """Return what asks for the types that a column's text does not show, separated by commas, in order."""
    hidden = ", ".join(map(quote_literal, _HIDDEN))
    json = f"moved.{quote_name(column.name)}"
    source = f"FROM {table.label} AS moved"
    parts = [f"SELECT JSON_TYPE({json}) AS found {source}"]
    parts += [
        f"SELECT JSON_TYPE(below.value) {source},"
        f" JSON_TABLE({json}, {quote_literal(path)} COLUMNS (value JSON PATH '$')) AS below"
        for path in _BELOW
    ]
    types = " UNION ALL ".join(parts)
    return (
        "SELECT COALESCE(GROUP_CONCAT(DISTINCT found ORDER BY found SEPARATOR ', '), '')"
        f" FROM ({types}) AS types WHERE found IN ({hidden})"
    )


def loss_of(table: MysqlTable, column: MysqlColumn, types: str) -> Loss:
    """Return the loss for a column that has such types, or could not be queried."""
    reason = (
        f"{types}: its text does not show them; they come back as the numbers and strings that they print as"
    )
    return Loss(f"{table.label}.{quote_name(column.name)}", PROPERTY, reason)

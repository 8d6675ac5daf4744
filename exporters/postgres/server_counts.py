"""The server's own count of every table, to compare with the rows that were exported."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from msgspec import Struct

from exporters.connections.open_connections import shut_socket, waking_socket
from exporters.connections.silent_servers import connected
from exporters.errors import SourceError, SourceSilentError, SourceUnreachableError
from exporters.postgres import large_objects
from exporters.postgres.catalog import PostgresTable
from exporters.postgres.chunk_plan import Range, is_replaced, rows_of
from exporters.postgres.errors import has_ended, replaced_since, translate
from exporters.postgres.identifiers import quote_name
from exporters.postgres.rows.unplannable_tables import counted
from exporters.postgres.sessions.connection import connect_once, file_number
from exporters.postgres.sessions.gentle_pace import GentleReads, ServerLoad, read_load
from exporters.postgres.sessions.session_limits import SessionLimits, explained
from exporters.postgres.sessions.snapshot_session import PostgresSession
from exporters.postgres.sessions.snapshot_transaction import Transaction
from exporters.sql.source_summary import GIVEN_UP, Counted

Answer = TypeVar("Answer")
_CANCEL_SECONDS, _GIVE_UP_SECONDS = 5.0, 1.0
_CANCEL_AGAIN_SECONDS = 0.05
_WAIT_SECONDS, _CONNECT_AGAIN_SECONDS = 90.0, 2.0
"""How long a connection is tried again, about as long as units are, and the pause between two attempts."""
_TRIES = 3
"""How often a table is counted whose connection ends."""


class _Counter(Struct, frozen=True, eq=False):
    """A connection and its transaction within the snapshot."""

    connection: psycopg.Connection[Any]
    transaction: Transaction

    def numbers(self, query: str) -> list[int]:
        """Return the one row that a query finds."""
        cursor = self.transaction.run(lambda: self.connection.execute(query.encode()))
        return [int(number) for number in cursor.fetchone() or ()]

    def copied(self, table: str) -> int:
        """Return how many rows COPY reads of a table by its name."""

        def read() -> int:
            with self.connection.cursor() as cursor:
                with cursor.copy(f"COPY {table} TO STDOUT".encode()) as copy:
                    for _ in copy:
                        pass
                return cursor.rowcount

        return self.transaction.run(read)


class Counting:
    """Counts all tables (by number), the largest first, ``workers`` of them at once on connections of its own. Begins
    at once and ends with ``close``, which cancels what is still being counted.
    """

    def __init__(
        self, session: PostgresSession, tables: Mapping[int, PostgresTable], *, workers: int
    ) -> None:
        self._session = session
        self._gentle = GentleReads(self._load) if session.session_limits.limits.gentle else None
        self._lock = threading.Lock()
        self._idle: list[_Counter] = []
        self._busy: list[_Counter] = []
        self._closed = threading.Event()
        self._is_given_up = False
        self._pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="moveout-count")
        largest = sorted(tables, key=lambda number: -tables[number].size_bytes)
        futures = {number: self._pool.submit(self._count, tables[number]) for number in largest}
        self._counts = {number: futures[number] for number in tables}

    def result(self) -> dict[int, Counted | str]:
        """Wait for the counts; in place of one that could not be had because of the table itself is the reason. Raises
        ``SourceError`` where it is the server's or the role's.
        """
        return {number: self._result(count) for number, count in self._counts.items()}

    def _result(self, count: Future[Counted]) -> Counted | str:
        try:
            return count.result()
        except (SourceError, CancelledError) as exc:
            if self._is_given_up:
                return GIVEN_UP
            if type(exc) is not SourceError:
                raise
            return str(exc)

    def give_up(self) -> None:
        """Count no more: ``result`` returns why. What is being counted is cancelled, and whoever waits for it is woken.
        It may be called again.
        """
        self._is_given_up = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._cancel(_GIVE_UP_SECONDS)
        with self._lock:
            for counter in self._busy:
                with suppress(OSError, psycopg.Error):
                    shut_socket(counter.connection.fileno())

    @contextmanager
    def present(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend a connection that shows what is there now; best one that has nothing to count any more."""
        counter = self._taken()
        try:
            counter.connection.execute("ROLLBACK")
            yield counter.connection
        finally:
            with self._lock:
                self._busy.remove(counter)
            counter.connection.close()

    def close(self) -> None:
        """End everything."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        while not all(count.done() for count in self._counts.values()):
            self._cancel()  # again and again: one that had not begun to ask was not cancelled
            time.sleep(_CANCEL_AGAIN_SECONDS)
        self._pool.shutdown()
        for counter in self._idle:
            counter.connection.close()

    def _cancel(self, seconds: float = _CANCEL_SECONDS) -> None:
        """Cancel what is being counted; wait so long for each answer."""
        with self._lock:
            for counter in self._busy:
                with suppress(psycopg.Error):
                    counter.connection.cancel_safe(timeout=seconds)

    def _count(self, table: PostgresTable) -> Counted:
        """Let the server count a table's rows and the bytes of its texts."""
        if table.oid == large_objects.OID:
            return Counted(self._numbers(f"{large_objects.COUNT} {table.condition}")[0], {})
        if table.refusal:
            return Counted(self._asked(lambda counter: counter.copied(counted(table))), {})
        names = [column.name for column in table.columns if column.measured]
        sums = "".join(f", coalesce(sum(pg_catalog.octet_length({quote_name(name)})), 0)" for name in names)
        whole: Range = (0, None)
        ranges = [whole] if self._gentle is None else self._gentle.ranges(table, whole)
        replaced = f"{is_replaced(table)}::pg_catalog.int4"
        answers = [
            self._numbers(f"SELECT count(*){sums}, {replaced} {rows_of(table, pages)}") for pages in ranges
        ]
        rows, *octets, is_another = map(sum, zip(*answers, strict=True))
        if is_another:
            raise replaced_since(self._session.address.url)
        return Counted(rows, dict(zip(names, octets, strict=True)))

    def _load(self) -> ServerLoad:
        return read_load(self._session.session_limits.application, self._run, self._numbers)

    def _run(self, statement: str) -> None:
        self._asked(
            lambda counter: counter.transaction.run(lambda: counter.connection.execute(statement.encode()))
        )

    def _numbers(self, query: str) -> list[int]:
        return self._asked(lambda counter: counter.numbers(query))

    def _asked(self, ask: Callable[[_Counter], Answer]) -> Answer:
        """Ask on a connection; on another one where it has ended, as an administrator ends it. Where none can be
        opened, that was waited for.
        """
        for _ in range(_TRIES - 1):
            counter = self._taken()
            try:
                return self._asked_by(counter, ask)
            except SourceUnreachableError as exc:
                if not has_ended(exc) or self._is_given_up or self._closed.is_set():
                    raise
        return self._asked_by(self._taken(), ask)

    def _asked_by(self, counter: _Counter, ask: Callable[[_Counter], Answer]) -> Answer:
        try:
            if self._is_given_up:
                raise SourceUnreachableError(GIVEN_UP, about=self._session.address.url)
            result = ask(counter)
        except psycopg.Error as exc:
            counter.connection.close()
            error = translate(exc, self._session.address.url)
            error.__cause__ = exc
            raise explained(error, self._session.watch) from exc
        finally:
            with self._lock:
                self._busy.remove(counter)
        self._idle.append(counter)
        return result

    def _taken(self) -> _Counter:
        """Return an idle counter, or a new one; from now on it may be cancelled."""
        try:
            counter = self._idle.pop()
        except IndexError:
            counter = self._opened()
        with self._lock:
            self._busy.append(counter)
        return counter

    def _connected(self, session_limits: SessionLimits) -> psycopg.Connection[Any]:
        """Connect; again where the server lets nobody in for now. A silent one is waited for as long as others do."""
        address = self._session.address
        until = time.monotonic() + _WAIT_SECONDS

        def connect() -> psycopg.Connection[Any]:
            if self._closed.is_set():
                raise SourceUnreachableError("nobody waits for its counts any more", about=address.url)
            return connect_once(address, session_limits.application, settings=session_limits.timeouts())

        while True:
            try:
                connection = connected(address.url, connect)
                return waking_socket(address.url, connection, file_number)
            except SourceSilentError:
                raise
            except SourceUnreachableError:
                if time.monotonic() > until or self._closed.wait(_CONNECT_AGAIN_SECONDS):
                    raise

    def _opened(self) -> _Counter:
        session_limits = self._session.session_limits
        connection = self._connected(session_limits)
        transaction = Transaction(
            self._session.exported, lambda statements: connection.execute(statements.encode())
        )
        return _Counter(connection, transaction)

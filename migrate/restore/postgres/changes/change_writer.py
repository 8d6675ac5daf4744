"""Writes the changes of a PostgreSQL source to a PostgreSQL destination.

Changes wait, by table, until there are many. Tables do not wait for each other: triggers and foreign keys are off,
since the log has their effects. What many changes do together is written by few statements. Where one of these fails,
or touches another number of rows than it should, the same changes are written one by one in their order. So the one
which does not fit is named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.adapt import Dumper

from exporters.changes import Message, MessageKind
from exporters.errors import SourceDamagedError
from exporters.postgres.changes.pgoutput import Begin, Commit, Relation, Truncate, decode
from exporters.postgres.changes.publication import SENDS_GENERATED, base_tables
from exporters.postgres.changes.slot import lsn_text
from exporters.postgres.identifiers import quote_qualified
from exporters.postgres.schemas import PROGRESS_SCHEMA, SEARCH_EVERY_SCHEMA
from exporters.postgres.sessions.connection import parse_url, session_changes
from migrate.changes.apply import ChangeConflictError, Mark
from migrate.errors import BusyError, NotAllowedError
from migrate.restore.postgres.changes.destination_table import DestinationTable, read_table
from migrate.restore.postgres.changes.follow_marks import (
    MOVE_MARK,
    begin_again,
    end_again,
    forget_mark,
    read_again,
    read_mark,
)
from migrate.restore.postgres.changes.statements import is_about_data, write_change, write_together
from migrate.restore.postgres.changes.table_changes import TableChanges, Waiting
from migrate.restore.postgres.definitions.refusals import destination_error
from migrate.restore.postgres.destination import connect_writer, without_triggers, without_user_triggers
from migrate.runtime.crash_points import durable
from migrate.runtime.process_identity import command_name

_LOCK = "SELECT pg_catalog.pg_try_advisory_lock(1836021350, pg_catalog.hashtext($1))"
"""One session at a time applies the changes of a source ("movf")."""
_HOLDER = """
SELECT a.application_name, a.pid FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 1836021350
  AND l.objid = (pg_catalog.hashtext($1)::bigint & 4294967295)::oid
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""
_SETTINGS = """
SELECT pg_catalog.set_config(w.name, w.value, false) FROM (VALUES ('application_name', $1),
  ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'),
  ('enable_mergejoin', 'off')) AS w(name, value)
WHERE pg_catalog.current_setting(w.name, true) IS NOT NULL
"""
"""A few thousand rows are looked up by an index, whatever the server thinks of their number."""
_WAITING_CHANGES = 20_000
_WAITING_BYTES = 16 * 2**20
"""How much waits at most."""
_BEGIN = b"BEGIN; SELECT pg_catalog.pg_backend_pid()"
_PROCESS = """
SELECT pg_catalog.pg_backend_pid() WHERE pg_catalog.current_setting('search_path') = ''
  AND pg_catalog.current_setting('session_replication_role') = 'replica'
"""
_PREPARED_STATEMENTS = 1000
_NOT_FOLLOWED = frozenset({"information_schema", PROGRESS_SCHEMA})
"""Schemas of the server, and of moveout: no table there is in a publication."""


class _TextDumper(Dumper):
    """Passes on bytes as text of whatever type the server expects."""

    oid = 0

    def dump(self, obj: bytes) -> bytes:
        return obj


class PostgresChangeWriter:
    """See ``ChangeWriter``. ``single_changes``: how many were written one by one."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        source: str,
        shown: str,
        process: int,
        log: Mapping[str, Any],
    ) -> None:
        self._connection = connection
        self._source = source
        self._shown = shown
        self._process = process
        self._base_tables = base_tables(log)
        self._sends_generated = bool(log.get(SENDS_GENERATED))
        self._relations: dict[int, Relation] = {}
        self._shapes: dict[int, bytes] = {}
        self._skipped_names: frozenset[str] = frozenset()
        self._skipped: set[int] = set()
        self._read_again: Mapping[str, int] = {}
        self._applied_from: dict[int, int] = {}
        self._commit_position = 0
        self._tables: dict[int, TableChanges] = {}
        self._waiting_changes = self._waiting_bytes = 0
        self._is_open = False
        self._still = contextlib.ExitStack()
        self._stilled: set[str] = set()
        self._searching: set[str] = set()
        self._takes_all_bytes = connection.info.parameter_status("server_encoding") == "SQL_ASCII"
        self.written: dict[tuple[str, str], int] = {}
        self.single_changes = 0

    def mark(self) -> Mark | None:
        """See ``ChangeWriter``."""
        with self._translated():
            mark = read_mark(self._connection, self._source)
            self._read_again = read_again(self._connection, self._source) if mark else {}
        self._skipped_names = frozenset(mark.skipped if mark else ())
        return mark

    def forget(self) -> None:
        """See ``ChangeWriter``."""
        with self._translated():
            forget_mark(self._connection, self._source)

    def take(self, message: Message) -> None:
        """See ``ChangeWriter``."""
        kind = message.kind
        if kind is MessageKind.CHANGE:
            try:
                self._take_change(message)
            except psycopg.Error as exc:
                raise destination_error(exc, self._shown) from exc
        elif kind is MessageKind.SHAPE:
            self._take_shape(message.payload)
        elif kind is MessageKind.BEGIN:
            begin = decode(message.payload)
            assert isinstance(begin, Begin)
            self._commit_position = begin.final_position

    def written_of_server(self) -> int:
        """See ``ChangeWriter``: it counts by table."""
        return 0

    def commits_before(self, message: Message) -> bool:
        """See ``ChangeWriter``: every change is part of a transaction."""
        del message
        return False

    def commit(self, mark: Mark) -> None:
        """See ``ChangeWriter``."""
        with self._translated():
            self._begin()
            self._write()
            self._still.close()
            words = (self._source, str(mark.place.segment), str(mark.place.message), str(mark.position))
            if self._connection.execute(MOVE_MARK.encode(), words, prepare=True).rowcount != 1:
                raise ChangeConflictError(
                    f"{self._shown} has lost the mark which says how far the changes of {self._source} were applied",
                    next_step="restore the database anew",
                )
            with durable("follow.postgres.apply"):
                self._connection.execute(b"COMMIT")
            self._is_open, self._stilled = False, set()

    def rollback(self) -> None:
        """See ``ChangeWriter``."""
        self._forget()
        self._still.pop_all()  # it is undone together with the rows
        self._stilled = set()
        if self._is_open and not self._connection.closed:
            with self._translated():
                self._connection.execute(b"ROLLBACK")
        self._is_open = False

    def begin_again(self, tables: Sequence[str]) -> None:
        """See ``RereadingWriter``."""
        with self._translated():
            begin_again(self._connection, self._source, tables)

    def end_again(self, tables: Sequence[str], position: int) -> None:
        """See ``RereadingWriter``."""
        with self._translated():
            end_again(self._connection, self._source, tables, position)

    def close(self) -> None:
        """See ``ChangeWriter``."""
        self._connection.close()

    def _take_change(self, message: Message) -> None:
        if not self._is_open:
            self._begin()
        change = decode(message.payload)
        if isinstance(change, Truncate):
            self._write()
            self._truncate(change, message.position)
            return
        assert not isinstance(change, Begin | Commit | Relation)
        number = change.relation
        if self._is_skipped(number):
            return
        waiting = Waiting(message.position, change)
        changes = self._tables.get(number) or self._table(number, message.position)
        if not changes.add(waiting):
            self._write()
            changes = self._table(number, message.position)
            if not changes.add(waiting):
                self._write_single(changes.table, waiting)
                self._count(number, 1)
                return
        self._waiting_changes += 1
        self._waiting_bytes += len(message.payload)
        if self._waiting_changes >= _WAITING_CHANGES or self._waiting_bytes >= _WAITING_BYTES:
            self._write()

    def _take_shape(self, payload: bytes) -> None:
        relation = decode(payload)
        assert isinstance(relation, Relation)
        if relation.schema.startswith("pg_") or relation.schema in _NOT_FOLLOWED:
            table = quote_qualified(relation.schema, relation.name)
            raise SourceDamagedError(f"changes of {table}, which no source sends")
        if self._shapes.get(relation.oid) != payload:
            with self._translated():
                self._write()
            self._shapes[relation.oid], self._relations[relation.oid] = payload, relation
            self._tables.pop(relation.oid, None)
            name = f"{relation.schema}.{relation.name}"
            if name in self._skipped_names:
                self._skipped.add(relation.oid)
            self._applied_from[relation.oid] = self._read_again.get(name, 0)

    def _is_skipped(self, number: int) -> bool:
        """Tell whether changes of a table are left out: all of it are, or its rows were read later, and have them."""
        return number in self._skipped or self._commit_position < self._applied_from.get(number, 0)

    def _table(self, number: int, position: int) -> TableChanges:
        """Return what waits for a table. At its first change it is looked up at the destination; what waits is written
        before: it may be for the same table, which had another number then.
        """
        if (known := self._tables.get(number)) is not None:
            return known
        self._write()
        relation = self._relations[number]
        self.written.setdefault((relation.schema, relation.name), 0)
        self._require_same(relation, position)
        table = read_table(
            self._connection, relation, lsn_text(position), sends_generated=self._sends_generated
        )
        self._tables[number] = changes = TableChanges(table)
        return changes

    def _require_same(self, relation: Relation, position: int) -> None:
        """Raise where a table of the base has given its name to another one, whose rows the destination lacks."""
        name = f"{relation.schema}.{relation.name}"
        base = self._base_tables.get(name)
        if base is None or base.oid == relation.oid or name in self._read_again:
            return
        label = quote_qualified(relation.schema, relation.name)
        raise ChangeConflictError(
            f"from {lsn_text(position)} on {label} is another table of the source than the one that had this name at"
            " the base",
            next_step=f"moveout resync {self._source}:{name} reads it again; then run the same command again",
        )

    def _begin(self) -> None:
        """Begin a transaction, unless one is open. Raises ``SourceUsageError`` where a pooler has given us a session
        without our settings: triggers and foreign keys would act in it.
        """
        if not self._is_open:
            cursor = self._connection.execute(_BEGIN)
            self._is_open = True
            cursor.nextset()
            if cursor.fetchone() != (self._process,):
                raise session_changes(self._shown)

    def _forget(self) -> None:
        self._tables = {number: TableChanges(changes.table) for number, changes in self._tables.items()}
        self._waiting_changes = self._waiting_bytes = 0

    def _write(self) -> None:
        """Write what waits."""
        filled = [(number, changes) for number, changes in self._tables.items() if changes.waiting]
        for number, changes in filled:
            self._count(number, self._write_table(changes))
        if filled:
            self._forget()

    def _count(self, number: int, rows: int) -> None:
        relation = self._relations[number]
        self.written[relation.schema, relation.name] += rows

    def _write_table(self, changes: TableChanges) -> int:
        """Write what waits for a table; return how many rows that was."""
        table = changes.table
        self._keep_still(table)
        with self._searched(table), self._unchecked():
            return self._write_waiting(changes)

    def _write_waiting(self, changes: TableChanges) -> int:
        table, connection = changes.table, self._connection
        connection.execute(b"SAVEPOINT moveout_batch")
        try:
            rows = write_together(connection, table, changes.net())
        except psycopg.Error as exc:
            if not is_about_data(exc, connection):
                raise
            rows = None
        if rows is not None:
            connection.execute(b"RELEASE moveout_batch")
            return rows
        connection.execute(b"ROLLBACK TO moveout_batch")
        for waiting in changes.waiting:
            self._write_single(table, waiting)
        return len(changes.waiting)

    def _keep_still(self, table: DestinationTable) -> None:
        """Until the transaction ends, keep from acting what acts on replicas, too: the log has its effects."""
        if table.acts and table.label not in self._stilled:
            self._still.enter_context(without_user_triggers(self._connection, table.label))
            self._stilled.add(table.label)

    def _write_single(self, table: DestinationTable, waiting: Waiting) -> None:
        self._keep_still(table)
        self.single_changes += 1
        try:
            with self._searched(table), self._unchecked():
                write_change(self._connection, table, waiting)
        except ChangeConflictError as exc:
            if table.label in self._searching or not _lacks_name(exc.__cause__):
                raise
            self._searching.add(table.label)
            with self._searched(table), self._unchecked():
                write_change(self._connection, table, waiting)

    @contextlib.contextmanager
    def _unchecked(self) -> Iterator[None]:
        """Let a database whose text has no encoding take bytes that are no UTF-8, as its source has them."""
        if not self._takes_all_bytes:
            yield
            return
        self._connection.execute(b"SET client_encoding TO 'SQL_ASCII'")
        yield
        self._connection.execute(b"SET client_encoding TO 'UTF8'")

    @contextlib.contextmanager
    def _searched(self, table: DestinationTable) -> Iterator[None]:
        """Let a table's own code, in constraints say, find what it names without a schema, if it needs that."""
        if table.label not in self._searching:
            yield
            return
        self._connection.execute(SEARCH_EVERY_SCHEMA.encode())
        yield
        self._connection.execute(b"SELECT pg_catalog.set_config('search_path', '', true)")

    def _truncate(self, change: Truncate, position: int) -> None:
        numbers = [number for number in change.relations if not self._is_skipped(number)]
        if not numbers:
            return
        tables = [self._table(number, position).table for number in numbers]
        for table in tables:
            self._keep_still(table)
        labels = ", ".join(table.label for table in tables)
        restart = " RESTART IDENTITY" if change.restart_identity else ""
        connection = self._connection
        connection.execute(b"SAVEPOINT moveout_truncate")
        try:
            connection.execute(f"TRUNCATE ONLY {labels}{restart}".encode())
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.InsufficientPrivilege):
            # A table that is not followed refers to them, or this role may only delete.
            connection.execute(b"ROLLBACK TO moveout_truncate")
            for table in tables:
                connection.execute(f"DELETE FROM ONLY {table.label}".encode())
        connection.execute(b"RELEASE moveout_truncate")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as exc:
            raise destination_error(exc, self._shown) from exc


def open_change_writer(
    url: str, secrets: Mapping[str, str], source: str, log: Mapping[str, Any] | None = None
) -> PostgresChangeWriter:
    """Open what writes the changes of a source. Raises ``NotAllowedError`` where the role may not keep triggers from
    firing, ``BusyError``, errors of ``exporters.errors``.
    """
    address = parse_url(url, secrets)
    connection = connect_writer(address)
    with _closed_on_error(connection, address.url):
        if not without_triggers(connection):
            raise NotAllowedError(
                "this role may not keep triggers and foreign keys from firing, so changes would have"
                " their effects twice",
                about=address.url,
                next_step="as a superuser: GRANT SET ON PARAMETER session_replication_role TO the role (PostgreSQL 15"
                " and later), or follow as a superuser",
            )
        connection.cursor_factory = psycopg.RawCursor
        connection.adapters.register_dumper(bytes, _TextDumper)
        connection.prepare_threshold = 5
        connection.prepared_max = _PREPARED_STATEMENTS
        connection.execute(_SETTINGS, (command_name(),))
        if not connection.execute(_LOCK.encode(), (source,)).fetchone()[0]:  # type: ignore[index]
            raise _busy(connection, source, address.url)
        session = connection.execute(_PROCESS.encode()).fetchone()
        if session is None:
            raise session_changes(address.url)
        return PostgresChangeWriter(connection, source, address.url, session[0], log or {})


def _lacks_name(error: BaseException | None) -> bool:
    """Tell whether a server refused a statement since something is not defined, or not in a schema that it searches."""
    return isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith("42")


def _busy(connection: psycopg.Connection[Any], source: str, shown: str) -> BusyError:
    """Return the error that names the command whose session has the lock."""
    holder = connection.execute(_HOLDER.encode(), (source,)).fetchone()
    command, ending = "another moveout", "wait until it has ended"
    if holder is not None:
        command, ending = holder[0], f"end it, or its session: SELECT pg_terminate_backend({holder[1]})"
    return BusyError(f"{command} applies the changes of {source} to {shown} already", next_step=ending)


@contextlib.contextmanager
def _closed_on_error(connection: psycopg.Connection[Any], shown: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as exc:
        connection.close()
        raise destination_error(exc, shown) from exc
    except BaseException:
        connection.close()
        raise

"""Writes the changes of a MySQL or MariaDB source to a destination of the same flavour.

The statement ``BINLOG`` hands events of the log to the server, which reads the rows itself, as a replica does. So all
types of values arrive as they were, triggers do not fire, and foreign keys act where the log lacks what they did at the
source. Only the name of the database is changed on the way. Where the server refuses rows, the transaction is rolled
back; the same changes come again and are written row by row, so that the one which does not fit is named.
"""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

import pymysql
from msgspec import Struct
from msgspec.structs import replace

from exporters.changes import Message, MessageKind
from exporters.errors import SourceDamagedError
from exporters.mysql.changes.binlog_events import (
    CHECKSUM_BYTES,
    HEADER_BYTES,
    ROWS,
    STATEMENTS,
    EventType,
    TableMap,
    event_type,
    has_checksums,
    in_database,
    names_columns,
    read_query,
    read_table_map,
    server_of,
    table_number,
    with_length,
)
from exporters.mysql.changes.binlog_files import BinlogFiles
from exporters.mysql.changes.logged_statements import (
    Effect,
    LoggedStatement,
    Names,
    StatementKind,
    read_statement,
)
from exporters.mysql.changes.row_events import (
    STATEMENT_END,
    LoggedRow,
    count_rows,
    flags_of,
    single_rows,
    uncompressed,
    with_flags,
    with_logged_keys,
)
from exporters.mysql.connection import Connection, connect, parse_url
from exporters.mysql.control_tables import find_control_tables
from exporters.mysql.errors import (
    DRIVER_ERRORS,
    as_source_errors,
    is_about_the_thing,
    message_of,
    number_of,
    translate,
)
from exporters.mysql.identifiers import quote_literal, quote_name
from exporters.mysql.sessions.account_rights import read_rights
from exporters.mysql.written_counts import server_writes
from migrate.changes.apply import ChangeConflictError, Mark
from migrate.errors import BusyError, IncompleteError, NotAllowedError
from migrate.restore.mysql.changes.apply_requirements import apply_obstacles
from migrate.restore.mysql.changes.destination_table import (
    DestinationTable,
    conflict,
    is_done,
    read_table,
    require_same_shape,
)
from migrate.restore.mysql.changes.follow_marks import (
    FollowDetails,
    forget_mark,
    mark_table,
    move_mark,
    read_mark,
    run_events,
    stop_events,
    write_details,
)
from migrate.restore.mysql.existing_tables import make_triggers_of_killed_repair
from migrate.runtime.crash_points import durable
from migrate.runtime.process_identity import command_name

_LOCK_SECONDS = 3
_COMMANDS = tuple(f"moveout {name}" for name in ("follow", "run", "sync", "cutover", "resync"))
"""What applies changes."""
_STATEMENT_BYTES = 4 * 2**20
"""About so much of events is one statement, where the server takes as much."""
_SINGLE_EVENTS = 20_000
"""After a refusal so many events are written row by row."""
_CREATED = slice(HEADER_BYTES + 52, HEADER_BYTES + 56)
"""When the log's file was begun: two formats that differ in nothing else are the same."""
_STATEMENT_FRAME_BYTES = 64
"""What a statement may have around the events."""
_UNKNOWN_ERROR = 1105
_OTHER_TYPE = "mostly a column has another type or length here: compare SHOW CREATE TABLE of both sides"
_SHOWN_CHARACTERS = 200
_BASE_AGAIN = "take the base again: moveout export --follow to a new location"


class _Table(Struct):
    """A table of the log. ``event``: its map for the destination. ``destination`` is None until the first rows come."""

    event: bytes
    logged: TableMap
    destination: DestinationTable | None = None


class MysqlChangeWriter:
    """See ``ChangeWriter``. ``single_changes``: how many rows were written one by one. ``events``: the names of those
    that wait until the destination is in use.
    """

    def __init__(self, connection: Connection, source: str) -> None:
        self._connection = connection
        self._source = source
        self._shown = connection.address.url
        marked = read_mark(connection, source)
        self._details = marked[1] if marked else FollowDetails("", "")
        self.events = self._details.events
        self._names = Names(self._details.database, folds=self._details.folds)
        self._began = 0
        self._files = BinlogFiles(self._details.stem, 0, {})
        self._mark_table = mark_table(connection)
        self._control_tables, _ = find_control_tables(connection)
        self._format = self._loaded = b""
        self._tables: dict[int, _Table] = {}
        self._definitions: dict[str, dict[int, str]] = {}
        self._waiting: list[tuple[_Table, bytes, int]] = []
        self._waiting_bytes = 0
        self._waiting_before: int | None = 0
        """How much waited when the source's transaction began; None where some of that is written."""
        self._was_open = False
        """Whether the destination's transaction was open then."""
        self._most_bytes = min(_STATEMENT_BYTES, connection.longest_statement_bytes() // 2)
        self._is_open = False
        self._single_events = 0
        self.written: dict[tuple[str, str], int] = {}
        self.single_changes = 0

    def mark(self) -> Mark | None:
        """See ``ChangeWriter``."""
        with as_source_errors(self._shown):
            marked = read_mark(self._connection, self._source)
        return marked[0] if marked else None

    def forget(self) -> None:
        """See ``ChangeWriter``. The triggers that a killed repair has dropped are made, and the events run again: only
        what is removed here knows of them.
        """
        with as_source_errors(self._shown):
            make_triggers_of_killed_repair(self._connection.address)
            run_events(self._connection, self.events)
            forget_mark(self._connection, self._source)

    def written_of_server(self) -> int:
        """See ``ChangeWriter``: what its session has written."""
        with as_source_errors(self._shown):
            return server_writes(self._connection, "SESSION")

    def commits_before(self, message: Message) -> bool:
        """See ``ChangeWriter``: TRUNCATE is no part of a transaction, and neither is a new format of events."""
        if message.kind is MessageKind.SHAPE and event_type(message.payload) == EventType.FORMAT:
            return self._is_open and not _is_same_format(message.payload, self._loaded)
        statement = self._statement(message)
        return statement is not None and statement.kind is StatementKind.TRUNCATE

    def take(self, message: Message) -> None:
        """See ``ChangeWriter``."""
        with as_source_errors(self._shown):
            if message.kind is MessageKind.BEGIN:
                self._began = message.position
                self._waiting_before, self._was_open = len(self._waiting), self._is_open
            elif message.kind is MessageKind.SHAPE:
                self._take_shape(message.payload)
            elif message.kind is MessageKind.CHANGE:
                self._take_change(message)

    def commit(self, mark: Mark) -> None:
        """See ``ChangeWriter``."""
        with as_source_errors(self._shown):
            self._begin()
            self._write()
            if not (self._mark_table and move_mark(self._connection, self._mark_table, self._source, mark)):
                raise ChangeConflictError(
                    f"{self._shown} has lost the mark which says how far the changes of {self._source} were applied",
                    next_step="restore the database anew",
                )
            with durable("follow.mysql.apply"):
                self._connection.run("COMMIT")
            self._is_open = False

    def rollback(self) -> None:
        """See ``ChangeWriter``."""
        self._waiting, self._waiting_bytes = [], 0
        if self._is_open:
            with as_source_errors(self._shown):
                self._connection.run("ROLLBACK")
        self._is_open = False

    def begin_again(self, tables: Sequence[str]) -> None:
        """See ``RereadingWriter``."""
        others = [name for name in self._details.skipped if name not in tables]
        self._write_details(replace(self._details, skipped=[*others, *tables]))

    def end_again(self, tables: Sequence[str], position: int) -> None:
        """See ``RereadingWriter``."""
        others = [name for name in self._details.skipped if name not in tables]
        reread = {**self._details.reread, **dict.fromkeys(tables, position)}
        self._write_details(replace(self._details, skipped=others, reread=reread))

    def close(self) -> None:
        """See ``ChangeWriter``."""
        self._connection.close()

    def _write_details(self, details: FollowDetails) -> None:
        assert self._mark_table
        with as_source_errors(self._shown):
            write_details(self._connection, self._mark_table, self._source, details)
        self._details = details

    def _is_skipped(self, name: str) -> bool:
        """Tell whether the open transaction's changes of a table are left out: all of that table are, or its rows were
        read again later, and have them. So are those of tables that are moveout's own here.
        """
        if name in self._control_tables:
            return True
        return name in self._details.skipped or self._began < self._details.reread.get(name, 0)

    def _take_shape(self, event: bytes) -> None:
        if event_type(event) == EventType.FORMAT:
            self._format = event
            is_mariadb = "mariadb" in server_of(event).lower()
            if is_mariadb != self._connection.is_mariadb:
                names = "MySQL", "MariaDB"
                raise IncompleteError(
                    f"changes of {names[is_mariadb]} cannot be applied to {names[not is_mariadb]}",
                    about=self._shown,
                    next_step=f"restore to a server of {names[is_mariadb]}; or export without --follow to a new"
                    " location, restore that, and let moveout follow --delta compare the tables",
                )
            return
        logged = read_table_map(event)
        known = self._tables.get(logged.number)
        event = in_database(event, self._connection.address.database)
        if known is None or known.event[HEADER_BYTES:] != event[HEADER_BYTES:]:
            self._write()
            self._tables[logged.number] = _Table(event, logged)

    def _take_change(self, message: Message) -> None:
        kind = event_type(message.payload)
        if kind in ROWS:
            self._take_rows(message)
        elif kind == EventType.XA_PREPARE:
            raise self._in_two_phases(message.position, "prepared by XA PREPARE")
        elif (statement := self._statement(message)) is not None:
            self._take_statement(statement, message)
        else:
            raise SourceDamagedError(f"an event of type {kind} that changes nothing")

    def _take_rows(self, message: Message) -> None:
        table = self._tables[table_number(message.payload)]
        if self._is_skipped(table.logged.name):
            return
        if table.destination is None:
            table.destination = self._destination_table(table.logged, message)
        if not table.destination.has_own_rows:
            return
        self._begin()
        rows = message.payload if self._connection.is_mariadb else with_logged_keys(message.payload)
        if self._single_events:
            self._single_events -= 1
            self._waiting_before = None
            self._write_single(table, message._replace(payload=rows))
            return
        rows = uncompressed(rows)
        count = 0
        with suppress(ValueError):  # then it is not known of how many rows the server counts the writes
            count = count_rows(rows, table.logged)
        self._waiting.append((table, rows, count))
        self._waiting_bytes += len(rows)
        if self._waiting_bytes >= self._most_bytes // 2:
            self._write()

    def _destination_table(self, logged: TableMap, message: Message) -> DestinationTable:
        where = self._files.show(message.position)
        if not logged.columns and names_columns(self._format):
            raise ChangeConflictError(
                f"the log does not name the columns of {quote_name(logged.name)} at {where}, so it does not say whether"
                " they are the same: binlog_row_metadata was not FULL",
                next_step="at the source: SET GLOBAL binlog_row_metadata = 'FULL'; then moveout resync"
                f" {self._source}:{logged.name}; then run the same command again",
            )
        table = read_table(self._connection, logged.name)
        self.written.setdefault(("", logged.name), 0)
        return require_same_shape(table, logged, where, self._defined_before(message, logged.name))

    def _defined_before(self, message: Message, table: str) -> list[str]:
        """Return the earlier definitions of a table of which it is not certain that the destination has them."""
        defined = self._definitions.get(table, {})
        return [text for position, text in defined.items() if position < message.position]

    def _statement(self, message: Message) -> LoggedStatement | None:
        if message.kind is not MessageKind.CHANGE:
            return None
        if event_type(message.payload) not in STATEMENTS:
            return None
        return read_statement(read_query(message.payload), self._names)

    def _take_statement(self, statement: LoggedStatement, message: Message) -> None:
        where = self._files.show(message.position)
        for name in statement.tables:
            self.written.setdefault(("", name), 0)
        if statement.kind is StatementKind.SAVEPOINT:
            self._begin()
            self._write()
            self._connection.run(statement.text)
        elif statement.kind is StatementKind.ROLLBACK:
            self._take_back(where)
        elif statement.kind is StatementKind.TRUNCATE:
            self._truncate(statement, where)
        elif statement.kind is StatementKind.DEFINITION:
            self._define(statement, message.position)
        elif statement.kind is StatementKind.COMMIT_PREPARED:
            raise self._in_two_phases(message.position, "prepared by XA PREPARE before the log was read")
        elif statement.kind is StatementKind.END:
            raise ChangeConflictError(f"the source's database was dropped at {where}", next_step=_BASE_AGAIN)
        else:
            raise ChangeConflictError(
                f"what was written at {where} was logged as a statement, so the log does not say which rows it changed:"
                f" {statement.text[:_SHOWN_CHARACTERS]}",
                next_step="at the source: SET GLOBAL binlog_format = 'ROW', and let applications connect again; then "
                + _BASE_AGAIN,
            )

    def _in_two_phases(self, position: int, what: str) -> ChangeConflictError:
        return ChangeConflictError(
            f"the transaction at {self._files.show(position)} was {what}: transactions in two phases cannot be"
            " followed",
            next_step=_BASE_AGAIN,
        )

    def _take_back(self, where: str) -> None:
        """Undo what the source's transaction has done. Raises ``ChangeConflictError`` where rows of it are written, and
        of others before it: each transaction comes again, by itself.
        """
        if self._waiting_before is not None:
            del self._waiting[self._waiting_before :]
            self._waiting_bytes = sum(len(rows) for _, rows, _ in self._waiting)
        elif self._was_open:
            raise ChangeConflictError(f"the transaction that ends at {where} was rolled back")
        else:
            self.rollback()

    def _truncate(self, statement: LoggedStatement, where: str) -> None:
        """Empty a table. The server commits by itself: ``commits_before`` has seen to what was taken before."""
        (name,) = statement.tables
        if self._is_skipped(name):
            return
        table = read_table(self._connection, name)
        if table is None:
            raise ChangeConflictError(
                f"{quote_name(name)} was emptied at {where}, and is not at the destination",
                next_step=f"make {quote_name(name)} at the destination, then run the same command again",
            )
        if not table.has_own_rows:
            return
        if self._is_open:
            self._connection.run("ROLLBACK")
            self._is_open = False
        self._connection.run("SET SESSION foreign_key_checks = 0")
        self._connection.run(f"TRUNCATE TABLE {quote_name(name)}")

    def _define(self, statement: LoggedStatement, position: int) -> None:
        """Remember a definition, by its place, since it comes again after a rollback: the next rows show whether the
        destination has it. Where no rows need to show it, as of dropped and renamed tables, the destination is looked
        at. What other rows a table has since is shown by nothing, so it must have been read again.
        """
        self._write()
        effect = statement.effect
        deciding = effect.made + effect.replaced or effect.gone or statement.tables
        if not all(map(self._is_skipped, deciding)) and not is_done(self._connection, statement):
            labels = ", ".join(map(quote_name, statement.tables))
            step = f"run at the destination: {statement.text}; then run the same command again"
            if effect.replaced:
                tables = " ".join(f"{self._source}:{name}" for name in effect.replaced)
                step = (
                    f"run at the destination, if it changes columns or names: {statement.text}; then moveout resync"
                    f" {tables}; then run the same command again"
                )
            raise ChangeConflictError(f"{labels} was changed at {self._files.show(position)}", next_step=step)
        for name in effect.gone:
            self._definitions.pop(name, None)
        for name in statement.tables if effect == Effect() else ():
            self._definitions.setdefault(name, {})[position] = statement.text
        for table in self._tables.values():
            if table.logged.name in statement.tables:
                table.destination = None

    def _begin(self) -> None:
        """Begin a transaction. Before the first one, and where it has changed, send the events' format."""
        if self._is_open:
            return
        if self._format and not _is_same_format(self._format, self._loaded):
            self._run([self._format])
            if not self._connection.is_mariadb:  # now it waits for the number of the transaction
                self._connection.run("SET SESSION gtid_next = 'AUTOMATIC'")
            self._loaded = self._format
        self._connection.run("BEGIN")
        self._is_open = True

    def _write(self) -> None:
        """Write what waits. Raises ``ChangeConflictError`` where the server refuses it: the transaction is over."""
        if not self._waiting:
            return
        events = list(self._events())
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._waiting_before = 0 if self._waiting_before == len(waiting) else None
        try:
            self._run(events)
        except pymysql.Error as exc:
            if not is_about_the_thing(exc):
                raise
            self._single_events = _SINGLE_EVENTS
            raise ChangeConflictError(f"the destination refuses changes: {message_of(exc)}") from exc
        for table, _, count in waiting:
            self.written["", table.logged.name] += count

    def _run(self, events: Sequence[bytes]) -> None:
        """Have the server apply events. MariaDB takes large ones in two pieces. Raises the driver's errors,
        ``ChangeConflictError`` where the server takes no statement that is as long.
        """
        data = b64encode(b"".join(events))
        longest = self._connection.longest_statement_bytes() - _STATEMENT_FRAME_BYTES
        if len(data) <= longest:
            self._connection.run(b"BINLOG '" + data + b"'")
            return
        half = (len(data) + 1) // 2
        if half > longest or not self._connection.is_mariadb:
            least_mib = -(-(half if self._connection.is_mariadb else len(data)) // 2**20) + 1
            raise ChangeConflictError(
                f"a change has more bytes than the destination takes at once (max_allowed_packet is"
                f" {longest + _STATEMENT_FRAME_BYTES})",
                next_step=f"at the destination: SET GLOBAL max_allowed_packet = {least_mib * 2**20}; then run the same"
                " command again",
            )
        for name, piece in ((b"1", data[:half]), (b"2", data[half:])):
            self._connection.run(b"SET @moveout_" + name + b" = '" + piece + b"'")
        self._connection.run("BINLOG @moveout_1, @moveout_2")

    def _events(self) -> Iterator[bytes]:
        """Yield what waits, as few statements of a replica: the maps of some tables, then rows of these in their order,
        of which the last are marked as such. So each table is opened once.
        """
        for _, group in groupby(self._waiting, key=lambda rows: flags_of(rows[1]) | STATEMENT_END):
            statement = list(group)
            for number in dict.fromkeys(table.logged.number for table, *_ in statement):
                yield self._checked(self._tables[number].event)
            for index, (_, rows, _) in enumerate(statement, 1):
                flags = flags_of(rows) & ~STATEMENT_END
                yield self._checked(
                    with_flags(rows, flags | (STATEMENT_END if index == len(statement) else 0))
                )

    def _checked(self, event: bytes) -> bytes:
        """Return an event with its length and checksum, as the format says."""
        if not has_checksums(self._format):
            return with_length(event)
        event = with_length(event, CHECKSUM_BYTES)
        return event + zlib.crc32(event).to_bytes(CHECKSUM_BYTES, "little")

    def _write_single(self, table: _Table, message: Message) -> None:
        """Write each row of an event by itself, so that the one which does not fit is named."""
        destination = table.destination
        assert destination is not None
        try:
            rows = list(single_rows(message.payload, table.logged))
        except (ValueError, IndexError):
            rows = [LoggedRow(message.payload, None, None)]
        for row in rows:
            rows_event = with_flags(row.event, flags_of(row.event) | STATEMENT_END)
            events = [self._checked(table.event), self._checked(rows_event)]
            try:
                self._run(events)
            except pymysql.Error as exc:
                if not is_about_the_thing(exc):
                    raise
                self._connection.run("ROLLBACK")
                self._is_open = False
                problem = f"{self._files.show(message.position)}: {message_of(exc)}"
                if number_of(exc) == _UNKNOWN_ERROR:
                    problem += f" ({_OTHER_TYPE})"
                statements = self._defined_before(message, table.logged.name)
                raise conflict(self._connection, destination, table.logged, row, problem, statements) from exc
            self.single_changes += 1
            self.written["", table.logged.name] += 1


def open_change_writer(
    url: str, secrets: Mapping[str, str], source: str, log: Mapping[str, Any] | None = None
) -> MysqlChangeWriter:
    """Open what writes the changes of a source. Raises ``NotAllowedError`` where the account or the server does not let
    it, ``BusyError``, errors of ``exporters.errors``.
    """
    del log
    address = parse_url(url, secrets)
    connection = connect(address)
    try:
        _require_applicable(connection)
        _lock(connection, source)
        _log_no_statements(connection)
        writer = MysqlChangeWriter(connection, source)
        stop_events(connection, writer.events)
    except DRIVER_ERRORS as exc:
        connection.close()
        raise translate(exc, address.url) from exc
    except BaseException:
        connection.close()
        raise
    return writer


def _require_applicable(connection: Connection) -> None:
    for obstacle in apply_obstacles(connection, read_rights(connection)):
        raise NotAllowedError(obstacle.problem, about=connection.address.url, next_step=obstacle.remedy)


def _lock(connection: Connection, source: str) -> None:
    """Keep other runs away: one session at a time applies the changes of a source."""
    name = f"moveout apply {zlib.crc32(f'{connection.address.database} {source}'.encode()):08x}"
    if connection.value(f"SELECT GET_LOCK({quote_literal(name)}, {_LOCK_SECONDS})") != 1:
        used = "SELECT IS_USED_LOCK({})"
        by_command = (command for command in _COMMANDS if connection.value(used.format(_by(name, command))))
        session = connection.value(used.format(quote_literal(name)))
        raise BusyError(
            f"{next(by_command, 'another moveout')} applies the changes of {source} to {connection.address.url}"
            " already",
            next_step=f"end it, or its session: KILL {session}" if session else "wait until it has ended",
        )
    connection.value(f"SELECT GET_LOCK({_by(name, command_name())}, 0)")


def _by(lock: str, command: str) -> str:
    """Return the lock that says, next to the one that keeps others away, which command has it."""
    return quote_literal(f"{lock} by {command}")


def _log_no_statements(connection: Connection) -> None:
    """Let the destination's own log not repeat the whole text of BINLOG for each statement of a replica in it."""
    with suppress(pymysql.Error):  # where the account may not
        setting = "binlog_annotate_row_events" if connection.is_mariadb else "binlog_rows_query_log_events"
        connection.run(f"SET SESSION {setting} = OFF")


def _is_same_format(event: bytes, other: bytes) -> bool:
    return _comparable(event) == _comparable(other)


def _comparable(event: bytes) -> bytes:
    return event[HEADER_BYTES : _CREATED.start] + event[_CREATED.stop : -CHECKSUM_BYTES]

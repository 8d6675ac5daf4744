"""The change log of a MySQL or MariaDB database: the binary log of its server. See ``exporters.changes.ChangeLog``.

Nothing is made at the server. It keeps the log for as long as its settings say, whoever reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Annotated, Any

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from exporters.changes import (
    BASE_AGAIN,
    FOLLOW,
    CapturedChanges,
    ChangeBase,
    ChangeStream,
    LogState,
    Message,
    NotFollowed,
)
from exporters.engine import RereadSnapshot
from exporters.errors import (
    SourceError,
    SourceGoneError,
    SourceNotAllowedError,
    SourceReplacedError,
    SourceUnreachableError,
    SourceUsageError,
)
from exporters.limits import Note
from exporters.mysql.catalog import MysqlTable, read_sequences, read_tables
from exporters.mysql.changes.binlog_files import BinlogFiles, distance_bytes, read_files
from exporters.mysql.changes.binlog_stream import BinlogStream, LogRequest
from exporters.mysql.changes.log_requirements import is_left_out, obstacles, tables_apart
from exporters.mysql.changes.logged_statements import Names
from exporters.mysql.changes.touched_rows import touched_rows
from exporters.mysql.connection import Connection, MysqlAddress, connect, parse_url
from exporters.mysql.consistent_snapshot import open_snapshot
from exporters.mysql.definitions.definition_digests import DEFINITIONS, read_digests
from exporters.mysql.discovery import server_identity
from exporters.mysql.errors import DRIVER_ERRORS, as_source_errors
from exporters.mysql.identifiers import quote_literal
from exporters.mysql.live_rows import MysqlRows
from exporters.mysql.sessions.account_rights import read_rights
from exporters.mysql.sessions.prepared_transactions import prepared_transactions
from exporters.mysql.sessions.snapshot_locks import ONE_SESSION, snapshot_lock
from exporters.touched_rows import TouchedRows

_LOCK_SECONDS = 15
"""How long a server may take to see that the reader of a log is gone."""
_REPLICA_NUMBERS = 2**31
_ACTING_KEYS = """
SELECT DISTINCT TABLE_NAME, REFERENCED_TABLE_NAME, UNIQUE_CONSTRAINT_SCHEMA = CONSTRAINT_SCHEMA
FROM information_schema.REFERENTIAL_CONSTRAINTS
WHERE CONSTRAINT_SCHEMA = {schema}
  AND NOT (UPDATE_RULE IN ('RESTRICT', 'NO ACTION') AND DELETE_RULE IN ('RESTRICT', 'NO ACTION'))
"""
"""The tables of foreign keys that change rows, those to which they refer, and whether these are of this database."""
_KEYS_OF_ENGINE = "innodb_native_foreign_keys"
"""Whether InnoDB acts for foreign keys, below the log; servers before MySQL 9.6 do not know it, and do."""


class LogBase(Struct, frozen=True):
    """What ``ChangeBase.log`` has: which server and database it was, where the log stood, and how its files are called;
    the tables ``apart``, which are not followed; ``folds``: see ``Names``; ``definitions``: see ``DEFINITIONS``;
    ``prepared``: see ``LogRequest``.
    """

    server: str
    database: str
    stem: str
    position: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    apart: list[str]
    folds: bool = False
    definitions: dict[str, str] = field(default_factory=dict)
    prepared: list[str] | None = None


def _names(log: Mapping[str, Any]) -> Names:
    return Names(log["database"], folds=log.get("folds", False))


def _connected(name: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return a table, and after it those that pairs of tables connect with it, also by way of others."""
    connected = [name]
    for known in connected:
        connected += [
            other
            for pair in pairs
            if known in pair
            for other in dict.fromkeys(pair)
            if other not in connected
        ]
    return connected


def open_change_log(url: str, secrets: Mapping[str, str], name: str) -> MysqlChangeLog:
    """Return the change log of a database. Raises ``SourceUsageError`` for the URL."""
    return MysqlChangeLog(parse_url(url, secrets), name)


class MysqlChangeLog:
    """See ``exporters.changes.ChangeLog``. One reader at a time has the server's lock of the log's name."""

    leaves_objects = False

    def __init__(self, address: MysqlAddress, name: str) -> None:
        self._address = address
        self._name = name
        digest = hashlib.sha256(name.encode()).hexdigest()
        self._lock = quote_literal(f"moveout follow {digest[:32]}")
        self._replica = int(digest[:8], 16) % _REPLICA_NUMBERS + _REPLICA_NUMBERS
        self._files = BinlogFiles("", 0, {})

    @contextmanager
    def open_base(self, note: Note = lambda _: None) -> Iterator[ChangeBase]:
        """See ``ChangeLog``. As long as the context lasts no transaction that writes to the tables can end."""
        del note
        with ExitStack() as stack:
            with as_source_errors(self._address.url):
                base = self._locked_base(stack)
            yield base

    @contextmanager
    def stream(
        self, log: Mapping[str, Any], after: int, captured: CapturedChanges | None = None
    ) -> Iterator[ChangeStream]:
        """See ``ChangeLog``."""
        with closing(connect(self._address)) as connection:
            with as_source_errors(self._address.url):
                session = int(connection.value("SELECT CONNECTION_ID()"))
                stream = self._open_stream(connection, log, after, captured.origin() if captured else "")
            try:
                with stream:
                    yield stream
            finally:
                self._end_reader(session)  # the server would see only at its next heartbeat that it is gone

    @contextmanager
    def reread(
        self, log: Mapping[str, Any], schema: str, name: str, note: Note = lambda _: None
    ) -> Iterator[RereadSnapshot]:
        """See ``exporters.engine.RereadableLog``. The snapshot begins as that of a base does: no transaction is
        unfinished then, so its position lies between two of them. What a foreign key does to rows is not in the log: an
        older change of one table would change newer rows of the other one. So all tables that are connected by such
        keys are read together.
        """
        del note
        label = ".".join(filter(None, (schema, name)))
        if name in log["apart"]:
            raise SourceUsageError(
                f"{label} cannot be followed: at the time of the export it had no transactions, or no key but a"
                " SPATIAL one",
                next_step="nothing has to be done: the cutover reads it again",
            )
        with open_snapshot(self._address, workers=1, log=self) as (session, tables):
            by_name = {table.name: table for table in tables}
            if schema or name not in by_name:
                raise SourceUsageError(
                    f"{self._address.url} has no table {label}",
                    next_step="NAME:TABLE names one, without a database",
                )
            if not by_name[name].transactional:
                raise SourceUsageError(
                    f"{label} cannot be followed: {by_name[name].engine} has no transactions"
                )
            keys = session.holder.rows(_ACTING_KEYS.format(schema=quote_literal(self._address.database)))
            pairs = [(str(child), str(parent)) for child, parent, is_here in keys if is_here]
            names = [("", connected) for connected in _connected(name, pairs) if connected in by_name]
            yield RereadSnapshot(session.position[FOLLOW]["position"], MysqlRows(session, tables), names)

    def detour(self) -> str:
        """See ``ChangeLog``: there is one way only."""
        return ""

    def end(self, log: Mapping[str, Any]) -> int:
        """See ``ChangeLog``."""
        return self.state(log).end

    def state(self, log: Mapping[str, Any], after: int = 0) -> LogState:
        """See ``ChangeLog``. What the server keeps it would keep without us, too."""
        with closing(connect(self._address)) as control, as_source_errors(self._address.url):
            self._require_server(control, log)
            self._files = files = read_files(control)
            is_read = control.value(f"SELECT IS_USED_LOCK({self._lock})") is not None
        lost = files.missing(after) if after else ""
        since = max(after, files.oldest())
        return LogState(
            end=files.end,
            acknowledged=after or log["position"],
            retained_bytes=distance_bytes(files.sizes, since, files.end),
            is_read=is_read,
            lost=lost and f"the changes after {files.show(after)} are gone: {lost}",
            is_reserved=False,
        )

    def logged_tables(self, log: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
        """See ``ChangeLog``. What a foreign key does to the rows of its table is in the log from MySQL 9.6 on, where
        the server itself acts for the foreign keys.
        """
        schema = quote_literal(self._address.database)
        with closing(connect(self._address)) as control, as_source_errors(self._address.url):
            names = {table.name for table in read_tables(control) if table.transactional}
            acting = set()
            if control.variable(_KEYS_OF_ENGINE) != "OFF":
                acting = {str(name) for name, *_ in control.rows(_ACTING_KEYS.format(schema=schema))}
        return frozenset(("", name) for name in names - acting - {*log["apart"]})

    def touched_rows(
        self, log: Mapping[str, Any], messages: Iterable[Message]
    ) -> Mapping[tuple[str, str], TouchedRows]:
        """See ``ChangeLog``."""
        return touched_rows(messages, _names(log))

    def troubled_tables(self, log: Mapping[str, Any]) -> Sequence[NotFollowed]:
        """See ``ChangeLog``: nothing at the server follows a table."""
        del log
        return ()

    def distance_bytes(self, after: int, end: int) -> int:
        """See ``ChangeLog``."""
        return distance_bytes(self._files.sizes, after, end)

    def drop(self, log: Mapping[str, Any], *, even_if_read: bool = False) -> bool:
        """See ``ChangeLog``. There is nothing to remove; only who reads it is disconnected."""
        del log
        if even_if_read:
            self._end_reader()
        return False

    def show(self, position: int) -> str:
        """See ``ChangeLog``."""
        return self._files.show(position)

    def _locked_base(self, stack: ExitStack) -> ChangeBase:
        """Take the lock, and return where the log stands under it."""
        control = stack.enter_context(closing(connect(self._address)))
        self._require_log(control)
        tables, sequences = read_tables(control), read_sequences(control)
        definitions = read_digests(control)  # before the lock: writers would wait for it
        lock = stack.enter_context(snapshot_lock(self._address, tables))
        if lock.name == ONE_SESSION:
            raise SourceNotAllowedError(
                f"a snapshot without a lock has no position: {'; '.join(lock.refusals)}",
                about=self._address.url,
                next_step=f"GRANT RELOAD ON *.* TO {read_rights(control).account};",
            )
        self._files = read_files(control)
        base = self._base(control, tables, sequences, lock.name)
        return replace(base, log={**base.log, DEFINITIONS: definitions})

    def _open_stream(
        self, connection: Connection, log: Mapping[str, Any], after: int, origin: str
    ) -> BinlogStream:
        url = self._address.url
        self._require_server(connection, log)
        if connection.value(f"SELECT GET_LOCK({self._lock}, {_LOCK_SECONDS})") != 1:
            raise SourceUnreachableError(
                "somebody else reads the changes",
                about=url,
                next_step="stop the other moveout that follows this source",
            )
        if is_left_out(connection):
            raise SourceGoneError(
                "the server's settings leave this database out of its binary log by now (binlog_do_db,"
                " binlog_ignore_db), so changes are missing",
                about=url,
                next_step=f"take these settings back, and restart the server; then {BASE_AGAIN}",
            )
        self._files = read_files(connection)
        if missing := self._files.missing(after):
            raise SourceGoneError(
                f"the changes after {self._files.show(after)} are gone: {missing}",
                about=url,
                next_step=BASE_AGAIN,
            )
        request = LogRequest(
            files=self._files,
            names=_names(log),
            apart=log["apart"],
            replica=self._replica,
            after=after,
            origin=origin,
            prepared=log.get("prepared"),
        )
        return BinlogStream(connection, request)

    def _end_reader(self, session: int | None = None) -> None:
        """Disconnect who reads the log, as far as the server still answers; with ``session`` only where it is that one:
        by now the next reader may have the lock.
        """
        with suppress(SourceError, *DRIVER_ERRORS), closing(connect(self._address)) as control:
            reader = control.value(f"SELECT IS_USED_LOCK({self._lock})")
            if reader is not None and session in {None, int(reader)}:
                control.run(f"KILL {int(reader)}")

    def _base(
        self, control: Connection, tables: Sequence[MysqlTable], sequences: Sequence[str], lock: str
    ) -> ChangeBase:
        apart = tables_apart(control, tables)
        log = {
            "server": server_identity(control),
            "database": str(control.value("SELECT DATABASE()")),
            "folds": control.variable("lower_case_table_names") != "0",
            "stem": self._files.stem,
            "position": self._files.end,
            "apart": [*(table.name for table, _ in apart), *sequences],
            "prepared": prepared_transactions(control),
        }
        not_followed = [lack for table, lack in apart if not table.elsewhere]
        return ChangeBase(self._name, self._files.end, lock, log, not_followed)

    def _require_log(self, control: Connection) -> None:
        """Raise where server or account do not allow it; the error names the statement that does."""
        if obstacle := next(obstacles(control, read_rights(control)), None):
            raise SourceNotAllowedError(
                f"changes cannot be followed: {obstacle.problem}",
                about=self._address.url,
                next_step=" ".join(obstacle.remedy.splitlines()),
            )

    def _require_server(self, connection: Connection, log: Mapping[str, Any]) -> None:
        identity = server_identity(connection)
        if identity != log["server"]:
            raise SourceReplacedError(
                f"{self._address.url} is another server ({identity}) than the one whose changes were kept"
                f" ({log['server']})",
                next_step="check the URL. If it is right: moveout export --follow to a new location",
            )
